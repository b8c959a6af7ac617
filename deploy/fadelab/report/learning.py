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
        f"{task.metric} and loss of task {name} against time and uplink bytes",
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
        f"{', of all tasks together' if is_one_of_several else ''}.",
    )


def _baseline_words(task: TaskResult) -> str:
    if task.baseline is None:
        return ""
    return f", the dashed line what the rule '{task.baseline.name}' achieves without learning"


def _draw(figure: Figure, task: TaskResult) -> None:
    panels = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=(3, 2))
    values = np.array([point.value for point in task.curve])
    losses = np.array([np.nan if point.loss is None else point.loss for point in task.curve])
    finite = losses[np.isfinite(losses)]
    seconds = [point.t_s for point in task.curve]
    megabytes = [point.wire_up_bytes / 1e6 for point in task.curve]
    # Single versions can be told apart as dots only while there are few of them.
    marker = "o" if len(task.curve) <= 60 else ""
    for column, x in enumerate((seconds, megabytes)):
        panels[0, column].plot(x, values, color=BLUE, marker=marker, markersize=3)
        panels[1, column].plot(x, losses, color=PURPLE, marker=marker, markersize=3)
        if task.best is not None:
            panels[0, column].axhline(task.best, color=BLUE, linewidth=0.8, linestyle=":")
        if task.baseline is not None:
            panels[0, column].axhline(task.baseline.value, color=GREY, linestyle="--")
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        use_log_scale(panels[1, 0], "y")
    panels[0, 0].set_title(f"against emulated time (best {number(task.best, task.unit)})")
    panels[0, 1].set_title("against uplink bytes of all devices")
    panels[0, 0].set_ylabel(f"{task.metric} ({task.unit})" if task.unit else task.metric)
    panels[1, 0].set_ylabel("test loss")
    panels[1, 0].set_xlabel("emulated time (s)")
    panels[1, 1].set_xlabel("uplink wire bytes (MB)")
