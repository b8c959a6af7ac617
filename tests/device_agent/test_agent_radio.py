"""The device's modem: an emulated one behind a socket, and the wired one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from tests.device_agent.agent_harness import HurriedClock, go
from tests.server.harness import FakeClock

from fadelab_agent.radio import EmulatedRadio, WiredRadio
from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc


class TurnedClock(FakeClock):
    """Time that a test turns; pauses between attempts are over at once."""

    async def sleep_until(self, when_s: float) -> None:
        await HurriedClock().sleep_until(when_s)


class Emulator(pb_grpc.RadioServicer):
    """Reports whatever a test puts into the queue."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[pb.LinkReport | None] = asyncio.Queue()
        self.watched: list[int] = []
        self.wishes: asyncio.Queue[pb.PowerRequest] = asyncio.Queue()

    async def RequestPower(  # noqa: N802
        self, request: pb.PowerRequest, context: object
    ) -> pb.PowerReply:
        self.wishes.put_nowait(request)
        if request.power_w > 0.2:
            return pb.PowerReply(status=pb.POWER_STATUS_REFUSED, reason="too much", power_w=0.2)
        return pb.PowerReply(status=pb.POWER_STATUS_GRANTED, power_w=request.power_w)

    async def WatchLink(  # noqa: N802
        self, request: pb.WatchLinkRequest, context: object
    ) -> AsyncIterator[pb.LinkReport]:
        self.watched.append(request.device)
        while (report := await self.reports.get()) is not None:
            yield report


@asynccontextmanager
async def emulator(socket: Path) -> AsyncIterator[Emulator]:
    service, server = Emulator(), grpc.aio.server()
    pb_grpc.add_RadioServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield service
    finally:
        await server.stop(None)


class WatchedRadio(EmulatedRadio):
    """Tells a test when a report has been taken."""

    def __init__(self, socket: Path, clock: FakeClock) -> None:
        super().__init__(socket, 3, clock)
        self.taken: asyncio.Queue[float] = asyncio.Queue()

    def _take(self, report: pb.LinkReport) -> None:
        super()._take(report)
        self.taken.put_nowait(report.t_s)


async def tell(service: Emulator, radio: WatchedRadio, report: pb.LinkReport) -> None:
    await service.reports.put(report)
    await radio.taken.get()


OPEN = pb.LinkReport(
    open=True,
    snr_db=12.5,
    rate_up_bps=2e6,
    rate_down_bps=8e6,
    predicted_contact_s=7.5,
    power_w=0.2,
)
CLOSED = pb.LinkReport(open=False)


def test_before_the_first_report_there_is_no_contact(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with EmulatedRadio(tmp_path / "radio", 3, TurnedClock()) as radio:
            waiting = asyncio.create_task(radio.contact())
            await asyncio.sleep(0)
            assert not waiting.done()
            assert not radio.view.is_open
            assert radio.open_s() == 0.0
            waiting.cancel()

    go(scenario)


def test_the_latest_report_is_seen_as_it_was_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            emulator(tmp_path / "radio") as service,
            WatchedRadio(tmp_path / "radio", TurnedClock()) as radio,
        ):
            await tell(service, radio, OPEN)
            view = radio.view
            assert view.is_open
            assert (view.snr_db, view.power_w) == (12.5, 0.2)
            assert (view.rate_up_bps, view.rate_down_bps) == (2e6, 8e6)
            assert view.predicted_contact_s == 7.5
            await tell(service, radio, CLOSED)
            assert not radio.view.is_open
            assert service.watched == [3]

    go(scenario)


def test_time_in_contact_is_that_of_the_open_windows(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = TurnedClock()
        async with (
            emulator(tmp_path / "radio") as service,
            WatchedRadio(tmp_path / "radio", clock) as radio,
        ):
            clock.advance(50)
            await tell(service, radio, CLOSED)
            assert radio.open_s() == 0.0
            for _ in range(2):
                await tell(service, radio, OPEN)
                clock.advance(3)
                # A report inside a window begins no new one.
                await tell(service, radio, OPEN)
                clock.advance(4)
                await tell(service, radio, CLOSED)
                clock.advance(100)
            assert radio.open_s() == pytest.approx(14.0)
            await tell(service, radio, OPEN)
            clock.advance(1)
            assert radio.open_s() == pytest.approx(15.0)

    go(scenario)


def test_contact_waits_for_the_next_window(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            emulator(tmp_path / "radio") as service,
            WatchedRadio(tmp_path / "radio", TurnedClock()) as radio,
        ):
            waiting = asyncio.create_task(radio.contact())
            await tell(service, radio, CLOSED)
            assert not waiting.done()
            await tell(service, radio, OPEN)
            await waiting
            await radio.contact()
            await tell(service, radio, CLOSED)
            again = asyncio.create_task(radio.contact())
            await asyncio.sleep(0)
            assert not again.done()
            again.cancel()

    go(scenario)


def test_a_restarted_emulator_is_met_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = TurnedClock()
        async with WatchedRadio(tmp_path / "radio", clock) as radio:
            async with emulator(tmp_path / "radio") as service:
                await tell(service, radio, OPEN)
            # Until the emulator is back its last report stands.
            clock.advance(2)
            assert radio.view.is_open
            assert radio.open_s() == pytest.approx(2.0)
            async with emulator(tmp_path / "radio") as service:
                await tell(service, radio, CLOSED)
                assert not radio.view.is_open
                assert radio.open_s() == pytest.approx(2.0)

    go(scenario)


def test_a_wire_is_always_in_contact() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with WiredRadio(clock, rate_up_bps=1e6, rate_down_bps=2e6) as radio:
            await radio.contact()
            clock.advance(5)
            assert radio.open_s() == 5.0
            assert radio.view.is_open
            assert (radio.view.rate_up_bps, radio.view.rate_down_bps) == (1e6, 2e6)

    go(scenario)


def test_a_power_is_waited_for_until_it_is_in_force(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            emulator(tmp_path / "radio") as service,
            WatchedRadio(tmp_path / "radio", TurnedClock()) as radio,
        ):
            await tell(service, radio, OPEN)
            setting = asyncio.create_task(radio.set_power(0.05))
            wish = await service.wishes.get()
            assert (wish.device, wish.power_w) == (3, 0.05)
            await tell(service, radio, OPEN)
            assert not setting.done(), "the report was of the power before"
            changed = pb.LinkReport()
            changed.CopyFrom(OPEN)
            changed.power_w = 0.05
            await tell(service, radio, changed)
            assert await setting is None
            assert radio.view.power_w == 0.05

    go(scenario)


def test_a_refused_power_is_explained(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            emulator(tmp_path / "radio"),
            WatchedRadio(tmp_path / "radio", TurnedClock()) as radio,
        ):
            assert await radio.set_power(0.3) == "too much"
        wired = WiredRadio(TurnedClock(), rate_up_bps=1e6, rate_down_bps=1e6)
        assert "no transmit power" in (await wired.set_power(0.1) or "")

    go(scenario)
