"""What runs are compared by: one number per run, each with a name, a unit and a direction."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from fadelab.compare.learned import LEARNED, QUALITIES, TASK_ENERGY
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.results.period_schema import PeriodJoules
from fadelab.results.round_schema import RoundPlans
from fadelab.results.schema import Summary, TaskResult

_ALL_TASKS = "all"
"""Stands for the mean of tasks where a task's name would."""


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
    return key.rpartition("/")[2].partition(":")[0] in QUALITIES


def metric_names() -> str:
    """Return all names that can be asked for, in one line."""
    learned = [f"{name}:X" if rule.argument else name for name, rule in LEARNED.items()]
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
    rule = LEARNED.get(name)
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
    if len(tasks) > 1 and name in QUALITIES and len({_kind(one) for one in tasks.values()}) == 1:
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
