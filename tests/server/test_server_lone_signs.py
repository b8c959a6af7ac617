"""Signs without their moduli, from the wire to the model, through crashes and replays."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.server.harness import (
    DIMENSION,
    FEDASYNC,
    FEDAVG,
    Device,
    Running,
    ServeDevice,
    Update,
    initial_vector,
    join_request,
    make_config,
    make_update,
    newest,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import SignModulus, SignOnly
from fadelab_proto.events import EventLog
from fadelab_proto.packet import parse_packet
from fadelab_server import state_keeper
from fadelab_server.federation import Federation
from fadelab_server.sessions import Session

F32 = NDArray[np.float32]
CODEC = SignModulus(16)
"""One packet of signs and two of moduli, 242 and 58 of them."""
CLOSE = pb.UploadPart(close=pb.UploadClose()).SerializeToString()
MEAN = {"kind": "mean_modulus"}
LAST = {"kind": "last_step"}
CONSTANT = {"kind": "constant", "modulus": 0.25}


def delta(seed: int = 4) -> F32:
    return np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)


def split(device: Device, **changes: Any) -> Update:
    return make_update(
        delta(), device=device.number, session=device.session, codec=CODEC, **changes
    )


async def cut_after(device: Device, update: Update, packets: list[int]) -> pb.UploadReply:
    return (await device.upload([*update.messages(packets), CLOSE]))[-1]


def test_the_packets_are_as_these_tests_need_them() -> None:
    counts = [parse_packet(own).count for own in make_update(delta(), codec=CODEC).packets]
    assert len(counts) == 3
    assert counts[0] == counts[1] + counts[2] == DIMENSION


def test_a_whole_update_in_parts_is_taken_exactly(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        reply = await device.send(split(device))
        assert reply.status == pb.UPLOAD_STATUS_COMPLETE
        moved = newest(server) - initial_vector()
        np.testing.assert_allclose(moved, 0.5 * delta(), atol=1e-4)

    serve_device(scenario)


@pytest.mark.parametrize(
    ("settings", "modulus"),
    [
        ({}, 0.0),
        ({"substitute": CONSTANT}, 0.25),
        ({"substitute": MEAN}, None),
        ({"substitute": LAST}, 0.0),
    ],
    ids=["keep", "constant", "mean", "last step"],
)
@pytest.mark.parametrize("rule", [FEDASYNC, FEDAVG, {"kind": "lazy"}], ids=lambda own: own["kind"])
def test_what_a_cut_update_counts_for(
    serve_device: ServeDevice, rule: dict[str, Any], settings: Any, modulus: float | None
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = split(device)
        known = parse_packet(update.packets[1]).count
        reply = await cut_after(device, update, [0, 1])
        assert reply.status == pb.UPLOAD_STATUS_CLOSED
        mixing = 0.5 if rule is FEDASYNC else 1.0
        moved = (newest(server) - initial_vector()) / mixing
        np.testing.assert_allclose(moved[:known], delta()[:known], atol=2e-4)
        mean = float(np.abs(delta()[:known]).mean())
        stand_in = mean if modulus is None else modulus
        expected = np.where(delta() < 0, -stand_in, stand_in)[known:]
        np.testing.assert_allclose(moved[known:], expected, atol=2e-4)

    serve_device(scenario, partial_updates="keep", aggregation=rule, devices=1, **settings)


def test_the_last_step_of_the_model_is_used_by_coordinate(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        first = make_update(delta(8), session=device.session)
        await device.send(first)
        step = newest(server) - initial_vector()
        await cut_after(device, split(device, update_id=2, base_version=1), [0])
        moved = newest(server) - initial_vector() - step
        expected = 0.5 * np.copysign(np.abs(step), delta())
        np.testing.assert_allclose(moved, expected, atol=1e-5)

    serve_device(scenario, partial_updates="keep", substitute=LAST)


def test_signs_alone_move_the_model_by_a_constant(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = make_update(delta(), session=device.session, codec=SignOnly())
        assert (await device.send(update)).status == pb.UPLOAD_STATUS_COMPLETE
        moved = newest(server) - initial_vector()
        np.testing.assert_allclose(moved, 0.125 * np.sign(delta()), atol=1e-6)

    serve_device(scenario, substitute=CONSTANT)


# -- crashes ---------------------------------------------------------------------------------------


async def take_part(federation: Federation) -> list[Session]:
    await federation.begin()
    sessions = [federation.join(join_request(device)) for device in range(2)]
    for session in sessions:
        federation.stream_opened(session)
    federation.start(100.0)
    return sessions


async def send(federation: Federation, sessions: list[Session], numbers: range) -> None:
    """Give updates of each device, most of them cut."""
    for number in numbers:
        base = federation.tasks[0].store.newest
        for session in sessions:
            draw = np.random.default_rng([session.device, number])
            update = make_update(
                draw.standard_normal(DIMENSION, dtype=np.float32),
                device=session.device,
                update_id=number,
                base_version=base.number,
                codec=CODEC,
            )
            signs, *moduli = update.packets
            assembly = federation.open_upload(update.header, session, base)
            for packet in [signs, *(own for own in moduli if draw.random() < 0.5)]:
                federation.add_packet(assembly, packet)
            await federation.finish_upload(assembly)


def final(federation: Federation) -> tuple[int, bytes]:
    version = federation.tasks[0].store.newest
    return version.number, version.vector.tobytes()


@pytest.mark.parametrize("substitute", [None, MEAN, LAST, CONSTANT], ids=str)
@pytest.mark.parametrize(
    "rule", [FEDASYNC, {"kind": "fedavg", "missing": "reweigh"}], ids=lambda own: own["kind"]
)
def test_replays_and_snapshots_lead_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: Any, substitute: Any
) -> None:
    monkeypatch.setattr(state_keeper, "_SNAPSHOT_BYTES", 1 << 30)
    settings = {
        "aggregation": rule,
        "substitute": substitute,
        "partial_updates": "keep",
        "stop": {"duration_s": 1e9},
        "journal_sync": False,
    }
    config = make_config(tmp_path, **settings)

    async def lives() -> None:
        with EventLog(tmp_path / "log", "server", "0", SystemClock()) as log:

            def resumed() -> Federation:
                federation = Federation(config, SystemClock(), log)
                federation.keeper.restore(config.checkpoint_dir)
                return federation

            whole = Federation(config, SystemClock(), log)
            sessions = await take_part(whole)
            await send(whole, sessions, range(1, 4))
            await whole.keeper.snapshot()
            await send(whole, sessions, range(4, 9))
            await whole.keeper.log.close()
            replayed = resumed()
            assert final(replayed) == final(whole)
            # A snapshot of the very end must hold what the substitute needs.
            await replayed.keeper.snapshot()
            await replayed.keeper.log.close()
            ended = resumed()
            assert final(ended) == final(whole)
            if substitute == LAST:
                steps = [own.tasks[0]._last_step() for own in (whole, ended)]
                values = [step(0, DIMENSION) for step in steps if step is not None]
                assert len(values) == 2
                np.testing.assert_array_equal(*values)

    asyncio.run(lives())
