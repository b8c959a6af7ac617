"""Whether a run may be believed: its own measurements against the experiment's bounds."""

from fadelab.experiment import ValidityConfig
from fadelab.results.record import RunRecord
from fadelab.results.schema import DeviceResult, Lateness, LinkFidelity, TaskResult, Totals

# How many links a reason names before it only counts.
_NAMED = 3
_FRAMES_PER_STRETCH = 3
_FRAME_BYTES = 1514


def invalid_reasons(
    record: RunRecord,
    bounds: ValidityConfig,
    *,
    tasks: dict[str, TaskResult],
    devices: dict[str, DeviceResult],
    total: Totals,
    lateness: Lateness,
) -> list[str]:
    """Return one sentence for each thing that makes the run unbelievable; none if it is valid."""
    return [
        *_unfinished(record),
        *_agents(record, devices),
        *_rates(bounds, devices),
        *_timing(bounds, total, lateness),
        *_learning(tasks),
    ]


def _unfinished(record: RunRecord) -> list[str]:
    failure = record.manifest.get("failure")
    if failure is not None:
        return [f"The run did not finish: {str(failure).rstrip('.')}."]
    if record.last("server", "run_stopped") is None:
        return ["The run did not finish: the server wrote no end."]
    # Without it every byte count would read 0 and every link as obedient.
    if len(record.of("emulator", "link_account")) < record.experiment.devices.count:
        return ["The run did not finish: the emulator wrote no account of its links."]
    return []


def _agents(record: RunRecord, devices: dict[str, DeviceResult]) -> list[str]:
    reasons = [
        f"{str(event['how']).rstrip('.')}." for event in record.of("launcher", "agent_ended_early")
    ]
    missing = [name for name, device in devices.items() if device.join_s is None]
    if missing:
        reasons.append(f"{len(missing)} of {len(devices)} devices never joined.")
    return reasons


def _rates(bounds: ValidityConfig, devices: dict[str, DeviceResult]) -> list[str]:
    outside = [
        (f"device {name} {direction}link", fidelity)
        for name, device in devices.items()
        for direction, fidelity in (("up", device.up), ("down", device.down))
        if not obeys(fidelity, bounds)
    ]
    if not outside:
        return []
    examples = ", ".join(f"{who} at {link.ratio:.3f}" for who, link in outside[:_NAMED])
    if len(outside) > _NAMED:
        examples += ", ..."
    low, high = bounds.rate_ratio
    sentence = (
        f"{len(outside)} of {2 * len(devices)} links did not obey their programmed rate "
        f"(achieved / programmed outside {low:g} to {high:g}): {examples}."
    )
    return [sentence]


def obeys(fidelity: LinkFidelity, bounds: ValidityConfig) -> bool:
    """Say whether a link carried what it was programmed to, as far as can be told.

    Each stretch of saturated ticks may be off by three frames: two of burst in its bucket when it
    begins, and the one that is under way when it ends.
    """
    if fidelity.programmed_bytes < bounds.min_saturated_bytes:
        return True
    low, high = bounds.rate_ratio
    blur = _FRAMES_PER_STRETCH * _FRAME_BYTES * fidelity.stretches
    programmed = fidelity.programmed_bytes
    return low * programmed - blur <= fidelity.achieved_bytes <= high * programmed + blur


def _timing(bounds: ValidityConfig, total: Totals, lateness: Lateness) -> list[str]:
    reasons = []
    if lateness.p99_ms > bounds.lateness_p99_ms:
        reasons.append(
            f"Link updates were late: 1 % by more than {lateness.p99_ms:.1f} ms, "
            f"{bounds.lateness_p99_ms:g} ms are allowed."
        )
    if total.leaked_packets > bounds.leaked_packets:
        reasons.append(
            f"Packets passed closed contact windows: {total.leaked_packets}, "
            f"{bounds.leaked_packets} are allowed."
        )
    if total.resume_p95_ms is not None and total.resume_p95_ms > bounds.resume_p95_ms:
        reasons.append(
            f"Uplinks resumed late after windows reopened: 5 % after more than "
            f"{total.resume_p95_ms:.1f} ms, {bounds.resume_p95_ms:g} ms are allowed."
        )
    return reasons


def _learning(tasks: dict[str, TaskResult]) -> list[str]:
    return [
        f"No model version of task {name} was published."
        for name, task in tasks.items()
        if task.versions == 0
    ]
