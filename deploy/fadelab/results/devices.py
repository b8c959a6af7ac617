"""Each device's part of the summary."""

from dataclasses import dataclass

from fadelab.results.fidelity import LinkEvidence
from fadelab.results.ledger import Ledger
from fadelab.results.power import measured_energy
from fadelab.results.record import Event, RunRecord, by_device, number
from fadelab.results.schema import Contact, DeviceResult, Joules, Staleness, UpdateCounts
from fadelab_emulation.schedule import contact_windows

_ENDED_ON_SERVER = ("upload_complete", "upload_partial", "upload_abandoned")


@dataclass(slots=True)
class _Evidence:
    """Everything that events say about one device."""

    device: int
    uploads: dict[str, list[Event]]
    """The server's upload events by name."""
    models: list[Event]
    plans: int
    resumes: list[Event]
    left: Event | None
    joined: Event | None
    energy: Joules
    windows: list[tuple[float, float]]


def device_results(record: RunRecord, ledger: Ledger, devices: int) -> dict[str, DeviceResult]:
    """Return every device's result, by its number as text."""
    links = LinkEvidence(record, devices)
    return {
        str(evidence.device): _result(record, links, ledger, evidence)
        for evidence in _gather(record, devices)
    }


def _result(
    record: RunRecord, links: LinkEvidence, ledger: Ledger, evidence: _Evidence
) -> DeviceResult:
    complete = evidence.uploads["upload_complete"]
    ended = [event for name in _ENDED_ON_SERVER for event in evidence.uploads[name]]
    partial = [
        event
        for name in ("upload_partial", "upload_abandoned")
        for event in evidence.uploads[name]
        if number(event, "packets") > 0
    ]
    return DeviceResult(
        bytes=ledger.of_device(evidence.device, links.account(evidence.device)),
        packets=ledger.device_packets(evidence.device),
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
        up=links.fidelity(evidence.device, "up", ended),
        down=links.fidelity(evidence.device, "down", evidence.models),
        resume_ms=[round(1e3 * number(event, "resume_s"), 3) for event in evidence.resumes],
        joules=evidence.energy,
        measured_energy=measured_energy(record, evidence.device),
        join_s=(
            None if evidence.joined is None else round(record.since_command_s(evidence.joined), 4)
        ),
        private_memory_mib=_memory(evidence),
    )


def _gather(record: RunRecord, devices: int) -> list[_Evidence]:
    windows = _windows(record, devices)
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
    return [
        _Evidence(
            device=device,
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
            windows=windows[device],
        )
        for device in range(devices)
    ]


def _windows(record: RunRecord, devices: int) -> list[list[tuple[float, float]]]:
    """Return each device's contact windows up to the end of the run."""
    if record.schedule is None:
        return [[] for _ in range(devices)]
    end_s = record.duration_s
    return [
        [(round(start, 6), round(min(end, end_s), 6)) for start, end in found if start < end_s]
        for found in contact_windows(record.schedule)
    ]


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
