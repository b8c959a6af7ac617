"""What the tests of the agent's process side share: a radio to turn by hand, a proxy to cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tests.server.harness import (
    DIMENSION,
    LAYOUT,
    RUN,
    SAMPLES,
    Running,
    initial_vector,
    make_config,
)

from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.metric import Baseline
from fadelab_agent.radio import LinkView
from fadelab_agent.work import Trained
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events
from fadelab_proto.wire import channel_options
from fadelab_server.app import Server
from fadelab_server.config import ServerConfig

F32 = NDArray[np.float32]
LARGE = 12800
"""Parameters of a model that takes 100 packets."""


class HurriedClock(SystemClock):
    """The real time, but nobody waits for it: pauses between attempts are over at once."""

    async def sleep_until(self, when_s: float) -> None:
        await asyncio.sleep(0)


class ArrivalClock(HurriedClock):
    """Tells that a packet has arrived: a download asks for the time at each."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    def now_s(self) -> float:
        self.asked.set()
        return super().now_s()


class HandRadio:
    """A modem whose windows, rate and time in contact a test sets."""

    def __init__(self, *, is_open: bool = True, rate_bps: float = 1e9) -> None:
        self.elapsed_s = 0.0
        self.rate_bps = rate_bps
        self.opened, self.closed = asyncio.Event(), asyncio.Event()
        self.powers: list[float] = []
        """Those that were asked for."""
        self.power_refusal: str | None = None
        self._asked = 0
        self._curious: list[tuple[int, asyncio.Event]] = []
        self.per_question_s = 0.0
        """How far the time in contact goes on whenever it is asked for."""
        if is_open:
            self.opened.set()

    @property
    def view(self) -> LinkView:
        return LinkView(
            is_open=self.opened.is_set(),
            snr_db=10.0,
            rate_up_bps=self.rate_bps,
            rate_down_bps=self.rate_bps,
            predicted_contact_s=60.0,
            power_w=0.1,
        )

    async def contact(self) -> None:
        await self.opened.wait()

    def blink(self) -> None:
        """End the contact window; the next one begins at once."""
        self.closed.set()
        self.closed.clear()

    async def loss_of_contact(self) -> None:
        await self.closed.wait()

    def open_s(self) -> float:
        self._asked += 1
        self.elapsed_s += self.per_question_s
        for times, reached in self._curious:
            if self._asked >= times:
                reached.set()
        return self.elapsed_s

    async def set_power(self, power_w: float) -> str | None:
        self.powers.append(power_w)
        return self.power_refusal

    async def asked(self, times: int) -> None:
        """Return once the time in contact was asked for so many times more."""
        reached = asyncio.Event()
        self._curious.append((self._asked + times, reached))
        await reached.wait()


