"""The radio plane over its unix socket: what devices and the launcher get to know, and when."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from loop_bench import Bench, bench
from sandboxed import make_tick

from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.radio_service import EmulatorService, LinkBoard, RadioService
from fadelab_emulation.schedule import ScheduleReader
from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_proto.wire import channel_options, server_options

DEVICES = 4
MAX_POWER_W = 0.2
TICK_S = 0.1
REFRESH_TICKS = 10
LONG_S = 20.0
RATE_BPS = 3e6


@dataclass
class Plane:
    """A served radio plane and stubs on it; the generated types are those of the blocking API."""

    board: LinkBoard
    made: Bench
    radio: Any
    emulator: Any

    def watch(self, device: int) -> Any:
        return self.radio.WatchLink(pb.WatchLinkRequest(device=device))

    async def ask(self, device: int, power_w: float) -> pb.PowerReply:
        reply = await self.radio.RequestPower(pb.PowerRequest(device=device, power_w=power_w))
        assert isinstance(reply, pb.PowerReply)
        return reply


@asynccontextmanager
async def served(folder: Path, *, powers_matter: bool = True) -> AsyncIterator[Plane]:
    with bench(folder, devices=DEVICES) as made:
        board = LinkBoard(DEVICES, TICK_S, MAX_POWER_W)
        server = grpc.aio.server(options=server_options())
        radio = RadioService(board, made.loop, max_power_w=MAX_POWER_W, powers_matter=powers_matter)
        pb_grpc.add_RadioServicer_to_server(radio, server)
        emulator = EmulatorService(board, made.loop)
        pb_grpc.add_EmulatorServicer_to_server(emulator, server)
        address = f"unix:{folder}/radio"
        server.add_insecure_port(address)
        await server.start()
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            yield Plane(board, made, pb_grpc.RadioStub(channel), pb_grpc.EmulatorStub(channel))
        await server.stop(None)


def on_the_plane(
    folder: Path, scenario: Callable[[Plane], Awaitable[None]], *, powers_matter: bool = True
) -> None:
    async def main() -> None:
        async with served(folder, powers_matter=powers_matter) as plane:
            await asyncio.wait_for(scenario(plane), LONG_S)

    asyncio.run(main())


def tick(index: int, is_open: list[bool]) -> LinkTick:
    return replace(
        make_tick(DEVICES, RATE_BPS),
        index=index,
        t_s=TICK_S * index,
        is_open=np.array(is_open),
        snr_up_db=np.arange(DEVICES, dtype=np.float64),
        predicted_contact_s=np.full(DEVICES, 7.5),
    )


ALL_OPEN = [True] * DEVICES
SECOND_CLOSED = [True, False, True, True]


def test_a_device_hears_at_once_even_before_the_first_tick(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        report = await plane.watch(0).read()
        assert (report.open, report.power_w, report.rate_up_bps) == (True, MAX_POWER_W, 0)

    on_the_plane(tmp_path, scenario)


def test_a_report_holds_what_a_modem_knows(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        plane.board.post(tick(3, SECOND_CLOSED))
        report = await plane.watch(1).read()
        assert report == pb.LinkReport(
            t_s=3 * TICK_S,
            open=False,
            snr_db=1.0,
            rate_up_bps=RATE_BPS,
            rate_down_bps=RATE_BPS,
            predicted_contact_s=7.5,
            power_w=MAX_POWER_W,
        )

    on_the_plane(tmp_path, scenario)


def test_openings_and_closings_are_reported_by_the_tick_and_nothing_between(
    tmp_path: Path,
) -> None:
    async def scenario(plane: Plane) -> None:
        watch = plane.watch(1)
        await watch.read()
        plane.board.post(tick(2, ALL_OPEN))
        assert (await watch.read()).t_s == pytest.approx(2 * TICK_S)
        # Device 1's turn would be tick 11: what comes now comes for its own sake.
        for index, is_open in ((3, ALL_OPEN), (4, ALL_OPEN), (5, SECOND_CLOSED)):
            plane.board.post(tick(index, is_open))
            await asyncio.sleep(0)
        closed = await watch.read()
        assert (closed.open, closed.t_s) == (False, pytest.approx(5 * TICK_S))
        plane.board.post(tick(6, ALL_OPEN))
        opened = await watch.read()
        assert (opened.open, opened.t_s) == (True, pytest.approx(6 * TICK_S))

    on_the_plane(tmp_path, scenario)


def test_without_news_every_device_has_its_turn_once_a_second() -> None:
    async def scenario() -> None:
        board = LinkBoard(DEVICES, TICK_S, MAX_POWER_W)
        board.post(tick(0, ALL_OPEN))
        for device in range(DEVICES):
            await board.news(device)
        turns: list[tuple[int, int]] = []
        for index in range(1, 2 * REFRESH_TICKS):
            board.post(tick(index, ALL_OPEN))
            for device in range(DEVICES):
                news = asyncio.ensure_future(board.news(device))
                await asyncio.sleep(0)
                if news.done():
                    turns.append((index, device))
                news.cancel()
        assert turns == [
            *((index, index) for index in (1, 2, 3)),
            *((10 + device, device) for device in range(DEVICES)),
        ]

    asyncio.run(scenario())


def test_a_device_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        for call in (plane.watch(DEVICES).read(), plane.ask(DEVICES, 0.1)):
            with pytest.raises(
                grpc.aio.AioRpcError, match=r"device 4 is not one of 0\.\.3"
            ) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    on_the_plane(tmp_path, scenario)


def test_a_power_that_is_granted_is_reported_and_reaches_the_world(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        reply = await plane.ask(2, 0.05)
        assert (reply.status, reply.power_w) == (pb.POWER_STATUS_GRANTED, 0.05)
        watched = plane.watch(2)
        assert (await watched.read()).power_w == MAX_POWER_W, "it is not in force yet"
        plane.board.take_powers({2: 0.05})
        assert (await watched.read()).power_w == 0.05
        assert (await plane.watch(1).read()).power_w == MAX_POWER_W
        plane.made.loop.begin(1000.5)
        plane.made.run(1)

    on_the_plane(tmp_path, scenario)
    (tmp_path / "calm").mkdir()
    with bench(tmp_path / "calm", devices=DEVICES) as calm:
        calm.loop.begin(1000.5)
        calm.run(1)
        calm_db = calm.ticks[0].snr_up_db
    asked_db = _recorded_snr_db(tmp_path)
    quarter_db = 10 * np.log10(4)
    assert calm_db - asked_db == pytest.approx([0, 0, quarter_db, 0], abs=1e-4)


def _recorded_snr_db(folder: Path) -> Any:
    return ScheduleReader(folder / "links.schedule").column("snr_up_db")[0].astype(np.float64)


@pytest.mark.parametrize("power_w", [0.0, -1.0, 0.21, float("inf"), float("nan")])
def test_an_impossible_power_is_refused_and_changes_nothing(power_w: float, tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.ask(0, 0.1)
        reply = await plane.ask(0, power_w)
        assert (reply.status, reply.power_w) == (pb.POWER_STATUS_REFUSED, 0.1)
        assert reply.reason == f"{power_w:g} W is not above 0 and at most 0.2 W"

    on_the_plane(tmp_path, scenario)


@pytest.mark.parametrize("start_mono_s", [0.0, -5.0, float("nan")])
def test_a_start_that_is_no_time_is_refused(start_mono_s: float, tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plane.emulator.Begin(pb.BeginRequest(start_mono_s=start_mono_s))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    on_the_plane(tmp_path, scenario)


def test_the_launcher_begins_the_timeline_and_sees_the_links(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        await plane.emulator.Begin(pb.BeginRequest(start_mono_s=1000.5))
        plane.made.run(3)
        for carried_out in plane.made.ticks:
            plane.board.post(carried_out)
        plane.board.counters = plane.made.counters[-1]
        report = await plane.emulator.WatchFidelity(pb.WatchFidelityRequest()).read()
        assert report.t_s == pytest.approx(2 * TICK_S)
        assert [link.device for link in report.links] == list(range(DEVICES))
        assert [link.wire_up_bytes for link in report.links] == [4] * DEVICES
        assert not any(link.saturated for link in report.links)

    on_the_plane(tmp_path, scenario)


def test_every_stream_ends_by_itself_when_the_emulator_does(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        plane.board.post(tick(0, ALL_OPEN))
        plane.board.counters = plane.made.backend.counters()
        watch = plane.watch(1)
        fidelity = plane.emulator.WatchFidelity(pb.WatchFidelityRequest())
        await fidelity.read()
        await watch.read()
        # The first tick was news for everybody.
        await watch.read()
        plane.board.close()
        assert await watch.read() == grpc.aio.EOF
        assert await fidelity.read() == grpc.aio.EOF
        assert await watch.code() == await fidelity.code() == grpc.StatusCode.OK

    on_the_plane(tmp_path, scenario)


def test_a_given_timeline_refuses_every_power(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        reply = await plane.ask(1, 0.1)
        assert reply.status == pb.POWER_STATUS_REFUSED
        assert "powers have no say" in reply.reason
        assert reply.power_w == pytest.approx(MAX_POWER_W)

    on_the_plane(tmp_path, scenario, powers_matter=False)
