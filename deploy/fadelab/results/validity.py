"""Whether a run may be believed: its own measurements against the experiment's bounds."""

from collections.abc import Iterator

from fadelab.experiment import ValidityConfig
from fadelab.results.bounds import delay_holds, loss_holds, rate_holds
from fadelab.results.computing import late_computing
from fadelab.results.period_schema import Periods
from fadelab.results.record import RunRecord
from fadelab.results.schema import (
    DeviceResult,
    Lateness,
    LinkCalibration,
    LinkFidelity,
    Links,
    TaskResult,
    Totals,
)
from fadelab_emulation.window import BackendChoice

# How many links a reason names before it only counts.
_NAMED = 3


def invalid_reasons(
    record: RunRecord,
    bounds: ValidityConfig,
    *,
    links: Links,
    tasks: dict[str, TaskResult],
    devices: dict[str, DeviceResult],
    total: Totals,
    lateness: Lateness,
    periods: Periods | None,
) -> list[str]:
    """Return one sentence for each thing that makes the run unbelievable; none if it is valid."""
    return [
        *_unfinished(record),
        *_agents(record, devices),
        *_shaped(links),
        *_calibration(bounds, links),
        *_rates(bounds, devices),
        *_losses(bounds, devices),
        *_delays(bounds, devices),
        *_connectivity(bounds, devices, total),
        *_timing(bounds, total, lateness),
        *late_computing(record, most_late_share=bounds.compute_late_share),
        *_learning(tasks),
        *_staleness(periods),
    ]


def _unfinished(record: RunRecord) -> list[str]:
    failure = record.manifest.get("failure")
    if failure is not None:
        return [f"The run did not finish: {str(failure).rstrip('.')}."]
    if record.last("server", "run_stopped") is None:
        return ["The run did not finish: the server wrote no end."]
    failed = record.last("server", "allocation_failed")
    if failed is not None:
        return [f"The run did not finish: {str(failed['reason']).rstrip('.')}."]
    # Without it every byte count would read 0 and every link as obedient.
    emulated = record.experiment.devices.count - len(record.real_links)
    if len(record.of("emulator", "link_account")) < emulated:
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


def _shaped(links: Links) -> list[str]:
    if links.backend != BackendChoice.DRY:
        return []
    return ["Links were not shaped: the back-end 'dry' records the timeline and emulates nothing."]


def _rates(bounds: ValidityConfig, devices: dict[str, DeviceResult]) -> list[str]:
    # A delay in either direction lengthens the round trip of both.
    delayed = [
        link
        for device in devices.values()
        for link in (device.up, device.down)
        if device.up.delay is not None or device.down.delay is not None
    ]
    wrong = [
        f"{who} at {link.ratio:.3f}"
        for who, link in _links(devices)
        if not rate_holds(link, bounds, is_delayed=link in delayed)
    ]
    if not wrong:
        return []
    low, high = bounds.rate_ratio
    sentence = (
        f"{len(wrong)} of {2 * len(devices)} links did not obey their programmed rate "
        f"(achieved / programmed outside {low:g} to {high:g}): {_examples(wrong)}."
    )
    return [sentence]


def _losses(bounds: ValidityConfig, devices: dict[str, DeviceResult]) -> list[str]:
    wrong = [
        f"{who} lost {loss.lost} of {loss.arrived} packets, {loss.expected:.1f} were expected "
        f"(z = {loss.z:.1f})"
        for who, link in _links(devices)
        if (loss := link.loss) is not None and not loss_holds(loss, bounds)
    ]
    if not wrong:
        return []
    sentence = (
        f"{len(wrong)} of {2 * len(devices)} links did not lose what they were programmed to "
        f"(more than {bounds.loss_z:g} standard deviations off): {_examples(wrong)}."
    )
    return [sentence]


