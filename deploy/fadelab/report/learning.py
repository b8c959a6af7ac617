"""What was learned: metric and loss against emulated time and against bytes sent."""

import numpy as np
from matplotlib.figure import Figure

from fadelab.report.markup import Markup, card, empty, join
from fadelab.report.model import Run
from fadelab.report.style import BLUE, GREY, PURPLE, WIDTH_IN, render, use_log_scale
from fadelab.report.units import number
from fadelab.results.schema import TaskResult


def learning(run: Run) -> Markup:
    """Draw one card per task."""
    return join(
        *(
            _task(index, name, task, is_one_of_several=len(run.summary.tasks) > 1)
            for index, (name, task) in enumerate(run.summary.tasks.items())
        )
    )


def _task(index: int, name: str, task: TaskResult, *, is_one_of_several: bool) -> Markup:
    title = f"Learning: {name}"
    if not task.curve:
        return card(title, empty("No published version was evaluated, so there is no curve."))

    chart = render(
        f"learning{index}",
        f"{task.metric} and loss of task {name} against time, uplink bytes and energy",
        0.46 * WIDTH_IN,
        lambda figure: _draw(figure, task),
    )
    better = "Higher" if task.higher_is_better else "Lower"
    return card(
        title,
        chart,
        caption=f"Each point is one published model version, evaluated by the validator on the "
        f"held-out test set. {better} {task.metric} is better; the dotted line is the best value"
        f"{_baseline_words(task)}. "
        "Uplink bytes are all layer-2 bytes that all devices had sent when the version was "
        "published, with headers, retransmissions and acknowledgements"
        f"{', of all tasks together' if is_one_of_several else ''}. Energy is what computing and "
        "transfers of this task had cost all devices by then, from measured times; a local period "
        "counts when it ends.",
    )


def _baseline_words(task: TaskResult) -> str:
    if task.baseline is None:
        return ""
    return f", the dashed line what the rule '{task.baseline.name}' achieves without learning"


def _axes_of(task: TaskResult) -> list[tuple[str, str, list[float]]]:
    """Return what a version can be held against: title, unit and values."""
    found = [
        (
            f"against emulated time (best {number(task.best, task.unit)})",
            "emulated time (s)",
            [point.t_s for point in task.curve],
        ),
        (
            "against uplink bytes of all devices",
            "uplink wire bytes (MB)",
            [point.wire_up_bytes / 1e6 for point in task.curve],
        ),
    ]
    joules = [point.energy_j for point in task.curve if point.energy_j is not None]
    if len(joules) == len(task.curve) and max(joules) > 0:
        found.append(("against the task's energy", "energy of all devices (J)", joules))
    return found


def _draw(figure: Figure, task: TaskResult) -> None:
    columns = _axes_of(task)
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", height_ratios=(3, 2))
    values = np.array([point.value for point in task.curve])
    losses = np.array([np.nan if point.loss is None else point.loss for point in task.curve])
    finite = losses[np.isfinite(losses)]
    # Single versions can be told apart as dots only while there are few of them.
    marker = "o" if len(task.curve) <= 60 else ""
    for column, (title, label, x) in enumerate(columns):
        panels[0, column].plot(x, values, color=BLUE, marker=marker, markersize=3)
        panels[1, column].plot(x, losses, color=PURPLE, marker=marker, markersize=3)
        panels[0, column].set_title(title)
        panels[1, column].set_xlabel(label)
        if task.best is not None:
            panels[0, column].axhline(task.best, color=BLUE, linewidth=0.8, linestyle=":")
        if task.baseline is not None:
            panels[0, column].axhline(task.baseline.value, color=GREY, linestyle="--")
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        use_log_scale(panels[1, 0], "y")
    panels[0, 0].set_ylabel(f"{task.metric} ({task.unit})" if task.unit else task.metric)
    panels[1, 0].set_ylabel("test loss")
