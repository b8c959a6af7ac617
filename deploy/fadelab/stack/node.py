"""The emulator of one node: links of the agents here, after the timeline that all nodes share."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from fadelab.emulate.choice import choose_for_others
from fadelab.emulate.process import in_sentences
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.launch import write_json
from fadelab.stack.links import NodeLinks
from fadelab.stack.node_file import NodeFile
from fadelab.stack.session import NodeSession
from fadelab_emulation.attach.journal import Journal
from fadelab_emulation.attach.places import check_capabilities
from fadelab_emulation.backends.choice import Choice, Need
from fadelab_emulation.emulator import BackendFacts, EmulatorConfig, link_plan, take_precedence
from fadelab_emulation.sources import needs
from fadelab_emulation.window import BackendChoice
from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.clock import SystemClock

NODE = "FADELAB_NODE"
"""Environment: what the node is called."""
_LONGEST_S = 1e6
_SWITCH_S = 0.0005


def run_node(file: NodeFile, tell: Callable[[str], None]) -> None:
    """Make this node's links, drive them from the common beginning to the end, remove them.

    Must be called in the main thread of a process that has no other.

    Args:
        file: what to do.
        tell: hears sentences for the user.

    Raises:
        FadelabError: in one sentence; what had been made until then is removed.

    """
    with in_sentences(), contextlib.ExitStack() as undo:
        check_capabilities()
        needed = needs(file.radio, file.devices, file.seed, _LONGEST_S)
        choice = _choose(file, needed)
        config = EmulatorConfig(
            devices=file.devices,
            seed=file.seed,
            radio=file.radio,
            backend=BackendFacts.of(choice),
            radio_socket=file.radio_socket,
            events_dir=file.record / "events",
            schedule_path=file.record / "links.schedule",
            achieved_path=file.record / "links.achieved",
            times_delays=Need.DELAY in needed,
        )
        node = os.environ.get(NODE) or socket.gethostname()
        for folder in (file.record, file.radio_socket.parent):
            _share(folder)
        _make_record(file, choice, node)
        journal = Journal()
        undo.callback(journal.remove)
        links = NodeLinks(file.devices, journal.alias, tell)
        backend = links.make(choice.variant, link_plan(config), SystemClock())
        undo.callback(backend.close)
        scheduling = take_precedence()
        keep_freed_memory()
        # The tick's thread waits for the interpreter at most this long behind the radio plane's.
        sys.setswitchinterval(_SWITCH_S)
        session = NodeSession(
            file=file, config=config, backend=backend, links=links, node=node, tell=tell
        )
        asyncio.run(session.drive(scheduling))


def _choose(file: NodeFile, needed: frozenset[Need]) -> Choice:
    radio = file.radio
    if radio.backend in (BackendChoice.RELAY, BackendChoice.DRY):
        raise FadelabError(
            ExitCode.USAGE,
            f"radio.backend is {radio.backend.value!r}, but links of containers are shaped by the "
            "kernel: ask for auto, lite or netem",
        )
    return choose_for_others(radio, needed)


def _share(folder: Path) -> None:
    """Let this process's group write to a folder, where that is ours to say."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):
        os.chown(folder, -1, os.getegid())
        folder.chmod(0o2775)


def _make_record(file: NodeFile, choice: Choice, node: str) -> None:
    taken = file.record / "emulation.json"
    try:
        taken.touch(exist_ok=False)
    except FileExistsError:
        raise FadelabError(
            ExitCode.USAGE, f"record: {taken} exists already; recordings are not overwritten"
        ) from None
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"record: cannot write to {file.record}: {error.strerror}"
        ) from None
    content: dict[str, object] = {
        "node": node,
        "run_id": f"{file.run_id:08x}",
        "variant": choice.variant,
        "why": choice.why,
        "passed_over": choice.passed_over,
    }
    write_json(taken, content)
