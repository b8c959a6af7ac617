"""A device gets only what it lacks, and holds exactly what the server holds."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from pydantic import ValidationError
from tests.server.harness import (
    DIMENSION,
    F32,
    Device,
    Running,
    initial_vector,
    make_config,
    make_update,
    running,
)

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import TopK
from fadelab_proto.packet import HEADER_BYTES, Packet
from fadelab_server import model_delivery
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation
from fadelab_server.model_store import Version

DELTA = {"kind": "delta"}
LAQ = {"kind": "quantised", "codec": {"kind": "laq", "bits": 6}}
WHOLE_BYTES = 4 * DIMENSION + 3 * HEADER_BYTES


def publish(server: Running, vector: F32) -> None:
    task = server.federation.tasks[0]
    task.store.show(task._publish(vector, 0.0))


def newest(server: Running) -> Version:
    return server.federation.tasks[0].store.shown


def nudged(vector: F32, places: int = 5, by: float = 1.0) -> F32:
    changed = vector.copy()
    changed[:: len(vector) // places] += by
    return changed


def brought(info: pb.ModelInfo, packets: list[Packet], held: F32 | None = None) -> F32:
    """Return what a device makes of an answer."""
    based = info.HasField("base_version")
    vector = np.empty(DIMENSION, dtype=np.float32)
    if based:
        assert held is not None
        vector = held.copy()
    for packet in packets:
        segment = codecs.decode(
            packet.codec, packet.payload, first=packet.first, count=packet.count
        )
        if info.adds:
            segment.add_to(vector)
        else:
            segment.copy_to(vector)
    assert google_crc32c.value(vector.tobytes()) == info.checksum
    return vector


def payload_bytes(packets: list[Packet]) -> int:
    return sum(len(packet.payload) for packet in packets)


async def joined(server: Running, number: int = 0) -> Device:
    device = server.device(number)
    await device.join()
    return device


def go(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


# -- exact deltas --------------------------------------------------------------------------------


def test_a_delta_holds_what_changed_and_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=DELTA)) as server:
            device = await joined(server)
            publish(server, nudged(initial_vector()))
            info, packets = await device.fetch(version=1, held_version=0)
            assert (info.base_version, info.adds) == (0, False)
            np.testing.assert_array_equal(
                brought(info, packets, initial_vector()), newest(server).vector
            )
            assert payload_bytes(packets) < 5 * 4 + 30

    go(scenario())


def test_what_changed_several_times_is_sent_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=DELTA)) as server:
            device = await joined(server)
            for _ in range(4):
                publish(server, nudged(newest(server).vector))
            info, packets = await device.fetch(version=4, held_version=0)
            np.testing.assert_array_equal(
                brought(info, packets, initial_vector()), newest(server).vector
            )
            assert payload_bytes(packets) < 5 * 4 + 30

    go(scenario())


@pytest.mark.parametrize(
    ("settings", "held"),
    [
        ({"downlink": {"kind": "full"}}, 2),
        ({"downlink": DELTA}, 7),
        ({"downlink": DELTA, "history_bytes": 0}, 0),
        ({"downlink": LAQ}, 7),
        ({"downlink": LAQ, "downlink_memory_bytes": 0}, 2),
    ],
    ids=["full", "unknown", "gone", "steps to come", "steps gone"],
)
def test_the_whole_model_is_sent_where_nothing_better_can_be(
    tmp_path: Path, settings: dict[str, Any], held: int
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, **settings)) as server:
            device = await joined(server)
            for _ in range(3):
                publish(server, nudged(newest(server).vector))
            info, packets = await device.fetch(version=3, held_version=held)
            assert not info.HasField("base_version")
            assert payload_bytes(packets) == 4 * DIMENSION
            np.testing.assert_array_equal(brought(info, packets), newest(server).vector)

    go(scenario())


def test_the_whole_model_is_sent_where_it_is_shorter(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=DELTA)) as server:
            device = await joined(server)
            publish(server, initial_vector() + 1)
            info, packets = await device.fetch(version=1, held_version=0)
            assert not info.HasField("base_version")
            assert payload_bytes(packets) == 4 * DIMENSION

    go(scenario())


def test_what_a_device_fetched_last_is_known_however_old_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = make_config(tmp_path, downlink=DELTA, history_bytes=0)
        async with running(config) as server:
            device, other = await joined(server, 0), await joined(server, 1)
            await device.fetch(version=0)
            for _ in range(5):
                publish(server, nudged(newest(server).vector))
            # Two versions are kept: the other device cannot be helped.
            info, _ = await other.fetch(version=5, held_version=0)
            assert not info.HasField("base_version")
            info, packets = await device.fetch(version=5, held_version=0)
            assert info.base_version == 0
            np.testing.assert_array_equal(
                brought(info, packets, initial_vector()), newest(server).vector
            )

    go(scenario())


@pytest.mark.parametrize("downlink", [DELTA, LAQ], ids=["delta", "quantised"])
def test_who_holds_the_newest_version_gets_no_packet(
    tmp_path: Path, downlink: dict[str, Any]
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=downlink)) as server:
            device = await joined(server)
            publish(server, nudged(initial_vector()))
            info, packets = await device.fetch(version=1, held_version=1)
            assert (info.packets, info.base_version, packets) == (0, 1, [])
            brought(info, packets, newest(server).vector)

    go(scenario())


@pytest.mark.parametrize("downlink", [DELTA, LAQ], ids=["delta", "quantised"])
def test_a_resumed_download_brings_the_packets_that_are_missing(
    tmp_path: Path, downlink: dict[str, Any]
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=downlink)) as server:
            device = await joined(server)
            publish(server, nudged(initial_vector(), places=150))
            publish(server, nudged(newest(server).vector, places=150))
            info, packets = await device.fetch(version=2, held_version=0)
            assert len(packets) >= 2
            # A newer version does not change how the way to this one is cut into packets.
            publish(server, nudged(newest(server).vector))
            again, rest = await device.fetch(version=2, held_version=0, skip_packets=1)
            assert again == info
            assert [bytes(p.payload) for p in rest] == [bytes(p.payload) for p in packets[1:]]
            assert [p.sequence for p in rest] == list(range(1, len(packets)))

    go(scenario())


def test_what_many_ask_for_at_once_is_prepared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []
    original = model_delivery.changed_entries

    def counted(*args: Any, **kwargs: Any) -> Any:
        prepared.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(model_delivery, "changed_entries", counted)

    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=DELTA)) as server:
            publish(server, nudged(initial_vector()))
            deliveries, version = server.federation.deliveries[0], newest(server)
            found = await asyncio.gather(*(deliveries.prepare(version, held=0) for _ in range(20)))
            assert len(prepared) == 1
            assert all(one is found[0] for one in found)
            await deliveries.prepare(version, held=0)
            assert len(prepared) == 1

    go(scenario())


def test_what_is_prepared_is_kept_within_bounds(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = make_config(
            tmp_path, downlink=DELTA, history_bytes=1 << 20, downlink_memory_bytes=3000
        )
        async with running(config) as server:
            deliveries = server.federation.deliveries[0]
            for _ in range(40):
                publish(server, nudged(newest(server).vector))
            for held in range(40):
                delivery = await deliveries.prepare(newest(server), held=held)
                assert delivery.info.base_version == held
                assert deliveries._ready_bytes <= 3000
            assert 1 <= len(deliveries._ready) < 6

    go(scenario())


def test_a_sparse_update_changes_few_entries_also_where_models_are_mixed(tmp_path: Path) -> None:
    # A weight by which equal numbers mixed are not always the same number again.
    mixing = {"kind": "fedasync", "alpha": 0.3}

    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=DELTA, aggregation=mixing)) as server:
            devices = [await joined(server, number) for number in (0, 1)]
            draw = np.random.default_rng(2)
            for number in range(1, 7):
                # One device trains from the newest version, the other one from that before.
                base = max(0, newest(server).number - number % 2)
                update = make_update(
                    draw.standard_normal(DIMENSION, dtype=np.float32),
                    device=number % 2,
                    session=devices[number % 2].session,
                    update_id=number,
                    base_version=base,
                    codec=TopK(6),
                )
                assert (await devices[number % 2].send(update)).status == pb.UPLOAD_STATUS_COMPLETE
            held = server.federation.tasks[0].store.held()
            changed = [int((a.vector != b.vector).sum()) for a, b in pairwise(held)]
            assert all(1 <= number <= 12 for number in changed), changed

    go(scenario())


# -- quantised steps -----------------------------------------------------------------------------


def test_a_device_gets_the_steps_it_lacks_until_the_whole_is_shorter(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, downlink=LAQ)) as server:
            device = await joined(server)
            versions = [initial_vector()]
            draw = np.random.default_rng(5)
            for _ in range(9):
                move = draw.standard_normal(DIMENSION, dtype=np.float32)
                publish(server, newest(server).vector + move)
                versions.append(newest(server).vector)
            for missing in range(1, 10):
                info, packets = await device.fetch(version=9, held_version=9 - missing)
                vector = brought(info, packets, versions[9 - missing])
                assert vector.tobytes() == versions[9].tobytes()
                size = payload_bytes(packets) + HEADER_BYTES * len(packets)
                assert size <= WHOLE_BYTES
                # Six bits of 32, and a scale.
                assert info.adds == (missing <= 4), missing

    go(scenario())


# -- with the rest of the server -------------------------------------------------------------------


def test_updates_lead_to_steps_and_what_is_owed_survives_a_restart(tmp_path: Path) -> None:
    config = make_config(tmp_path, downlink=LAQ, seed=4)

    async def scenario() -> None:
        async with running(config) as server:
            device = await joined(server)
            for number in (1, 2):
                base = newest(server)
                info, packets = await device.fetch(version=base.number)
                update = device.update(0.3 * number, update_id=number, base_version=base.number)
                assert (await device.send(update)).status == pb.UPLOAD_STATUS_COMPLETE
                info, packets = await device.fetch(version=number, held_version=base.number)
                assert info.adds
                assert (
                    brought(info, packets, base.vector).tobytes() == newest(server).vector.tobytes()
                )
            await server.federation.keeper.snapshot()
            kept = server.federation.tasks[0].steps
            assert kept is not None
            expected = kept.residual.copy(), newest(server)
            assert expected[0].any()
        again = Federation(config, server.federation.clock, server.federation.log)
        again.keeper.restore(config.checkpoint_dir)
        restored = again.tasks[0].steps
        assert restored is not None
        assert restored.residual.tobytes() == expected[0].tobytes()
        assert again.tasks[0].store.shown.vector.tobytes() == expected[1].vector.tobytes()

    go(scenario())


@pytest.mark.parametrize(("first", "second"), [(LAQ, DELTA), (DELTA, LAQ)])
def test_a_checkpoint_of_another_downlink_is_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    config = make_config(tmp_path, downlink=first)

    async def scenario() -> None:
        async with running(config) as server:
            federation = server.federation
        other = ServerConfig.model_validate(config.model_dump() | {"downlink": second})
        with pytest.raises(CheckpointError, match="another kind of downlink"):
            Federation(other, federation.clock, federation.log).keeper.restore(
                config.checkpoint_dir
            )

    go(scenario())


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        ({"kind": "laq", "bits": 4, "block": "per_layer"}, "downlink of task 'digits': scales per"),
        ({"kind": "sign_only"}, "sign_only"),
    ],
)
def test_codecs_that_cannot_write_steps_are_refused(
    tmp_path: Path, codec: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        make_config(tmp_path, downlink={"kind": "quantised", "codec": codec})
