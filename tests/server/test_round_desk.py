"""Rounds of SP-FL on a server: reports, decision, deadline, what survives a crash."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tests.server.harness import (
    DIMENSION,
    Device,
    FakeClock,
    Running,
    initial_vector,
    logged,
    make_config,
    make_update,
    newest,
    running,
)

from fadelab_proto import cell_pb2, cell_pb2_grpc, rounds_pb2, rounds_pb2_grpc
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import SignModulus
from fadelab_proto.events import EventLog
from fadelab_proto.packet import CLASS_OFFSET
from fadelab_server.aggregation import SpFl
from fadelab_server.federation import Federation

CONSTANT = {"kind": "constant", "modulus": 0.25}
DEADLINE = {
    "kind": "sp_fl",
    "loss": "deadline",
    "deadline_s": 2.0,
    "allocation": "equal",
    "ahead_bytes": 0,
}


class WatchedClock(FakeClock):
    """Tells when somebody waits for just so long."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.waited_for = asyncio.Event()
        self._until_s = self.now_s() + wait_s

    async def sleep_until(self, when_s: float) -> None:
        if when_s == self._until_s:
            self.waited_for.set()
        await super().sleep_until(when_s)


class Cell(cell_pb2_grpc.CellServicer):
    """A radio plane that keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[cell_pb2.AllocationRequest] = []

    async def ReadChannels(self, request: Any, context: Any) -> cell_pb2.ChannelsReply:  # noqa: N802
        return cell_pb2.ChannelsReply(noise_per_hz=[1e-7, 3e-7], bandwidth_hz=1e5, efficiency=1)

    async def Allocate(self, request: Any, context: Any) -> cell_pb2.AllocationReply:  # noqa: N802
        self.asked.append(request)
        return cell_pb2.AllocationReply()


@asynccontextmanager
async def scene(
    folder: Path, clock: FakeClock, **aggregation: Any
) -> AsyncIterator[tuple[Running, list[Device], Cell]]:
    cell, radio = Cell(), grpc.aio.server()
    cell_pb2_grpc.add_CellServicer_to_server(cell, radio)
    radio.add_insecure_port(f"unix:{folder}/radio")
    await radio.start()
    config = make_config(
        folder,
        aggregation=DEADLINE | aggregation,
        radio_socket=folder / "radio",
        partial_updates="keep",
    )
    try:
        async with running(config, clock) as server:
            devices = [server.device(number) for number in range(2)]
            for device in devices:
                await device.join()
            server.federation.start(clock.now_s())
            yield server, devices, cell
    finally:
        await radio.stop(None)


async def report(
    server: Running, device: Device, *, version: int = 0, energy: float = 3.0
) -> rounds_pb2.RoundPlan:
    stub: Any = rounds_pb2_grpc.RoundsStub(server.connect(f"127.0.0.1:{server.port}"))
    figures = rounds_pb2.ModulusStatistics(energy=energy, overlap=0.5, quantiser_variance=0.1)
    plan = await stub.Report(
        rounds_pb2.RoundReport(session=device.session, version=version, moduli=figures)
    )
    assert isinstance(plan, rounds_pb2.RoundPlan)
    return plan


def upload_of(device: Device, value: float) -> Any:
    delta = np.full(DIMENSION, value, dtype=np.float32)
    delta[::2] *= -1
    return delta, make_update(
        delta, device=device.number, session=device.session, codec=SignModulus(16)
    )


async def shown(server: Running, version: int) -> None:
    seen = -1
    while server.federation.tasks[0].store.shown.number < version:
        seen = await server.federation.changed.changed_since(seen)


def test_a_round_is_decided_when_all_have_reported_and_ends_when_all_have_sent(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        async with scene(tmp_path, FakeClock()) as (server, devices, cell):
            plans = await asyncio.gather(*(report(server, device) for device in devices))
            assert [plan.status for plan in plans] == [rounds_pb2.ROUND_STATUS_SEND] * 2
            assert plans[0].end_mono_s == plans[0].begin_mono_s + 2.0
            (asked,) = cell.asked
            assert [share.device for share in asked.shares] == [0, 1]
            assert [share.band for share in asked.shares] == [0.5, 0.5]
            assert not asked.HasField("loads")
            deltas = []
            for device, value in zip(devices, (1.0, 3.0), strict=True):
                delta, update = upload_of(device, value)
                deltas.append(delta)
                reply = await device.send(update)
                assert reply.status == pb.UPLOAD_STATUS_COMPLETE
            await shown(server, 1)
            expected = initial_vector() + np.mean(deltas, axis=0)
            np.testing.assert_allclose(newest(server), expected, atol=1e-3)
            late = await report(server, devices[0])
            assert late.status == rounds_pb2.ROUND_STATUS_OVER

    asyncio.run(play())
    (told,) = logged(tmp_path, "sp_fl_round")
    assert told["arrived_sign"] == told["arrived_modulus"] == [1.0, 1.0]
    assert 0 < told["predicted_sign"][1] < told["predicted_sign"][0] < 1


def test_at_the_deadline_signs_without_moduli_count_and_the_rest_is_lost(tmp_path: Path) -> None:
    async def play() -> None:
        clock = FakeClock()
        async with scene(tmp_path, clock, compensation=CONSTANT) as (server, devices, _):
            await asyncio.gather(*(report(server, device) for device in devices))
            delta, update = upload_of(devices[0], 1.0)
            call = devices[0].open_upload()
            signs = [
                n for n, p in enumerate(update.packets) if p[CLASS_OFFSET] == pb.PACKET_CLASS_SIGN
            ]
            for message in update.messages(signs):
                await call.write(message)
            seen = -1
            while not any(len(own.received) for own in server.federation.uploads.values()):
                seen = await server.federation.changed.changed_since(seen)
            clock.advance(2.1)
            await shown(server, 1)
            step = newest(server) - initial_vector()
            np.testing.assert_allclose(step, 0.25 * np.sign(delta), atol=1e-6)
            reply = await devices[1].send(upload_of(devices[1], 1.0)[1])
            assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
            assert "over" in reply.reason
            call.cancel()

    asyncio.run(play())
    (told,) = logged(tmp_path, "sp_fl_round")
    assert (told["arrived_sign"], told["arrived_modulus"]) == ([1.0, 0.0], [0.0, 0.0])


def test_what_passes_at_once_needs_no_time_and_is_not_predicted_to_be_lost(tmp_path: Path) -> None:
    async def play(folder: Path, ahead_bytes: int) -> None:
        async with scene(folder, FakeClock(), ahead_bytes=ahead_bytes) as (server, devices, _):
            await asyncio.gather(*(report(server, device) for device in devices))
            for device in devices:
                await device.send(upload_of(device, 1.0)[1])
            await shown(server, 1)

    for ahead_bytes in (0, 20, 1514):
        folder = tmp_path / str(ahead_bytes)
        folder.mkdir()
        asyncio.run(play(folder, ahead_bytes))
    plain, some, whole = (logged(tmp_path / name, "sp_fl_round")[0] for name in ("0", "20", "1514"))
    assert some["sign_bits"] == plain["sign_bits"] - 160
    assert some["modulus_bits"] == plain["modulus_bits"] - 160
    assert plain["predicted_sign"][1] < some["predicted_sign"][1]
    assert (whole["sign_bits"], whole["modulus_bits"]) == (1, 1)
    assert plain["end_mono_s"] == plain["begin_mono_s"] + 2.0


def test_a_silent_device_does_not_hold_up_the_round_for_longer_than_it_is_waited_for(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        clock = WatchedClock(5)
        async with scene(tmp_path, clock, report_wait_s=5) as (server, devices, cell):
            asking = asyncio.create_task(report(server, devices[0]))
            await clock.waited_for.wait()
            clock.advance(5.1)
            assert (await asking).status == rounds_pb2.ROUND_STATUS_SEND
            assert [share.device for share in cell.asked[0].shares] == [0]
            late = await report(server, devices[1])
            assert late.status == rounds_pb2.ROUND_STATUS_SILENT

    asyncio.run(play())


def test_figures_of_no_update_are_refused_and_so_are_strangers(tmp_path: Path) -> None:
    async def play() -> None:
        async with scene(tmp_path, FakeClock()) as (server, devices, _):
            for energy in (-1.0, float("nan")):
                plan = await report(server, devices[0], energy=energy)
                assert plan.status == rounds_pb2.ROUND_STATUS_REFUSED
            devices[0].session = 12345
            plan = await report(server, devices[0])
            assert plan.status == rounds_pb2.ROUND_STATUS_UNKNOWN_SESSION

    asyncio.run(play())


def test_a_decided_round_survives_a_crash_of_the_server(tmp_path: Path) -> None:
    async def play() -> None:
        clock = FakeClock()
        async with scene(tmp_path, clock) as (server, devices, _):
            await asyncio.gather(*(report(server, device) for device in devices))
            await devices[0].send(upload_of(devices[0], 1.0)[1])
            rule, config = server.federation.tasks[0].rule, server.config
        assert isinstance(rule, SpFl)
        with EventLog(tmp_path / "later", "server", "0", clock) as log:
            again = Federation(config, clock, log)
            again.resume(config.checkpoint_dir)
            restored = again.tasks[0].rule
            assert isinstance(restored, SpFl)
            assert restored.allotment == rule.allotment
            assert restored.arrivals == rule.arrivals
            vector = initial_vector()
            np.testing.assert_array_equal(
                restored.end_round(newest=vector), rule.end_round(newest=vector)
            )
            await again.keeper.log.close()

    asyncio.run(play())
