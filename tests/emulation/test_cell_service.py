"""The radio plane towards the server: what it tells, what it refuses, and when it answers."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.emulation.test_class_rates import world

from fadelab_emulation.cell_service import CellService
from fadelab_proto import cell_pb2 as pb
from fadelab_proto import cell_pb2_grpc as pb_grpc


class Ticks:
    """Keeps the changes that a tick loop would make."""

    def __init__(self) -> None:
        self.changes: list[tuple[Any, Any]] = []

    def request_change(self, change: Any, in_force: Any) -> None:
        self.changes.append((change, in_force))


def request(**changes: Any) -> pb.AllocationRequest:
    share = {"device": 1, "power": 0.5, "band": 0.5, "sign": 0.25} | changes.pop("share", {})
    fields = {"shares": [pb.ClassShares(**share)], "access": pb.ACCESS_FDM} | changes
    return pb.AllocationRequest(**fields)


async def served(folder: Path, service: CellService, talk: Any) -> Any:
    server = grpc.aio.server()
    pb_grpc.add_CellServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{folder}/cell")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{folder}/cell") as channel:
            stub: Any = pb_grpc.CellStub(channel)
            return await talk(stub)
    finally:
        await server.stop(None)


def test_an_allocation_is_answered_when_it_is_in_force(tmp_path: Path) -> None:
    links, ticks = world(), Ticks()
    links.step()
    service = CellService(links.division, ticks, 4)  # type: ignore[arg-type]

    async def talk(stub: Any) -> None:
        channels = await stub.ReadChannels(pb.ChannelsRequest())
        assert len(channels.noise_per_hz) == 4
        assert min(channels.noise_per_hz) > 0
        asked = asyncio.ensure_future(stub.Allocate(request()))
        await stub.ReadChannels(pb.ChannelsRequest())
        while not ticks.changes:
            await stub.ReadChannels(pb.ChannelsRequest())
        assert not asked.done()
        (make, in_force), before = ticks.changes[0], links.step()
        make()
        after = links.step()
        assert after.up[1].rate_bps[1] != before.up[1].rate_bps[1]
        in_force()
        assert (await asked).refusal == ""

    asyncio.run(served(tmp_path, service, talk))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"access": pb.ACCESS_UNSPECIFIED}, "no access"),
        ({"share": {"device": 4}}, "device 4"),
        ({"share": {"power": 1.5}}, "not between 0 and 1"),
        ({"share": {"band": float("nan")}}, "not between 0 and 1"),
        ({"shares": [pb.ClassShares(device=d, band=0.6) for d in (0, 1)]}, "add up to 1.2"),
        ({"loads": pb.FixedLoads(sign_bits=1.0)}, "loads must be positive"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    service = CellService(world().division, Ticks(), 4)  # type: ignore[arg-type]

    async def talk(stub: Any) -> None:
        assert sentence in (await stub.Allocate(request(**changes))).refusal

    asyncio.run(served(tmp_path, service, talk))


def test_links_without_the_classes_say_so(tmp_path: Path) -> None:
    service = CellService(None, Ticks(), 4)  # type: ignore[arg-type]

    async def talk(stub: Any) -> None:
        assert "nothing to divide" in (await stub.Allocate(request())).refusal
        with pytest.raises(grpc.aio.AioRpcError, match="nothing to divide"):
            await stub.ReadChannels(pb.ChannelsRequest())

    asyncio.run(served(tmp_path, service, talk))
