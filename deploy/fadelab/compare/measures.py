"""What runs are compared by: one number per run, each with a name, a unit and a direction."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.results.period_schema import PeriodJoules
from fadelab.results.round_schema import RoundPlans
from fadelab.results.schema import CurvePoint, Summary, TaskResult

_SLACK_S = 0.5
"""A run may end a little before its planned duration."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a run."""

    key: str
    """Its name, after the task's where a run has several tasks."""
    title: str
    unit: str
    task: str | None
    higher_is_better: bool | None
    """None where neither is."""
    of: Callable[[Summary], float | None]
    """None where a run has no such number, for example never reached a target."""


@dataclass(frozen=True, slots=True)
class _Learned:
    """A measure of what was learned."""

    title: str
    unit: str
    higher_is_better: bool | None
    """None: as the task's metric."""
    of: Callable[[Summary, TaskResult, float], float | None]
    argument: str | None = None
    """What stands behind the colon."""


def _final(_: Summary, task: TaskResult, __: float) -> float | None:
    return task.final


def _best(_: Summary, task: TaskResult, __: float) -> float | None:
    return task.best


def _versions(_: Summary, task: TaskResult, __: float) -> float:
    return float(task.versions)


def _at(summary: Summary, task: TaskResult, t_s: float) -> float | None:
    if t_s > summary.duration_s + _SLACK_S:
        return None
    return value_at(task.curve, t_s)


def _mean(summary: Summary, task: TaskResult, _: float) -> float | None:
    """Return the metric's mean over emulated time; each version counts until the next."""
    starts_s = [point.t_s for point in task.curve]
    if not starts_s or summary.duration_s <= starts_s[0]:
        return None
    weights_s = np.diff([*starts_s, max(summary.duration_s, starts_s[-1])])
    return float(np.average([point.value for point in task.curve], weights=weights_s))


def _time_to(_: Summary, task: TaskResult, target: float) -> float | None:
    reached = _first_reaching(task, target)
    return None if reached is None else reached.t_s


def _bytes_to(_: Summary, task: TaskResult, target: float) -> float | None:
    reached = _first_reaching(task, target)
    return None if reached is None else reached.wire_up_bytes / 1e6


def _energy_to(_: Summary, task: TaskResult, target: float) -> float | None:
    reached = _first_reaching(task, target)
    return None if reached is None else reached.energy_j


def _at_energy(_: Summary, task: TaskResult, energy_j: float) -> float | None:
    """Return the metric of the last version that the task had for so much; None if it spent less."""
    if task.energy_j is None or task.energy_j < energy_j:
        return None
    afforded = [
        point.value
        for point in task.curve
        if point.energy_j is not None and point.energy_j <= energy_j
    ]
    return afforded[-1] if afforded else None


def _task_energy(_: Summary, task: TaskResult, __: float) -> float | None:
    return task.energy_j


def _task_staleness(_: Summary, task: TaskResult, __: float) -> float | None:
    return _largest(task.staleness.versions)


def _task_payload(_: Summary, task: TaskResult, __: float) -> float:
    return sum(row.payload for row in task.packets if row.direction == "up") / 1e6


def _first_reaching(task: TaskResult, target: float) -> CurvePoint | None:
    for point in task.curve:
        if point.value >= target if task.higher_is_better else point.value <= target:
            return point
    return None


def value_at(curve: Sequence[CurvePoint], t_s: float) -> float | None:
    """Return the metric of the version in force at an emulated time; None before the first."""
    published = [point.value for point in curve if point.t_s <= t_s]
    return published[-1] if published else None


_TARGET = "a value of the metric"
_COST = False
"""Less of it is better."""

_JOULES = "joules of the task"
TASK_ENERGY = "task_energy"
"""What one task has cost, whatever is spent on others."""
_QUALITIES = ("final", "best", "mean", "at", "at_energy")
"""What has the metric's own unit, and so a mean over tasks that share a metric."""
_ALL_TASKS = "all"
"""Stands for the mean of tasks where a task's name would."""

_LEARNED = {
    "final": _Learned("final {metric}", "", None, _final),
    "best": _Learned("best {metric}", "", None, _best),
    "mean": _Learned("mean {metric} over time", "", None, _mean),
    "at": _Learned("{metric} after {x:g} s", "", None, _at, "emulated seconds"),
    "time_to": _Learned("time to {metric} {x:g}", "s", _COST, _time_to, _TARGET),
    "bytes_to": _Learned("uplink wire bytes to {metric} {x:g}", "MB", _COST, _bytes_to, _TARGET),
    "energy_to": _Learned("the task's energy to {metric} {x:g}", "J", _COST, _energy_to, _TARGET),
    "at_energy": _Learned("{metric} for {x:g} J", "", None, _at_energy, _JOULES),
    TASK_ENERGY: _Learned("the task's energy", "J", _COST, _task_energy),
    "task_staleness": _Learned("the task's largest staleness", "versions", _COST, _task_staleness),
    "task_payload": _Learned("the task's uplink payload", "MB", _COST, _task_payload),
    "versions": _Learned("versions published", "", None, _versions),
}


