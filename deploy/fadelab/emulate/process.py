"""One emulation from its file to its end: places, links, timeline, and nothing left behind."""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from fadelab.emulate.choice import choose_variant, needs_of
from fadelab.emulate.config import EmulateFile
from fadelab.emulate.finder import Finder
from fadelab.emulate.session import STOP_SIGNALS, Session
from fadelab.emulate.site import AttachedSite, StarSite
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.launch import write_json
from fadelab_emulation.attach.journal import Journal, remove_leftovers
from fadelab_emulation.attach.places import (
    MissingCapabilityError,
    RefusedPlaceError,
    check_capabilities,
)
from fadelab_emulation.backends.choice import Choice, Need
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.emulator import (
    BackendFacts,
    EmulatorConfig,
    link_plan,
    take_precedence,
)
from fadelab_emulation.netlink.message import NetlinkError
from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.clock import SystemClock

_SWITCH_S = 0.0005


def run_emulation(file: EmulateFile, tell: Callable[[str], None]) -> bool:
    """Make or attach links, drive them, and take everything away again.

    Must be called in the main thread of a process that has no other; it may end up in another
    network namespace.

    Args:
        file: what to do.
        tell: hears sentences for the user.

    Returns:
        Whether the timeline came to its end; one without an end always does.

    Raises:
        FadelabError: in one sentence; what had been made until then is removed.

    """
    with in_sentences(), contextlib.ExitStack() as undo:
        check_capabilities()
        for name in remove_leftovers():
            tell(f"removed {name}, left behind by a killed `fadelab emulate`")
        finder = Finder()
        undo.callback(finder.close)
        site = AttachedSite(file, finder, tell) if file.attaches else StarSite(file, finder, tell)
        choice = choose_variant(file)
        config = _emulator_config(file, choice)
        plan = _plan_of_share(file, link_plan(config))
        _make_record(file, choice, site)
        # Whoever ends us while links are being made shall find them removed as well.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        undo.callback(signal.pthread_sigmask, signal.SIG_SETMASK, former)
        journal = Journal()
        undo.callback(journal.remove)
        journal.write(site.traces(choice.variant))
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, home)
        backend = site.make(choice.variant, plan, SystemClock(), journal)
        undo.callback(backend.close)
        scheduling = take_precedence()
        keep_freed_memory()
        # The tick's thread waits for the interpreter at most this long behind the radio plane's.
        sys.setswitchinterval(_SWITCH_S)
        session = Session(
            file=file,
            config=config,
            backend=backend,
            site=site,
            journal=journal,
            scheduling=scheduling,
            tell=tell,
        )
        return asyncio.run(session.drive(finder, home))


def _emulator_config(file: EmulateFile, choice: Choice) -> EmulatorConfig:
    return EmulatorConfig(
        devices=file.world_devices,
        drives=None if file.world is None else file.world.drives,
        seed=file.seed,
        radio=file.radio,
        backend=BackendFacts.of(choice),
        radio_socket=file.radio_socket,
        events_dir=file.record / "events",
        schedule_path=file.record / "links.schedule",
        achieved_path=file.record / "links.achieved",
        duration_s=file.duration_s,
        times_delays=file.of_run and Need.DELAY in needs_of(file),
    )


def _plan_of_share(file: EmulateFile, plan: LinkPlan) -> LinkPlan:
    if file.world is None:
        return plan
    return replace(plan, queues=[plan.queues[device] for device in file.world.drives])


def _make_record(file: EmulateFile, choice: Choice, site: StarSite | AttachedSite) -> None:
    # Of a run, too, one recording is all there may be: no timeline goes on after a gap.
    taken = file.record / "emulation.json"
    try:
        file.record.mkdir(parents=True, exist_ok=file.of_run)
        taken.touch(exist_ok=False)
    except FileExistsError:
        raise FadelabError(
            ExitCode.USAGE, f"record: {file.record} exists already; recordings are not overwritten"
        ) from None
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"record: cannot make {file.record}: {error.strerror}"
        ) from None
    content: dict[str, object] = {
        "emulation": file.model_dump(mode="json"),
        "variant": choice.variant,
        "why": choice.why,
        "passed_over": choice.passed_over,
        "places": [opened.place.label for opened in site.devices],
    }
    write_json(taken, content)


@contextlib.contextmanager
def in_sentences() -> Iterator[None]:
    """Turn what is known to go wrong into a FadelabError."""
    try:
        yield
    except RefusedPlaceError as error:
        raise FadelabError(ExitCode.USAGE, str(error)) from None
    except MissingCapabilityError as error:
        raise FadelabError(ExitCode.ENVIRONMENT, str(error)) from None
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED,
                f"{error.strerror}: an interface of the links is gone, perhaps with its container",
            ) from error
        raise FadelabError(ExitCode.ENVIRONMENT, str(error.strerror)) from error
    except PermissionError as error:
        raise FadelabError(ExitCode.ENVIRONMENT, str(error)) from error