class FakeWork:
    """A task that needs no training: the n-th update is n times a pattern of small integers."""

    def __init__(
        self,
        dimension: int = DIMENSION,
        *,
        name: str = "digits",
        layout_hash: int = LAYOUT,
        before_training: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.dimension = dimension
        self.layers = (dimension // 3, dimension - dimension // 3)
        self.layout_hash = layout_hash
        self.samples = SAMPLES
        self.trained: list[int] = []
        """Update numbers in the order of training."""
        self.bases: list[F32] = []
        self._before_training = before_training

    def delta(self, update_number: int) -> F32:
        pattern = np.arange(self.dimension, dtype=np.float32) % 11 - 5
        return (pattern * update_number).astype(np.float32)

    def train(self, base: F32, update_number: int) -> Trained:
        self._before_training(update_number)
        self.trained.append(update_number)
        self.bases.append(base.copy())
        return Trained(self.delta(update_number), steps=1, batch_size=1, loss=0.5)

    def evaluate(self, vector: F32) -> tuple[float, float]:
        return float(np.mean(vector)), 0.25

    def baseline(self) -> Baseline | None:
        return None


class Proxy:
    """Pass TCP bytes between devices and a server; hold them back or cut on request.

    Args:
        port: the server's port.
        hold_up: bytes towards the server after which no more are passed on.
        hold_down: the same for bytes towards the devices.

    """

    def __init__(
        self, port: int, *, hold_up: int | None = None, hold_down: int | None = None
    ) -> None:
        self.port = port
        self.passed_up: list[int] = []
        """Bytes towards the server by connection, in order of their opening."""
        self.passed_down: list[int] = []
        self.held = asyncio.Event()
        self._limits = {"up": hold_up, "down": hold_down}
        self._free = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self.address

    def hold_after(self, more_up: int) -> None:
        """Hold the first connection back after so many more bytes towards the server."""
        self._limits["up"] = self.passed_up[0] + more_up

    def cut(self) -> None:
        """Reset all connections; later ones are passed on without a limit."""
        self._limits = {"up": None, "down": None}
        self._free.set()
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            theirs, ours = await asyncio.open_connection("127.0.0.1", self.port)
            self._writers.add(ours)
            await asyncio.gather(
                self._pump(reader, ours, "up", self.passed_up),
                self._pump(theirs, writer, "down", self.passed_down),
                return_exceptions=True,
            )
            ours.transport.abort()
        writer.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: str,
        totals: list[int],
    ) -> None:
        index = len(totals)
        totals.append(0)
        try:
            while data := await reader.read(2048):
                limit = self._limits[direction]
                if limit is not None and totals[index] + len(data) > limit:
                    self.held.set()
                    await self._free.wait()
                    return
                writer.write(data)
                await writer.drain()
                totals[index] += len(data)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def proxied(
    server: Running, *, hold_up: int | None = None, hold_down: int | None = None
) -> AsyncIterator[tuple[Proxy, grpc.aio.Channel]]:
    """Give a proxy in front of ``server`` and a channel that goes through it."""
    proxy = Proxy(server.port, hold_up=hold_up, hold_down=hold_down)
    address = await proxy.open()
    try:
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            yield proxy, channel
    finally:
        await proxy.close()


@asynccontextmanager
async def resumed(config: ServerConfig, port: int) -> AsyncIterator[Running]:
    """Run a server that goes on from ``config``'s checkpoint on a port used before."""
    config = config.model_copy(update={"listen": f"127.0.0.1:{port}"})
    with EventLog(config.events_dir, "server", "0", SystemClock()) as log:
        server = Server(config, SystemClock(), log)
        server.federation.resume(config.checkpoint_dir)
        run = Running(server, await server.start(), config)
        try:
            yield run
        finally:
            for channel in run.channels:
                await channel.close()
            await server._data.stop(None)
            await server._local.stop(None)


def large_config(folder: Path, **changes: Any) -> ServerConfig:
    """Return a configuration whose model takes a hundred packets."""
    np.save(folder / "large.npy", initial_vector(LARGE))
    task = {
        "name": "digits",
        "dimension": LARGE,
        "layout_hash": LAYOUT,
        "initial": folder / "large.npy",
    }
    return make_config(folder, **({"tasks": [task]} | changes))


async def until(server: Running, condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds; it is looked at whenever the server's state changes."""
    seen = -1
    while not condition():
        seen = await server.federation.changed.changed_since(seen)


def go(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous scenario; one that hangs fails instead of blocking the suite."""

    async def limited() -> None:
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(limited())


def agent_events(folder: Path, name: str, device: int = 0) -> list[dict[str, Any]]:
    lines = read_events(folder / "events" / f"agent-{device}.jsonl")
    return [dict(line) for line in lines if line["event"] == name]


@contextlib.contextmanager
def agent_log(folder: Path) -> Any:
    with EventLog(folder / "events", "agent", "0", SystemClock()) as log:
        yield log


def agent_config(folder: Path, port: int, **changes: Any) -> AgentConfig:
    settings: dict[str, Any] = {
        "run_id": RUN,
        "device": 0,
        "server": f"127.0.0.1:{port}",
        "events_dir": folder / "events",
        "policy": {"kind": "dense"},
        "max_payload_bytes": 512,
    }
    return AgentConfig.model_validate(settings | changes)
