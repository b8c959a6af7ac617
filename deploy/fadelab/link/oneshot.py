"""Programs behind links for as long as they run: a sandbox, the links in it, the programs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link.attendance import PASSED_ON, attend, report_of
from fadelab.link.driver import LinkDriver
from fadelab.link.job import LinkJob
from fadelab.link.programs import (
    Program,
    check_program,
    check_started,
    listening,
    shell_code,
    signal_group,
    start,
)
from fadelab.link.recording import make_folder
from fadelab.link.report import LinksReport
from fadelab.local.children import Channel, Child, Family
from fadelab.local.launch import Sandboxed, sockets_dir
from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.factory import make_backend
from fadelab_emulation.backends.topology import SERVER_ADDRESS, device_address
from fadelab_proto.clock import SystemClock

_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Cast:
    """The programs of one job.

    Each finds ``FADELAB_SERVER`` and ``FADELAB_DEVICE`` in its environment, the addresses of the
    links' two ends, and on devices ``FADELAB_DEVICE_NUMBER``.
    """

    command: Sequence[str]
    """Runs on every device."""
    server: Sequence[str] | None = None
    """Runs at the other end of the links, from before they are made use of."""
    server_port: int | None = None
    """Devices begin once something listens on this TCP port there."""

    def check(self) -> None:
        """Raise FadelabError (USAGE) for what cannot be."""
        check_program(self.command)
        if self.server is not None:
            check_program(self.server)
        elif self.server_port is not None:
            raise FadelabError(ExitCode.USAGE, "a port to wait for needs a server")


@dataclass(frozen=True, slots=True)
class Ended:
    """How it went."""

    exit_code: int
    """The command's; of several devices', the first in their order that is not 0."""
    server_exit_code: int | None
    """The server's, if it ended by itself."""
    report: LinksReport | None


def run_behind_links(job: LinkJob, cast: Cast, record: Path | None = None) -> Ended:
    """Run programs behind links until those of the devices have ended.

    Must be called from the main thread of a process that has no other. Whatever ends this
    process, everything made ends with it.

    Args:
        job: what the links do from the moment the devices' programs begin.
        cast: the programs.
        record: a folder to be made for the schedule, what was achieved and the events.

    Raises:
        FadelabError: if something is missing or went wrong; what programs do is their own affair.

    """
    cast.check()
    choice = job.choose_backend()
    if record is not None:
        make_folder(record)
    with sockets_dir() as folder:

        def work(outside: Channel) -> None:
            backend = make_backend(choice.variant, job.plan(), SystemClock())
            try:
                _OneShot(job, cast, backend, record or folder, outside).perform()
            finally:
                backend.close()

        messages = attend(Sandboxed("links", work), lambda _: None)
    for message in messages:
        if "exit_code" in message:
            code, server = message["exit_code"], message["server_exit_code"]
            return Ended(
                exit_code=int(str(code)),
                server_exit_code=None if server is None else int(str(server)),
                report=report_of(messages, choice),
            )
    raise FadelabError(ExitCode.COMPONENT_FAILED, "the programs ended without an exit code")


class _OneShot:
    """Inside the sandbox."""

    def __init__(
        self, job: LinkJob, cast: Cast, backend: LinkBackend, folder: Path, outside: Channel
    ) -> None:
        self._cast = cast
        self._outside = outside
        self._driver = LinkDriver(job, backend, folder)
        self._family = Family()
        self._started = False
        # No thread exists yet: now is the time to fork.
        self._server = None if cast.server is None else _server(cast.server).fork()
        self._devices = [
            _device(cast.command, device, backend).fork() for device in range(job.devices)
        ]

    def perform(self) -> None:
        """Do it all."""
        asyncio.run(self._perform())

    async def _perform(self) -> None:
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()
        assert this is not None
        for number in PASSED_ON:
            loop.add_signal_handler(number, self._pass_on, number, this)
        for child in self._children():
            self._family.adopt(child)
        try:
            await self._serve()
            await self._drive()
        except asyncio.CancelledError:
            raise FadelabError(
                ExitCode.INTERRUPTED, "interrupted before the program began"
            ) from None
        server_code = None
        if self._server is not None:
            server_code = self._server.exit_code
            await self._family.end(self._server, grace_s=_GRACE_S)
        for child in self._children():
            check_started(child)
        codes = [shell_code(child.exit_code or 0) for child in self._devices]
        self._driver.tell(self._outside)
        self._outside.send(
            exit_code=next((code for code in codes if code), 0),
            server_exit_code=None if server_code is None else shell_code(server_code),
        )

    def _children(self) -> list[Child]:
        return self._devices if self._server is None else [self._server, *self._devices]

    async def _serve(self) -> None:
        if self._server is None:
            return
        start(self._server)
        if self._cast.server_port is not None:
            await listening(self._cast.server_port, self._server, self._family, SystemClock())

    async def _drive(self) -> None:
        """Carry the timeline out from the devices' beginning to their end."""
        over = asyncio.Event()
        driving = asyncio.create_task(self._driver.drive(over, self._begin))
        ended = asyncio.gather(*(self._family.ended(child) for child in self._devices))
        try:
            await asyncio.wait((driving, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            over.set()
            await driving

    def _begin(self) -> None:
        self._started = True
        for child in self._devices:
            start(child)

    def _pass_on(self, number: Signals, this: "asyncio.Task[None]") -> None:
        if self._started:
            for child in self._devices:
                signal_group(child, number)
        else:
            this.cancel()


def _server(command: Sequence[str]) -> Program:
    return Program(
        name="server",
        command=command,
        environment={"FADELAB_SERVER": SERVER_ADDRESS, "FADELAB_DEVICE": device_address(0)},
        namespace=None,
        reads_stdin=False,
    )


def _device(command: Sequence[str], device: int, backend: LinkBackend) -> Program:
    return Program(
        name=f"device {device}",
        command=command,
        environment={
            "FADELAB_SERVER": SERVER_ADDRESS,
            "FADELAB_DEVICE": device_address(device),
            "FADELAB_DEVICE_NUMBER": str(device),
        },
        namespace=backend.namespaces[device],
        reads_stdin=True,
    )
