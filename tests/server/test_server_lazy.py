"""Lazy aggregation: the server counts a device with what it sent last."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.server.harness import (
    DIMENSION,
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
from fadelab_proto.codecs import Segment
from fadelab_proto.events import EventLog
from fadelab_server.aggregation import Contribution, Lazy
from fadelab_server.config import LazyConfig
from fadelab_server.federation import Federation

F32 = NDArray[np.float32]
N = 5
LAZY = {"kind": "lazy"}
ZERO: F32 = np.zeros(N, dtype=np.float32)


def said(
    device: int, value: float | None, *, samples: int = 1, fresh: bool = False
) -> Contribution:
    segments = () if value is None else (Segment(0, np.full(N, value, np.float32)),)
    return Contribution(
        device=device,
        base=ZERO,
        segments=segments,
        base_version=0,
        staleness=0,
        samples=samples,
        fresh_reference=fresh,
    )


def rounds(rule: Lazy, *of_each: dict[int, Contribution], roster: frozenset[int]) -> list[float]:
    """Return by how much the model moved in each round."""
    moved, newest_vector = [], ZERO
    for contributions in of_each:
        result = None
        for own in contributions.values():
            assert result is None
            result = rule.add(own, newest=newest_vector, roster=roster)
        assert result is not None
        moved.append(float(result[0] - newest_vector[0]))
        newest_vector = result
    return moved


def test_the_model_moves_by_the_mean_of_what_devices_said_last() -> None:
    rule = Lazy(LazyConfig(), N)
    moved = rounds(
        rule,
        {0: said(0, 4, samples=3), 1: said(1, 8)},  # 3/4 * 4 + 1/4 * 8
        {0: said(0, None, samples=3), 1: said(1, -4)},  # 3/4 * 4 + 1/4 * 4
        {0: said(0, 1, samples=3), 1: said(1, None)},  # 3/4 * 5 + 1/4 * 4
        roster=frozenset({0, 1}),
    )
    assert moved == [5.0, 4.0, 4.75]


def test_a_fresh_device_is_taken_at_its_word_alone() -> None:
    both = frozenset({0, 1})
    moved = rounds(
        Lazy(LazyConfig(), N),
        {0: said(0, 4, fresh=True), 1: said(1, 8, fresh=True)},
        {0: said(0, 2, fresh=True), 1: said(1, None)},
        roster=both,
    )
    assert moved == [6.0, 5.0]


def test_with_a_quorum_the_silent_count_with_what_they_said() -> None:
    rule = Lazy(LazyConfig(quorum=1), N)
    everybody = frozenset({0, 1, 2})
    assert rounds(rule, {0: said(0, 4)}, {1: said(1, 8)}, {0: said(0, None)}, roster=everybody) == [
        4.0,
        6.0,
        6.0,
    ]


def test_who_has_left_counts_no_more_and_nobody_waits_for_them() -> None:
    rule = Lazy(LazyConfig(), N)
    both = frozenset({0, 1})
    rounds(rule, {0: said(0, 4), 1: said(1, 8)}, roster=both)
    assert rule.add(said(0, None), newest=ZERO, roster=both) is None
    moved = rule.roster_changed(newest=ZERO, roster=frozenset({0}))
    assert moved is not None
    np.testing.assert_array_equal(moved, np.full(N, 4))
    assert rule.roster_changed(newest=ZERO, roster=frozenset({0})) is None
    rule.add(said(0, None), newest=ZERO, roster=both)
    back = rule.add(said(1, None), newest=ZERO, roster=both)
    assert back is not None
    np.testing.assert_array_equal(back, np.full(N, 6))


def test_past_rounds_and_second_words_are_refused() -> None:
    rule = Lazy(LazyConfig(), N)
    rule.add(said(1, 1), newest=ZERO, roster=frozenset({0, 1}))
    assert "is over" in (rule.refuse(device=0, base_version=6, newest=7) or "")
    assert "already" in (rule.refuse(device=1, base_version=7, newest=7) or "")


def test_references_survive_a_snapshot_which_later_rounds_do_not_change() -> None:
    rule, restored = Lazy(LazyConfig(), N), Lazy(LazyConfig(), N)
    everybody = frozenset({0, 1, 2})
    rounds(rule, {0: said(0, 4), 1: said(1, 8, samples=7), 2: said(2, 1)}, roster=everybody)
    rule.add(said(2, 5), newest=ZERO, roster=everybody)
    restored.restore(kept := rule.pending())
    before = {name: array.copy() for name, array in kept.items()}
    for own in (said(0, 1), said(1, None, samples=7)):
        results = [one.add(own, newest=ZERO, roster=everybody) for one in (rule, restored)]
    assert results[0] is not None
    np.testing.assert_array_equal(*results)
    for name, array in kept.items():
        np.testing.assert_array_equal(array, before[name])


# -- over the wire ---------------------------------------------------------------------------------


def silence(device: Device, update_id: int, base_version: int) -> Update:
    update = device.update(update_id=update_id, base_version=base_version)
    update.header.packets = update.header.payload_bytes = update.header.content = 0
    return Update(update.header, [])


def test_an_update_without_packets_means_count_me_with_what_i_sent(
    serve_device: ServeDevice,
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        assert (await device.send(device.update(2.0))).status == pb.UPLOAD_STATUS_COMPLETE
        reply = await device.send(silence(device, 2, 1))
        assert reply.status == pb.UPLOAD_STATUS_COMPLETE
        again = await device.send(silence(device, 2, 1))
        assert again.status == pb.UPLOAD_STATUS_DUPLICATE
        np.testing.assert_allclose(newest(server), initial_vector() + 4, rtol=1e-6)
        assert server.federation.tasks[0].store.shown.number == 2

    serve_device(scenario, aggregation=LAZY, devices=1)


@pytest.mark.parametrize("rule", [FEDAVG, {"kind": "fedasync"}])
def test_other_rules_refuse_silence(serve_device: ServeDevice, rule: dict[str, Any]) -> None:
    async def scenario(server: Running, device: Device) -> None:
        reply = await device.send(silence(device, 1, 0))
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_SHAPE
        assert "0 packets cannot carry" in reply.reason
        fresh = device.update()
        fresh.header.fresh_reference = True
        reply = await device.send(fresh)
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_SHAPE
        assert "takes updates, not how they changed" in reply.reason

    serve_device(scenario, aggregation=rule)


def test_a_journal_with_silence_in_it_replays_to_the_same_model(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, aggregation=LAZY, devices=2, stop={"duration_s": 1e9}, journal_sync=False
    )

    async def live(federation: Federation) -> None:
        await federation.begin()
        sessions = [federation.join(join_request(device)) for device in range(2)]
        for session in sessions:
            federation.stream_opened(session)
        federation.start(100.0)
        draw = np.random.default_rng(3)
        for number in range(1, 9):
            base = federation.tasks[0].store.shown
            for session in sessions:
                update = make_update(
                    draw.standard_normal(DIMENSION, dtype=np.float32),
                    device=session.device,
                    update_id=number,
                    base_version=base.number,
                )
                quiet = (number + session.device) % 3 == 0
                if quiet:
                    update.header.packets = update.header.payload_bytes = 0
                update.header.fresh_reference = number in (1, 5)
                assembly = federation.open_upload(update.header, session, base)
                for packet in [] if quiet else update.packets:
                    federation.add_packet(assembly, packet)
                await federation.finish_upload(assembly)
            if number == 4:
                await federation.keeper.snapshot()

    async def scenario() -> None:
        with EventLog(tmp_path / "first", "server", "0", SystemClock()) as log:
            first = Federation(config, SystemClock(), log)
            await live(first)
            await first.keeper.log.close()
        with EventLog(tmp_path / "second", "server", "0", SystemClock()) as log:
            second = Federation(config, SystemClock(), log)
            second.keeper.restore(config.checkpoint_dir)
        shown = [own.tasks[0].store.newest for own in (first, second)]
        assert shown[0].number == shown[1].number == 8
        np.testing.assert_array_equal(shown[0].vector, shown[1].vector)
        pending = [own.tasks[0].rule.pending() for own in (first, second)]
        assert pending[0].keys() == pending[1].keys()
        for name, array in pending[0].items():
            np.testing.assert_array_equal(array, pending[1][name])

    asyncio.run(scenario())
