"""What the aggregation server asks of the radio access network, over a real socket."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.emulation.loop_bench import TICK_S, bench

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.coordination_service import CoordinationService
from fadelab_emulation.radio_service import LinkBoard
from fadelab_emulation.rate.base import MIN_RATE_BPS
from fadelab_emulation.world import RadioWorld
from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_proto.wire import channel_options, server_options

DEVICES = 5
POWER_W = 0.1
CELL_FREE: dict[str, Any] = {
    "tick_s": TICK_S,
    "area_m": [800, 800],
    "sites": {"kind": "grid", "columns": 2, "rows": 2},
    "mobility": {"kind": "static"},
    "rate": {"kind": "cell_free", "bandwidth_hz": 2e6},
    "uplink_power_w": POWER_W,
}
SHANNON = CELL_FREE | {"rate": {"kind": "shannon", "bandwidth_hz": 2e5}}


@dataclass
class Plane:
    world: RadioWorld
    stub: Any
    ticks: list[Any]


@asynccontextmanager
async def served(folder: Path, radio: dict[str, Any]) -> AsyncIterator[Plane]:
    config = RadioConfig.model_validate(radio)
    world = RadioWorld(config, DEVICES, 7)
    with bench(folder, devices=DEVICES, source=world) as made:
        board = LinkBoard(DEVICES, TICK_S, POWER_W)
        asyncio_loop = asyncio.get_running_loop()
        made.loop._on_powers = lambda powers: asyncio_loop.call_soon_threadsafe(
            board.take_powers, powers
        )
        made.loop._on_tick = lambda tick: asyncio_loop.call_soon_threadsafe(board.post, tick)
        server = grpc.aio.server(options=server_options())
        service = CoordinationService(
            board, made.loop, uplink=world.uplink_terms, full_power_w=POWER_W
        )
        pb_grpc.add_CoordinationServicer_to_server(service, server)
        address = f"unix:{folder}/radio"
        server.add_insecure_port(address)
        await server.start()
        driving = threading.Thread(target=made.loop.run)
        driving.start()
        made.loop.begin(made.clock.time_s)
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            yield Plane(world, pb_grpc.CoordinationStub(channel), made.ticks)
        made.loop.stop()
        await asyncio.to_thread(driving.join)
        await server.stop(None)


def on_the_plane(
    folder: Path, scenario: Callable[[Plane], Awaitable[None]], radio: dict[str, Any]
) -> None:
    async def main() -> None:
        async with served(folder, radio) as plane:
            await asyncio.wait_for(scenario(plane), 30)

    asyncio.run(main())


def test_all_rates_change_together_and_are_the_formula_s(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        report = await plane.stub.ReadUplink(pb.ReadUplinkRequest())
        assert report.floor_bps == MIN_RATE_BPS
        assert report.full_power_w == POWER_W
        cross = np.array(report.cross_interference).reshape(DEVICES, DEVICES)
        share = np.array([1.0, 0.5, 0.01, 0.2, 0.0])
        reply = await plane.stub.SetPowers(pb.PowersRequest(powers_w=POWER_W * share))
        assert reply.status == pb.POWER_STATUS_GRANTED
        sinr = (
            np.array(report.coherent_gain)
            * share
            / (np.array(report.own_interference) * share + cross @ share + np.array(report.noise))
        )
        rates = report.bandwidth_hz * report.data_share * np.log2(1 + sinr)
        np.testing.assert_allclose(reply.rate_up_bps, np.maximum(rates, MIN_RATE_BPS), rtol=1e-6)
        assert reply.rate_up_bps[4] == MIN_RATE_BPS

    on_the_plane(tmp_path, scenario, CELL_FREE)


@pytest.mark.parametrize(
    ("powers_w", "reason"),
    [
        ([POWER_W], "1 powers for 5 devices"),
        ([2 * POWER_W] * DEVICES, "at most 0.1 W"),
        ([-1.0] * DEVICES, "at least 0"),
        ([float("nan")] * DEVICES, "at least 0"),
    ],
)
def test_powers_that_cannot_be_are_refused(
    tmp_path: Path, powers_w: list[float], reason: str
) -> None:
    async def scenario(plane: Plane) -> None:
        reply = await plane.stub.SetPowers(pb.PowersRequest(powers_w=powers_w))
        assert reply.status == pb.POWER_STATUS_REFUSED
        assert reason in reply.reason

    on_the_plane(tmp_path, scenario, CELL_FREE)


def test_other_links_have_no_such_statistics(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plane.stub.ReadUplink(pb.ReadUplinkRequest())
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        reply = await plane.stub.SetPowers(pb.PowersRequest(powers_w=[POWER_W] * DEVICES))
        assert reply.status == pb.POWER_STATUS_REFUSED

    on_the_plane(tmp_path, scenario, SHANNON)
