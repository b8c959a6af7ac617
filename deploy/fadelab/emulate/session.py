"""Driving links that exist: the timeline, the radio plane, and containers that start again."""

import asyncio
import contextlib
import signal
from collections.abc import Callable

from fadelab.emulate.config import EmulateFile, Start
from fadelab.emulate.engine import Started
from fadelab.emulate.finder import Finder
from fadelab.emulate.site import AttachedSite, Opened, StarSite
from fadelab.emulate.watch import ContainerWatch
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_emulation.attach.journal import Journal
from fadelab_emulation.attach.places import MissingCapabilityError, RefusedPlaceError
from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.choice import SKILLS
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.share import LinkShare
from fadelab_emulation.byte_watch import ByteWatch
from fadelab_emulation.delay_watch import DelayWatch
from fadelab_emulation.emulator import Emulator, EmulatorConfig, calibrate
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog

_LEAD_S = 0.05
"""From the start of the tick's thread to the first tick, which is to be on time."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Session:
    """One emulation while it goes on.

    Args:
        file: what to do.
        config: the same for the emulator.
        backend: the links; they remain the caller's.
        site: where they are.
        journal: learns of every change of place.
        scheduling: how the kernel treats this process.
        tell: hears sentences for the user.

    """

    def __init__(
        self,
        *,
        file: EmulateFile,
        config: EmulatorConfig,
        backend: KernelBackend,
        site: StarSite | AttachedSite,
        journal: Journal,
        scheduling: str,
        tell: Callable[[str], None],
    ) -> None:
        self._file = file
        self._config = config
        self._backend = backend
        self._site = site
        self._journal = journal
        self._scheduling = scheduling
        self._tell = tell
        self._accounts: _Accounts | None = None
        self._stop = asyncio.Event()
        self._failure: FadelabError | None = None

    async def drive(self, finder: Finder, home: int) -> bool:
        """Follow the timeline to its end or to SIGTERM or SIGINT; return whether it was its end.

        Args:
            finder: opens the places of containers that start again.
            home: descriptor of the network namespace that the Docker engine is reached from.

        Raises:
            FadelabError: a container's new place cannot be used.
            NetlinkError: the kernel refuses something, mostly because an interface is gone.

        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        clock = SystemClock()
        emulated = SystemClock(self._file.radio.time_scale)
        with (
            EventLog(self._config.events_dir, "emulator", "0", emulated) as log,
            contextlib.ExitStack() as watching,
        ):
            self._note_ready(log)
            if self._file.of_run:
                calibrate(self._config, self._backend, clock, log)
                self._accounts = _Accounts(self._config, self._backend, self._site, log)
                watching.callback(self._accounts.close)
            emulator = self._emulator(clock, log)

            def hear(name: str, started: Started) -> None:
                try:
                    self._follow(name, started, finder, emulator, log)
                except FadelabError as error:
                    self._fail(error, loop)
                except (RefusedPlaceError, MissingCapabilityError) as error:
                    self._fail(FadelabError(ExitCode.COMPONENT_FAILED, str(error)), loop)

            names = self._containers()
            if names:
                watch = ContainerWatch(finder.engine, home, names, hear)
                watching.callback(watch.close)
            if self._file.start is Start.AT_ONCE:
                emulator.begin(clock.now_s() + _LEAD_S)
            # In the tick's thread, where the links are open by then.
            emulator.call(lambda: self._tell(self._announcement()))
            await emulator.serve(self._stop)
        if self._failure is not None:
            raise self._failure
        return self._file.duration_s is None or not self._stop.is_set()

    def _of_the_world(self) -> LinkBackend:
        world = self._file.world
        if world is None:
            return self._backend
        return LinkShare(self._backend, world.drives, world.devices)

    def _emulator(self, clock: SystemClock, log: EventLog) -> Emulator:
        if self._accounts is None:
            return Emulator(self._config, self._of_the_world(), clock, log)
        return Emulator(
            self._config,
            self._backend,
            clock,
            log,
            delay_watch=self._accounts.delays,
            byte_watch=self._accounts.bytes,
        )

    def _containers(self) -> list[str]:
        places = [*self._file.devices, *([self._file.server] if self._file.server else [])]
        return list(dict.fromkeys(one.container for one in places if one.container is not None))

    def _follow(
        self, name: str, started: Started, finder: Finder, emulator: Emulator, log: EventLog
    ) -> None:
        """Make a device's link anew in the network of its container that has started again."""
        site, server = self._site, self._file.server
        place = finder.find_container(name, started.identity)
        if isinstance(site, AttachedSite) or (server is not None and server.container == name):
            known = site.devices if isinstance(site, AttachedSite) else [site.server]
            if place.identity in {opened.place.identity for opened in known}:
                return
            raise FadelabError(
                ExitCode.COMPONENT_FAILED,
                f"{place.label} has started again, with a network in which nothing is shaped: "
                "start `fadelab emulate` again",
            )
        for device, one in enumerate(self._file.devices):
            if one.container != name or (opened := site.reopen(device, place)) is None:
                continue

            def move(device: int = device, opened: Opened = opened) -> None:
                self._journal.write(site.traces(self._config.backend.variant))
                if self._accounts is not None:
                    self._accounts.bytes.leave(device)
                site.move(device, opened, self._backend)
                if self._accounts is not None:
                    self._accounts.arrive(device)
                log.write("link_moved", device=device, place=place.label)
                self._tell(f"{place.label} has started again: its link is made anew")

            emulator.call(move)

    def _fail(self, error: FadelabError, loop: asyncio.AbstractEventLoop) -> None:
        self._failure = error
        loop.call_soon_threadsafe(self._stop.set)

    def _note_ready(self, log: EventLog) -> None:
        facts = self._config.backend
        log.write(
            "links_ready",
            backend=self._backend.name,
            variant=facts.variant.value,
            why=facts.why,
            passed_over=[f"{variant}: {why}" for variant, why in facts.passed_over.items()],
            loss_is_seeded=SKILLS[facts.variant].loss_is_seeded,
            window=self._file.radio.window.value,
            devices=self._config.devices,
            scheduling=self._scheduling,
            places=[opened.place.label for opened in self._site.devices],
            hub_settings=[f"{s.name}={s.value}" for s in self._backend.settings],
            device_settings=[f"{s.name}={s.value}" for s in self._backend.namespaces[0].settings],
        )

    def _announcement(self) -> str:
        count, variant = len(self._file.devices), self._config.backend.variant
        links = f"{count} link{'s' if count > 1 else ''} by {variant}"
        if self._backend.server_address:
            links += f", the server at {self._backend.server_address}"
        return f"driving {links}; recorded in {self._file.record}"


class _Accounts:
    """What passes the links of a run, by the accounts of those at their ends."""

    def __init__(
        self,
        config: EmulatorConfig,
        backend: KernelBackend,
        site: StarSite | AttachedSite,
        log: EventLog,
    ) -> None:
        assert isinstance(site, StarSite)
        self.delays = DelayWatch(backend) if config.times_delays else None
        self.bytes = ByteWatch(backend, log, self.delays, site.ends)

    def arrive(self, device: int) -> None:
        """Go on at a link that was made anew."""
        self.bytes.arrive(device)
        if self.delays is not None:
            self.delays.arrive(device)

    def close(self) -> None:
        """Close all sockets."""
        self.bytes.close()
        if self.delays is not None:
            self.delays.close()
