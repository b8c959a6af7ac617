"""The first screen: may the run be believed, and what came out."""

from fadelab.report.markup import Markup, card, figure, tag
from fadelab.report.model import Run
from fadelab.report.units import byte_size, number, plural, share
from fadelab.results.contact_schema import ContactUse
from fadelab.results.schema import DirectionBytes, TaskResult


def heading(run: Run) -> Markup:
    """Write the title and what kind of document this is."""
    summary = run.summary
    facts = [
        "Fadelab run report",
        plural(len(run.devices), "device"),
        f"{number(summary.duration_s, 's')} emulated",
    ]
    if summary.links.time_scale != 1:
        facts.append(f"{number(summary.links.time_scale)} of them per second of the wall clock")
    if summary.links.variant is not None:
        facts.append(f"links by {summary.links.variant}")
    return tag("header", tag("h1", summary.name), tag("p", " · ".join(facts)))


def verdict(run: Run) -> Markup:
    """Say whether the run is valid, and if not, every reason."""
    summary = run.summary
    if summary.valid and not summary.invalid_reasons:
        text = "Every link obeyed its model within the bounds that make a run believable."
        return tag("div", tag("strong", "VALID"), tag("p", text), class_="verdict ok")
    reasons = summary.invalid_reasons or ["No reason was recorded."]
    return tag(
        "div",
        tag("strong", "VALID, with remarks" if summary.valid else "NOT VALID"),
        tag("ul", *(tag("li", reason) for reason in reasons)),
        class_="verdict " + ("ok" if summary.valid else "bad"),
        role="alert",
    )


def marks(run: Run) -> Markup:
    """Mark a run whose devices knew what no device can know."""
    if not run.summary.links.oracle:
        return Markup()
    text = (
        "Devices were told how long each contact would really last, which no device can know: "
        "this run is an upper bound for comparisons."
    )
    return tag(
        "div",
        tag("strong", "Oracle: devices knew the true future"),
        tag("p", text),
        class_="verdict mark",
    )


def key_figures(run: Run) -> Markup:
    """Write the figures that a reader asks for first."""
    summary, total = run.summary, run.summary.total
    updates, joules = total.updates, total.joules
    joule_sum = joules.compute + joules.uplink + joules.downlink
    figures = [
        *(_task_figure(name, task) for name, task in summary.tasks.items()),
        figure(
            "Duration",
            number(summary.duration_s, "s"),
            f"{number(summary.wall_s, 's')} on the wall",
        ),
        figure("Devices", number(len(run.devices)), _contact_remark(run)),
        figure("Uplink wire", byte_size(total.bytes.up.wire), _bytes_remark(total.bytes.up)),
        figure("Downlink wire", byte_size(total.bytes.down.wire), _bytes_remark(total.bytes.down)),
        figure(
            "Updates complete",
            number(updates.complete),
            f"of {number(updates.started)} started; {number(updates.partial)} partial, "
            f"{number(updates.lost)} lost",
        ),
        *_contact_figures(summary.contacts),
        figure("Resume p95", number(total.resume_p95_ms, "ms"), "after a window reopened"),
        figure(
            "Leaked packets",
            number(total.leaked_packets),
            "in closed windows, after the guard time",
            is_bad=total.leaked_packets > 0,
        ),
        *_connectivity_figure(run),
        figure(
            "Tick lateness p99",
            number(summary.lateness.p99_ms, "ms"),
            f"max {number(summary.lateness.max_ms, 'ms')}",
        ),
        figure(
            "Energy",
            number(joule_sum, "J"),
            f"compute {number(joules.compute)}, up {number(joules.uplink)}, "
            f"down {number(joules.downlink)}",
        ),
    ]
    return card(
        "Key figures",
        tag("div", *figures, class_="figures"),
        caption="Wire bytes: layer-2 bytes counted by the kernel at the interfaces. Times are "
        "emulated seconds unless they are said to be wall time. Resume: from the reopening of a "
        "contact window with a waiting uplink to the first frame that arrived. Wrong connectivity: "
        "intervals between two readings in which packets passed a closed link, or waited at an "
        "open one and none passed. Lateness: how long "
        "after its due time the emulator carried out a tick. Energy: the papers' formulas, applied "
        "to measured times.",
    )


def _task_figure(name: str, task: TaskResult) -> Markup:
    remarks = [f"best {number(task.best, task.unit)}", plural(task.versions, "version")]
    if task.baseline is not None:
        remarks.append(f"{task.baseline.name} {number(task.baseline.value, task.unit)}")
    return figure(f"{name}: final {task.metric}", number(task.final, task.unit), ", ".join(remarks))


def _contact_figures(contacts: ContactUse | None) -> list[Markup]:
    if contacts is None:
        return []
    covered = share(contacts.covered_acknowledged, contacts.covered)
    allowed = contacts.allowance_j
    return [
        figure(
            "Acknowledged in contact",
            share(contacts.acknowledged, contacts.sent),
            f"{covered} of {number(contacts.covered)} whose contact lasted as counted on",
        ),
        figure(
            "Energy per contact",
            number(contacts.mean_energy_j, "J"),
            "no allowance" if allowed is None else f"{number(allowed, 'J')} allowed",
        ),
    ]


def _connectivity_figure(run: Run) -> list[Markup]:
    total = run.summary.total.connectivity
    if total is None:
        return []
    wrong = sum(m.open_stuck + m.closed_passed for m in (total.up, total.down))
    judged = wrong + sum(m.open_passed + m.closed_silent for m in (total.up, total.down))
    remark = f"of {plural(judged, 'interval')} that tell"
    return [figure("Wrong connectivity", number(wrong), remark, is_bad=wrong > 0)]


def _bytes_remark(direction: DirectionBytes) -> str:
    return f"{share(direction.payload, direction.wire)} of it payload"


def _contact_remark(run: Run) -> str:
    windows = sum(len(device.contacts) for device in run.devices.values())
    return plural(windows, "contact window")
