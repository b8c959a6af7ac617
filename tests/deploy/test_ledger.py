"""The byte ledger's arithmetic, with numbers made by hand."""

from pathlib import Path
from typing import Any

import pytest
from run_record import DEVICES, RunWriter

from fadelab.results.ledger import (
    Datagrams,
    Ledger,
    Shipment,
    add_bytes,
    add_ledgers,
    direction_bytes,
    shipments,
)
from fadelab.results.record import Event, RunRecord
from fadelab.results.schema import ByteLedger, DevicePackets, DirectionBytes, RoundPackets

NO_DATAGRAMS = Datagrams()
TCP: Event = {
    "connections": 2,
    "connections_missed": 0,
    # 5 000 of payload and 160 of packet headers, 340 of framing; 1 448 went twice.
    "up_tcp_bytes": 5_500 + 1_448,
    "up_tcp_retransmitted_bytes": 1_448,
    "up_tcp_segments": 10,
    "up_tcp_header_bytes": 520,
    "up_waiting_bytes": 1_514,
    "up_overflowed_packets": 2,
    "up_probe_bytes": 124,
    "up_device_end_bytes": 6_250,
    "up_wire_bytes": 6_250,
}


def brought(packets: int, payload_bytes: int, **changes: Any) -> Shipment:
    usual: dict[str, Any] = {
        "device": 0,
        "direction": "up",
        "task": "digits",
        "version": 3,
        "packet_class": "update",
    }
    return Shipment(**usual | changes, packets=packets, payload_bytes=payload_bytes)


def parts(direction: DirectionBytes) -> int:
    return (
        direction.payload
        + direction.packet_headers
        + direction.framing
        + direction.undelivered
        + direction.retransmitted
        + direction.ip_headers
        + direction.ethernet
        + direction.probes
        - direction.waiting
        - direction.overflowed
        + direction.residual
    )


def test_every_byte_has_its_place() -> None:
    found = direction_bytes(TCP, "up", [brought(4, 5_000)], NO_DATAGRAMS)
    assert found == DirectionBytes(
        payload=5_000,
        packet_headers=160,
        framing=340,
        undelivered=0,
        retransmitted=1_448,
        ip_headers=520,
        ethernet=140,
        probes=124,
        waiting=1_514,
        overflowed=2 * 1_514,
        residual=6_250 - (5_000 + 160 + 340 + 1_448 + 520 + 140 + 124 - 3 * 1_514),
        residual_percent=48.96,
        wire=6_250,
        device_end=6_250,
    )
    assert parts(found) == found.wire


def test_directions_do_not_mix() -> None:
    found = direction_bytes(TCP, "down", [], NO_DATAGRAMS)
    assert found.model_dump(exclude={"residual_percent"}) == dict.fromkeys(
        set(DirectionBytes.model_fields) - {"residual_percent"}, 0
    )
    assert found.residual_percent is None


def test_what_datagrams_carried_is_not_the_streams() -> None:
    # 20 datagrams with packets of 1 040 bytes, of which 15 were taken; TCP carried control alone.
    account: Event = {
        "connections": 1,
        "up_tcp_bytes": 500,
        "up_tcp_segments": 4,
        "up_tcp_header_bytes": 208,
        "up_datagrams": 20,
        "up_wire_bytes": 22_500,
    }
    sign = brought(15, 15_000, packet_class="sign")
    found = direction_bytes(account, "up", [sign], Datagrams(20 * 1_040, 15 * 1_040))
    assert (found.payload, found.packet_headers, found.framing) == (15_000, 600, 500)
    assert found.undelivered == 5 * 1_040
    assert found.ip_headers == 208 + 20 * 28
    assert found.ethernet == 14 * (4 + 20)
    assert parts(found) == 22_500
    assert found.residual == 22_500 - (20 * (1_040 + 42) + 500 + 208 + 56)


def test_unseen_connections_leave_a_residual_and_no_count() -> None:
    account: Event = {"up_wire_bytes": 6_000, "down_wire_bytes": 100}
    found = direction_bytes(account, "up", [brought(4, 5_000)], NO_DATAGRAMS)
    assert (found.framing, found.residual, found.residual_percent) == (0, 840, 14.0)


def test_the_sum_of_directions_balances_anew() -> None:
    one = direction_bytes(TCP, "up", [brought(4, 5_000)], NO_DATAGRAMS)
    other = direction_bytes(TCP | {"up_wire_bytes": 7_000}, "up", [brought(4, 5_000)], NO_DATAGRAMS)
    found = add_bytes([one, other])
    assert found.residual == one.residual + other.residual == 814 + 4 * 1_514
    assert found.residual_percent == pytest.approx(100 * (814 + 4 * 1_514) / 13_250, abs=1e-4)
    assert parts(found) == found.wire == 13_250


def test_connections_are_known_in_total_if_they_are_for_every_device() -> None:
    nothing = add_bytes([])
    known = ByteLedger(up=nothing, down=nothing, connections=2)
    unknown = ByteLedger(up=nothing, down=nothing, connections=None)
    assert add_ledgers([known, known]).connections == 4
    assert add_ledgers([known, unknown]).connections is None


