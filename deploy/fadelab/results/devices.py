"""Each device's part of the summary."""

from dataclasses import dataclass

import numpy as np

from fadelab.results.goodput import FloatArray, ProgrammedRate, Transfer, goodput
from fadelab.results.record import Event, RunRecord, by_device, number
from fadelab.results.schema import (
    ByteLedger,
    Contact,
    DeviceResult,
    DirectionBytes,
    Joules,
    LinkFidelity,
    Staleness,
    UpdateCounts,
)
from fadelab_emulation.backends.topology import device_address
from fadelab_emulation.schedule import contact_windows

_ENDED_ON_SERVER = ("upload_complete", "upload_partial", "upload_abandoned")


@dataclass(slots=True)
class _Evidence:
    """Everything that events say about one device."""

    account: Event | None
    uploads: dict[str, list[Event]]
    """The server's upload events by name."""
    models: list[Event]
    plans: int
    resumes: list[Event]
    left: Event | None
    joined: Event | None
    energy: Joules
    down_retransmitted: int
    windows: list[tuple[float, float]]
    programmed: dict[str, ProgrammedRate]


def device_results(
    record: RunRecord, devices: int, command_mono_s: float
) -> dict[str, DeviceResult]:
    """Return every device's result, by its number as text."""
    return {
        str(device): _result(evidence, record.start_mono_s or 0.0, command_mono_s)
        for device, evidence in enumerate(_gather(record, devices))
    }


def _result(evidence: _Evidence, start_mono_s: float, command_mono_s: float) -> DeviceResult:
    complete = evidence.uploads["upload_complete"]
    ended = [event for name in _ENDED_ON_SERVER for event in evidence.uploads[name]]
    partial = [
        event
        for name in ("upload_partial", "upload_abandoned")
        for event in evidence.uploads[name]
        if number(event, "packets") > 0
    ]
    payload_up = int(sum(number(event, "payload_bytes") for event in ended))
    payload_down = int(sum(number(event, "payload_bytes") for event in evidence.models))
    retransmitted_up = int(number(evidence.left or {}, "tcp_bytes_retransmitted"))
    account = evidence.account or {}
    return DeviceResult(
        bytes=ByteLedger(
            up=_direction(payload_up, retransmitted_up, number(account, "up_wire_bytes")),
            down=_direction(
                payload_down, evidence.down_retransmitted, number(account, "down_wire_bytes")
            ),
        ),
        updates=UpdateCounts(
            started=evidence.plans,
            complete=len(complete),
            partial=len(partial),
            lost=max(0, evidence.plans - len(complete) - len(partial)),
        ),
        staleness=Staleness(
            versions=[int(number(event, "staleness_versions")) for event in complete],
            seconds=[number(event, "staleness_s") for event in complete],
        ),
        contacts=[Contact(start_s=start, end_s=end) for start, end in evidence.windows],
        up=_fidelity(evidence, "up", ended, start_mono_s),
        down=_fidelity(evidence, "down", evidence.models, start_mono_s),
        resume_ms=[round(1e3 * number(event, "resume_s"), 3) for event in evidence.resumes],
        joules=evidence.energy,
        join_s=(
            None
            if evidence.joined is None
            else round(number(evidence.joined, "mono_s") - command_mono_s, 4)
        ),
        private_memory_mib=_memory(evidence),
    )