def _delays(bounds: ValidityConfig, devices: dict[str, DeviceResult]) -> list[str]:
    wrong = [
        f"{who} at {delay.achieved_ms:.2f} ms instead of {delay.programmed_ms:.2f} ms"
        for who, link in _links(devices)
        if (delay := link.delay) is not None and not delay_holds(delay, bounds)
    ]
    if not wrong:
        return []
    sentence = (
        f"{len(wrong)} of {2 * len(devices)} links did not keep their programmed delay "
        f"({_delay_bound(bounds)}): {_examples(wrong)}."
    )
    return [sentence]


def _connectivity(
    bounds: ValidityConfig, devices: dict[str, DeviceResult], total: Totals
) -> list[str]:
    if total.connectivity is None:
        return []
    up, down = total.connectivity.up, total.connectivity.down
    passed = up.closed_passed + down.closed_passed
    closed = passed + up.closed_silent + down.closed_silent
    stuck = up.open_stuck + down.open_stuck
    opened = stuck + up.open_passed + down.open_passed
    reasons = []
    if passed > bounds.passed_while_closed:
        where = _counts(devices, "closed_passed")
        reasons.append(
            f"Packets passed closed links in {passed} of {closed} intervals between readings, "
            f"{bounds.passed_while_closed} are allowed: {where}."
        )
    if stuck > bounds.stuck_share * opened:
        where = _counts(devices, "open_stuck")
        reasons.append(
            f"Packets waited at open links and none passed in {stuck} of {opened} intervals "
            f"between readings ({100 * stuck / opened:.1f} %), {100 * bounds.stuck_share:g} % are "
            f"allowed: {where}."
        )
    return reasons


def _counts(devices: dict[str, DeviceResult], name: str) -> str:
    """Name the links of which one field of the confusion matrix is not 0, the worst first."""
    counts = [
        (getattr(link.connectivity, name), who)
        for who, link in _links(devices)
        if link.connectivity is not None
    ]
    worst = sorted((entry for entry in counts if entry[0] > 0), key=lambda entry: -entry[0])
    return _examples([f"{who} in {count}" for count, who in worst])


def _calibration(bounds: ValidityConfig, links: Links) -> list[str]:
    wrong = [_missed(row) for row in links.calibration if not row.within_bounds]
    if not wrong:
        return []
    sentence = (
        f"{len(wrong)} of {len(links.calibration)} links that were measured before the run missed "
        f"their rate or delay (rate off by more than {100 * bounds.calibration_rate_error:g} % and "
        f"two packets, {_delay_bound(bounds)}): {_examples(wrong)}."
    )
    return [sentence]


def _missed(row: LinkCalibration) -> str:
    delay = (
        "no delay probe came through"
        if row.achieved_delay_ms is None
        else f"{row.achieved_delay_ms:.2f} ms for {row.programmed_delay_ms:.2f} ms"
    )
    return (
        f"device {row.device} {row.direction}link with {row.achieved_bps / 1e6:.3f} Mbit/s for "
        f"{row.programmed_bps / 1e6:.3f} Mbit/s and {delay}"
    )


def _delay_bound(bounds: ValidityConfig) -> str:
    return (
        f"delay off by more than {100 * bounds.delay_error_share:g} % and "
        f"{bounds.delay_error_ms:g} ms"
    )


def _links(devices: dict[str, DeviceResult]) -> Iterator[tuple[str, LinkFidelity]]:
    """Yield both directions of every link, each with its name for a sentence."""
    for name, device in devices.items():
        yield f"device {name} uplink", device.up
        yield f"device {name} downlink", device.down


def _examples(wrong: list[str]) -> str:
    return ", ".join(wrong[:_NAMED]) + (", ..." if len(wrong) > _NAMED else "")


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
    # Updates that links let none through of are a finding; where nobody sent any, nothing was tried.
    return [
        f"No model version of task {name} was published, and no device began to send an update."
        for name, task in tasks.items()
        if task.versions == 0 and (task.updates is None or not task.updates.started)
    ]


def _staleness(periods: Periods | None) -> list[str]:
    return [
        f"{task.over_cap} of the applied updates of task {name} were staler than allowed: up to "
        f"{task.largest_staleness} versions, {task.staleness_cap} are allowed."
        for name, task in (periods.tasks.items() if periods is not None else ())
        if task.over_cap
    ]