def test_missed_news_of_connections_make_their_number_unknown(tmp_path: Path) -> None:
    ledger = Ledger(ended_run(tmp_path), DEVICES)
    assert ledger.of_device(0, TCP).connections == 2
    assert ledger.of_device(0, TCP | {"connections_missed": 1}).connections is None
    assert ledger.of_device(0, {}).connections is None


def test_what_aborted_connections_had_sent_counts_with_the_others(tmp_path: Path) -> None:
    ledger = Ledger(ended_run(tmp_path), DEVICES)
    without = ledger.of_device(0, TCP).up
    found = ledger.of_device(1, TCP).up
    assert found.retransmitted == without.retransmitted + 200
    assert found.ip_headers == without.ip_headers + 312
    assert found.ethernet == without.ethernet + 6 * 14
    assert found.framing == TCP["up_tcp_bytes"] + 4_000 - found.retransmitted - 800 - 3 * 40
    assert ledger.of_device(1, TCP).down == ledger.of_device(1, TCP | {"down_wire_bytes": 0}).down
    unseen = ledger.of_device(1, {"up_wire_bytes": 6_000}).up
    assert (unseen.framing, unseen.retransmitted) == (0, 0)


def ended_run(tmp_path: Path) -> RunRecord:
    run = RunWriter(tmp_path)
    both = {"classes": ["sign", "modulus"], "class_packets": [2, 3]}
    run.upload(
        "upload_complete",
        1.0,
        0,
        base_version=4,
        packets=5,
        payload_bytes=900,
        class_payload_bytes=[100, 800],
        datagram_packets=2,
        datagram_payload_bytes=100,
        **both,
    )
    run.upload("upload_partial", 2.0, 1, base_version=4, packets=1, payload_bytes=300)
    run.upload("upload_refused", 2.5, 1, base_version=3, packets=2, payload_bytes=500)
    run.upload("upload_abandoned", 2.6, 1, packets=0, payload_bytes=0)
    got = {"task": "digits", "version": 4, "packets": 3, "payload_bytes": 3_000}
    run.write("agent-0", 0.5, "model_received", **got)
    run.write("agent-1", 0.6, "model_partial", **got | {"packets": 1, "payload_bytes": 1_000})
    run.write("agent-0", 0.9, "upload_ended", datagram_bytes=420)
    run.write("agent-1", 0.9, "upload_ended")
    for t_s in (1.0, 2.0):
        run.write(
            "agent-1",
            t_s,
            "connections_aborted",
            tcp_bytes=2_000,
            tcp_retransmitted_bytes=100,
            tcp_segments=3,
            tcp_header_bytes=156,
        )
    return RunRecord.load(tmp_path)


def test_transfers_are_told_by_device_task_version_and_class(tmp_path: Path) -> None:
    assert shipments(ended_run(tmp_path)) == [
        brought(2, 100, version=4, packet_class="sign"),
        brought(3, 800, version=4, packet_class="modulus"),
        brought(1, 300, version=4, device=1),
        brought(2, 500, device=1),
        brought(3, 3_000, direction="down", version=4, packet_class="model"),
        brought(1, 1_000, direction="down", version=4, packet_class="model", device=1),
    ]


def test_packets_of_a_device_are_summed_over_versions(tmp_path: Path) -> None:
    found = Ledger(ended_run(tmp_path), DEVICES).device_packets(1)
    usual: dict[str, Any] = {"task": "digits"}
    assert found == [
        DevicePackets(
            direction="down", packet_class="model", packets=1, payload=1_000, headers=40, **usual
        ),
        DevicePackets(
            direction="up", packet_class="update", packets=3, payload=800, headers=120, **usual
        ),
    ]


def test_packets_of_a_version_are_summed_over_devices(tmp_path: Path) -> None:
    ledger = Ledger(ended_run(tmp_path), DEVICES)
    found = [row for row in ledger.rounds("digits") if row.version == 4]
    expected = [
        ("down", "model", 2, 4, 4_000),
        ("up", "modulus", 1, 3, 800),
        ("up", "sign", 1, 2, 100),
        ("up", "update", 1, 1, 300),
    ]
    assert found == [
        RoundPackets(
            version=4,
            direction=direction,  # type: ignore[arg-type]
            packet_class=name,
            devices=devices,
            packets=packets,
            payload=payload,
            headers=40 * packets,
        )
        for direction, name, devices, packets, payload in expected
    ]
    assert ledger.rounds("another") == []


def test_devices_and_versions_have_the_same_sums(tmp_path: Path) -> None:
    ledger = Ledger(ended_run(tmp_path), DEVICES)
    of_devices = [row for device in range(DEVICES) for row in ledger.device_packets(device)]
    for name in ("packets", "payload", "headers"):
        assert sum(getattr(row, name) for row in of_devices) == sum(
            getattr(row, name) for row in ledger.rounds("digits")
        )


def test_a_devices_datagrams_are_what_it_sent_less_what_was_taken(tmp_path: Path) -> None:
    ledger = Ledger(ended_run(tmp_path), DEVICES)
    assert ledger.of_device(0, {}).up.undelivered == 420 - (100 + 2 * 40)
    assert ledger.of_device(1, {}).up.undelivered == 0
