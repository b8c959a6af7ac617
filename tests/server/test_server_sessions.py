from pathlib import Path
from typing import Any

import pytest
from tests.server.harness import DIMENSION, RUN, SAMPLES, join_request, make_config, offer

from fadelab_proto import federation_pb2 as pb
from fadelab_server.sessions import JOIN_GRACE_S, JoinRefusedError, SessionTable

LATER_S = 1000.0 + JOIN_GRACE_S


@pytest.fixture
def table(tmp_path: Path) -> SessionTable:
    return SessionTable(make_config(tmp_path))


def test_a_device_that_fits_is_taken_in(table: SessionTable) -> None:
    session = table.join(join_request(1), 1000.0)
    assert table.find(session.token) is session
    assert session.device == 1
    assert session.samples == {0: SAMPLES}
    assert table.alive(1000.0) == [session]
    assert table.find(session.token + 1) is None


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"protocol_version": 99}, pb.JOIN_STATUS_WRONG_PROTOCOL, "protocol 99"),
        ({"run_id": RUN + 1}, pb.JOIN_STATUS_WRONG_RUN, "0fade1ac"),
        ({"device": 2}, pb.JOIN_STATUS_UNKNOWN_DEVICE, "not one of 0..1"),
        ({"tasks": []}, pb.JOIN_STATUS_UNKNOWN_TASK, "no task"),
        ({"tasks": [offer(name="x")]}, pb.JOIN_STATUS_UNKNOWN_TASK, "known: digits"),
        ({"tasks": [offer(dimension=9)]}, pb.JOIN_STATUS_MODEL_MISMATCH, str(DIMENSION)),
        ({"tasks": [offer(layout_hash=9)]}, pb.JOIN_STATUS_MODEL_MISMATCH, "another layout"),
        ({"tasks": [offer(samples=0)]}, pb.JOIN_STATUS_MODEL_MISMATCH, "no training sample"),
    ],
)
def test_a_device_that_does_not_fit_hears_why(
    table: SessionTable,
    changes: dict[str, Any],
    status: pb.JoinStatus.ValueType,
    reason: str,
) -> None:
    with pytest.raises(JoinRefusedError, match=reason) as refusal:
        table.join(join_request(**changes), 1000.0)
    assert refusal.value.status == status
    assert table.alive(1000.0) == []


@pytest.mark.parametrize("streams", [0, 1])
def test_a_second_agent_is_refused_while_the_first_lives(table: SessionTable, streams: int) -> None:
    first = table.join(join_request(), 1000.0)
    first.streams, first.ever_streamed = streams, streams > 0
    now = LATER_S if streams else 1000.0
    with pytest.raises(JoinRefusedError, match="held by another live agent") as refusal:
        table.join(join_request(incarnation=2), now)
    assert refusal.value.status == pb.JOIN_STATUS_DUPLICATE_DEVICE
    assert table.find(first.token) is first


def test_the_same_agent_joins_again_and_its_old_session_ends(table: SessionTable) -> None:
    first = table.join(join_request(), 1000.0)
    first.streams, first.ever_streamed = 1, True
    second = table.join(join_request(), 1001.0)
    assert second.token != first.token
    assert table.find(first.token) is None
    assert table.alive(1001.0) == [second]


def test_an_agent_whose_stream_ended_is_replaced(table: SessionTable) -> None:
    first = table.join(join_request(), 1000.0)
    first.ever_streamed = True
    second = table.join(join_request(incarnation=2), 1000.0)
    assert table.find(first.token) is None
    assert table.alive(1000.0) == [second]


def test_an_agent_that_never_listened_lives_until_the_grace_is_over(table: SessionTable) -> None:
    table.join(join_request(), 1000.0)
    assert len(table.alive(LATER_S - 0.001)) == 1
    assert table.alive(LATER_S) == []
    second = table.join(join_request(incarnation=2), LATER_S)
    assert table.alive(LATER_S) == [second]


def test_an_agent_with_the_devices_key_takes_the_place_of_a_living_one(table: SessionTable) -> None:
    first = table.join(join_request(device_key=5), 1000.0)
    first.streams, first.ever_streamed = 1, True
    second = table.join(join_request(incarnation=2, device_key=5), 1001.0)
    assert table.find(first.token) is None
    assert table.alive(1001.0) == [second]
    assert table.held_by(0) is second


@pytest.mark.parametrize(("kept", "given"), [(5, 6), (5, 0), (0, 0), (0, 5)])
def test_another_key_or_none_takes_nobodys_place(
    table: SessionTable, kept: int, given: int
) -> None:
    first = table.join(join_request(device_key=kept), 1000.0)
    with pytest.raises(JoinRefusedError, match="held by another live agent"):
        table.join(join_request(incarnation=2, device_key=given), 1000.0)
    assert table.find(first.token) is first


def test_two_agents_with_one_key_do_not_oust_each_other_for_ever(table: SessionTable) -> None:
    table.join(join_request(device_key=5), 1000.0)
    table.join(join_request(incarnation=2, device_key=5), 1000.0)
    # It joins again after a lost connection: that must not let the first one in.
    second = table.join(join_request(incarnation=2, device_key=5), 1000.0)
    with pytest.raises(JoinRefusedError, match="has taken the place of this one") as refusal:
        table.join(join_request(device_key=5), 1000.0)
    assert refusal.value.status == pb.JOIN_STATUS_DUPLICATE_DEVICE
    # When the second one has gone, the first may come back.
    second.ever_streamed = True
    assert table.alive(1000.0) == []
    table.join(join_request(device_key=5), 1000.0)
