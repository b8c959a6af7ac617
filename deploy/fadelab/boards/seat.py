"""A board that takes part in a run, and what runs on it."""

import shlex
from dataclasses import dataclass

import grpc

from fadelab.boards.clock_offset import ClockOffset
from fadelab.boards.facts import BoardFacts
from fadelab.boards.files import Spot
from fadelab.boards.inventory import EmulatedLink
from fadelab.boards.processes import BoardProcess
from fadelab.boards.ssh import Board
from fadelab.boards.waiting import serving, unless_over
from fadelab.conduct import local_channel
from fadelab_proto import radio_pb2, radio_pb2_grpc


@dataclass(slots=True)
class Seat:
    """A board that takes part."""

    board: Board
    facts: BoardFacts
    spot: Spot
    offsets: list[ClockOffset]
    link: BoardProcess | None = None
    agent: BoardProcess | None = None
    radio: grpc.aio.Channel | None = None
    trouble: str = ""
    """Why it is not to be reckoned with any more."""

    @property
    def emulated(self) -> bool:
        """Whether a link helper shapes its interface."""
        return isinstance(self.board.profile.link, EmulatedLink)

    async def begin_link(self) -> None:
        """Have its interface shaped, if it is to be; BoardError if that fails."""
        if not self.emulated:
            return
        fadelab = shlex.quote(f"{self.spot.installed}/venv/bin/fadelab")
        config = shlex.quote(f"{self.spot.run}/link.yaml")
        self.link = await BoardProcess.begin(
            self.board,
            self.facts,
            unit="fadelab-link.service",
            command=f"umask 0; exec {fadelab} emulate {config}",
            root=True,
        )
        local = await self.board.forward(str(self.spot.radio_socket))
        self.radio = local_channel(local)
        what = f"the link helper of the board {self.board.name}"
        await unless_over(self.link, serving(self.radio, what))

    async def begin_agent(self) -> None:
        """Start its agent."""
        fadelab = shlex.quote(f"{self.spot.installed}/venv/bin/fadelab")
        config = shlex.quote(f"{self.spot.run}/agent.json")
        self.agent = await BoardProcess.begin(
            self.board,
            self.facts,
            unit="fadelab-agent.service",
            command=f"exec {fadelab} agent {config}",
            root=False,
        )

    async def begin_timeline(self, begin_mono_s: float) -> None:
        """Name the instant at which emulated time is 0, by this machine's clock."""
        if self.radio is not None:
            # The same instant, by the board's own clock.
            there = begin_mono_s + self.offsets[-1].offset_s
            request = radio_pb2.BeginRequest(start_mono_s=there)
            await radio_pb2_grpc.EmulatorStub(self.radio).Begin(request)