def _gather(record: RunRecord, devices: int) -> list[_Evidence]:
    windows, up, down = _timeline(record, devices)
    accounts = dict(by_device(record.of("emulator", "link_account"), devices))
    resumes = dict(by_device(record.of("emulator", "resumed"), devices))
    uploads = {
        name: dict(by_device(record.of("server", name), devices)) for name in _ENDED_ON_SERVER
    }
    own = {
        name: _by_agent(record.of("agent", name), devices)
        for name in (
            "model_received",
            "plan",
            "trained",
            "upload_ended",
            "agent_stopped",
            "joined",
        )
    }
    retransmitted = {
        str(event["remote"]): int(number(event, "bytes_retransmitted"))
        for event in record.of("server", "tcp_sent")
    }
    return [
        _Evidence(
            account=_last(accounts[device]),
            uploads={name: found[device] for name, found in uploads.items()},
            models=own["model_received"][device],
            plans=len(own["plan"][device]),
            resumes=resumes[device],
            left=_last(own["agent_stopped"][device]),
            joined=_first(own["joined"][device]),
            energy=Joules(
                compute=_sum(own["trained"][device], "compute_j"),
                uplink=_sum(own["upload_ended"][device], "uplink_j"),
                downlink=_sum(own["model_received"][device], "downlink_j"),
            ),
            down_retransmitted=retransmitted.get(device_address(device), 0),
            windows=windows[device],
            programmed={
                "up": ProgrammedRate(up[:, device], _tick_s(record)),
                "down": ProgrammedRate(down[:, device], _tick_s(record)),
            },
        )
        for device in range(devices)
    ]


def _timeline(
    record: RunRecord, devices: int
) -> tuple[list[list[tuple[float, float]]], FloatArray, FloatArray]:
    """Return contact windows up to the end of the run, and both directions' open rates."""
    schedule = record.schedule
    if schedule is None:
        nothing = np.zeros((0, devices))
        return [[] for _ in range(devices)], nothing, nothing
    end_s = record.duration_s
    windows = [
        [(round(start, 6), round(min(end, end_s), 6)) for start, end in found if start < end_s]
        for found in contact_windows(schedule)
    ]
    is_open = schedule.is_open
    up = schedule.column("rate_up_bps").astype(np.float64) * is_open
    down = schedule.column("rate_down_bps").astype(np.float64) * is_open
    return windows, up, down


def _tick_s(record: RunRecord) -> float:
    return 1.0 if record.schedule is None else record.schedule.tick_s


def _direction(payload: int, retransmitted: int, wire: float) -> DirectionBytes:
    return DirectionBytes(
        payload=payload,
        retransmitted=retransmitted,
        framing=int(wire) - payload - retransmitted,
        wire=int(wire),
    )


def _fidelity(
    evidence: _Evidence, direction: str, transfers: list[Event], start_mono_s: float
) -> LinkFidelity:
    account = evidence.account or {}
    programmed = number(account, f"{direction}_programmed_bytes")
    achieved = int(number(account, f"{direction}_achieved_bytes"))
    programmed_bps, achieved_bps = goodput(
        evidence.programmed[direction],
        [
            Transfer(
                mark_s=number(event, "mark_mono_s") - start_mono_s,
                last_s=number(event, "last_mono_s") - start_mono_s,
                bytes_after_mark=int(number(event, "bytes_after_mark")),
            )
            for event in transfers
            if event["mark_mono_s"] is not None
        ],
    )
    return LinkFidelity(
        programmed_bytes=programmed,
        achieved_bytes=achieved,
        stretches=int(number(account, f"{direction}_stretches")),
        ratio=achieved / programmed if programmed > 0 else None,
        programmed_goodput_bps=programmed_bps,
        achieved_goodput_bps=achieved_bps,
        leaked_packets=int(number(account, f"{direction}_leaked_packets")),
    )


def _memory(evidence: _Evidence) -> float | None:
    value = None if evidence.left is None else evidence.left["private_mib"]
    return float(value) if isinstance(value, int | float) else None


def _by_agent(events: list[Event], devices: int) -> list[list[Event]]:
    sorted_out: list[list[Event]] = [[] for _ in range(devices)]
    for event in events:
        sorted_out[int(str(event["id"]))].append(event)
    return sorted_out


def _sum(events: list[Event], key: str) -> float:
    return sum(number(event, key) for event in events)


def _first(events: list[Event]) -> Event | None:
    return events[0] if events else None


def _last(events: list[Event]) -> Event | None:
    return events[-1] if events else None