def _energy_j(summary: Summary) -> float:
    joules = summary.total.joules
    return joules.compute + joules.uplink + joules.downlink


def _of_periods(kind: Literal["modelled", "metered"]) -> Callable[[Summary], float | None]:
    def energy_j(summary: Summary) -> float | None:
        if summary.periods is None:
            return None
        joules: PeriodJoules = getattr(summary.periods, kind)
        return joules.compute + joules.uplink + joules.downlink

    return energy_j


def _overruns(summary: Summary) -> float | None:
    return None if summary.periods is None else float(summary.periods.overruns)


def _largest(values: Sequence[int]) -> float | None:
    return float(max(values)) if values else None


def _arrivals(packet_class: str, which: str, summary: Summary) -> float | None:
    """Return a share of SP-FL's packets in per cent; moduli are those whose signs arrived."""
    if summary.sp_fl is None:
        return None
    found = summary.sp_fl.sign if packet_class == "sign" else summary.sp_fl.modulus
    share = {
        "empirical": found.empirical, "predicted": found.predicted, "carried": found.carried
    }[which]  # fmt: skip
    return None if share is None else 100 * share


def _mean_of(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _of_run(
    key: str,
    title: str,
    unit: str,
    of: Callable[[Summary], float | None],
    *,
    higher_is_better: bool | None = False,
) -> Measure:
    return Measure(key, title, unit, None, higher_is_better, of)


def _of_rounds(
    key: str,
    title: str,
    unit: str,
    of: Callable[[RoundPlans], float | None],
    *,
    higher_is_better: bool | None = None,
) -> Measure:
    """Return a measure of rounds whose powers the server decided; other runs have none."""

    def of_run(summary: Summary) -> float | None:
        return None if summary.rounds is None else of(summary.rounds)

    return Measure(key, title, unit, None, higher_is_better, of_run)


def _as_planned(rounds: RoundPlans) -> float | None:
    judged = rounds.slowest_judged
    return rounds.slowest_as_planned / judged if judged else None


_ROUNDS = (
    _of_rounds(
        "rounds",
        "rounds completed",
        "",
        lambda rounds: float(rounds.rounds_ended),
        higher_is_better=True,
    ),
    _of_rounds("planned_s", "planned time of all rounds", "s", lambda rounds: rounds.planned_s),
    _of_rounds("planned_j", "planned energy of all rounds", "J", lambda rounds: rounds.planned_j),
    _of_rounds("measured_s", "measured time of all rounds", "s", lambda rounds: rounds.measured_s),
    _of_rounds(
        "measured_j", "measured energy of all rounds", "J", lambda rounds: rounds.measured_j
    ),
    _of_rounds(
        "energy_ends",
        "share of runs that the energy budget ended",
        "",
        lambda rounds: float(rounds.spent_budget == "energy"),
    ),
    _of_rounds(
        "latency_ends",
        "share of runs that the latency budget ended",
        "",
        lambda rounds: float(rounds.spent_budget == "latency"),
    ),
    _of_rounds(
        "upload_ratio",
        "measured over planned latency of long uploads, median",
        "",
        lambda rounds: rounds.median_ratio_of_long,
    ),
    _of_rounds(
        "straggler",
        "share of rounds whose slowest device was the planned one",
        "",
        _as_planned,
        higher_is_better=True,
    ),
    _of_rounds(
        "silenced",
        "updates without power",
        "",
        lambda rounds: float(rounds.silenced),
        higher_is_better=False,
    ),
    _of_rounds(
        "nominal_share",
        "update bits over full precision",
        "",
        lambda rounds: rounds.nominal_share,
        higher_is_better=False,
    ),
    _of_rounds(
        "wire_share",
        "uplink wire bytes over full precision",
        "",
        lambda rounds: rounds.wire_share,
        higher_is_better=False,
    ),
)

_RUN = (
    *_ROUNDS,
    _of_run("wire_up", "uplink on the wire", "MB", lambda s: s.total.bytes.up.wire / 1e6),
    _of_run("wire_down", "downlink on the wire", "MB", lambda s: s.total.bytes.down.wire / 1e6),
    _of_run("payload_up", "uplink payload", "MB", lambda s: s.total.bytes.up.payload / 1e6),
    _of_run("energy", "energy", "J", _energy_j),
    _of_run("energy_compute", "compute energy", "J", lambda s: s.total.joules.compute),
    _of_run("energy_modelled", "modelled energy of periods", "J", _of_periods("modelled")),
    _of_run("energy_metered", "metered energy of periods", "J", _of_periods("metered")),
    _of_run("overruns", "trainings longer than emulated", "", _overruns),
    _of_run("energy_up", "uplink energy", "J", lambda s: s.total.joules.uplink),
    _of_run(
        "staleness", "mean staleness", "versions", lambda s: _mean_of(s.total.staleness.versions)
    ),
    _of_run(
        "staleness_max",
        "largest staleness",
        "versions",
        lambda s: _largest(s.total.staleness.versions),
    ),
    _of_run(
        "staleness_s", "mean staleness in time", "s", lambda s: _mean_of(s.total.staleness.seconds)
    ),
    _of_run(
        "uploads",
        "uploads completed",
        "",
        lambda s: float(s.total.updates.complete),
        higher_is_better=None,
    ),
    _of_run("wall", "wall time", "s", lambda s: s.wall_s, higher_is_better=None),
    *(
        _of_run(
            f"{name}_{which}" if which != "empirical" else name,
            f"{name} that {words}",
            "%",
            partial(_arrivals, packet_class, which),
            higher_is_better=None,
        )
        for name, packet_class in (("signs", "sign"), ("moduli", "modulus"))
        for which, words in (
            ("empirical", "arrived"),
            ("predicted", "were to arrive by prediction"),
            ("carried", "links' rates suffice for"),
        )
    ),
)

ALWAYS = ("wire_up", "wire_down", "energy", "staleness", "staleness_s", "uploads", "wall")
"""The measures that every comparison shows besides those that were asked for."""

IF_KNOWN = ("energy_modelled", "energy_metered", TASK_ENERGY, "staleness_max", "overruns")
"""Those that it shows as well where devices report local periods."""

ENERGIES = ("energy_metered", "energy")
"""What quality is held against: the first of these that runs have; of one of several tasks, its own."""


def is_quality(key: str) -> bool:
    """Return whether a measure is the task's metric at some moment, or its mean."""
    return key.rpartition("/")[2].partition(":")[0] in _QUALITIES


def metric_names() -> str:
    """Return all names that can be asked for, in one line."""
    learned = [f"{name}:X" if rule.argument else name for name, rule in _LEARNED.items()]
    return ", ".join([*learned, *(measure.key for measure in _RUN)])


def measures_of(metric: str, tasks: dict[str, TaskResult]) -> Iterator[Measure]:
    """Yield what a metric's name stands for: of what was learned, one measure for each task.

    Several tasks that share a metric have their mean as well.

    Raises:
        FadelabError: USAGE, if there is no such metric or its number is missing.

    """
    name, colon, argument = metric.partition(":")
    for measure in _RUN:
        if measure.key == metric:
            yield measure
            return
    rule = _LEARNED.get(name)
    if rule is None:
        raise FadelabError(ExitCode.USAGE, f"there is no metric '{metric}'; {metric_names()}")
    if (rule.argument is None) != (not colon):
        wanted = f"{name}:X, X being {rule.argument}" if rule.argument else f"{name} alone"
        raise FadelabError(ExitCode.USAGE, f"--metric {metric}: expected {wanted}")
    x = _number(metric, argument) if rule.argument is not None else 0.0
    for task, result in tasks.items():
        better = result.higher_is_better if not rule.unit else rule.higher_is_better
        yield Measure(
            f"{task}/{metric}" if len(tasks) > 1 else metric,
            (f"{task}: " if len(tasks) > 1 else "") + rule.title.format(metric=result.metric, x=x),
            "" if name == "versions" else rule.unit or result.unit,
            task,
            None if name == "versions" else better,
            partial(_learned, rule.of, task, x),
        )
    if len(tasks) > 1 and name in _QUALITIES and len({_kind(one) for one in tasks.values()}) == 1:
        first = next(iter(tasks.values()))
        title = rule.title.format(metric=first.metric, x=x)
        yield Measure(
            f"{_ALL_TASKS}/{metric}",
            f"mean of tasks: {title}",
            first.unit,
            None,
            first.higher_is_better,
            partial(_mean_of_tasks, rule.of, x),
        )


def _kind(task: TaskResult) -> tuple[str, str, bool]:
    return task.metric, task.unit, task.higher_is_better


def _mean_of_tasks(
    of: Callable[[Summary, TaskResult, float], float | None], x: float, summary: Summary
) -> float | None:
    """Return the mean over tasks; None if one of them has no such number."""
    values = [of(summary, task, x) for task in summary.tasks.values()]
    known = [value for value in values if value is not None]
    return _mean_of(known) if len(known) == len(values) else None


def _learned(
    of: Callable[[Summary, TaskResult, float], float | None], task: str, x: float, summary: Summary
) -> float | None:
    return of(summary, summary.tasks[task], x)


def _number(metric: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise FadelabError(ExitCode.USAGE, f"--metric {metric}: '{text}' is not a number")
    return value
