"""Whether runs bear out what DMA-FL claims: checks over run directories.

Run ``python -m fadelab.results.dma_checks RUN...``. Every run is held against its staleness cap and its
modelled energy. Runs that differ in nothing but the seed and one setting of one task are compared by
seed, the highest value of that setting against the lowest, with 95 % intervals of the paired
differences: more importance should move steps, energy and accuracy to a task, more active drift
shorten its computing, more idle drift its waiting. The exit code is 0 if no check fails; a sign whose
interval holds 0 stays open.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fadelab.experiment import Experiment
from fadelab.results.compute import compute_summary
from fadelab.results.paired import estimate_mean, paired_difference
from fadelab.results.period_schema import PeriodJoules, Periods, TaskPeriods
from fadelab.results.record import RunRecord
from fadelab.results.schema import TaskResult

MOST_COMPUTE = 1.02
"""Metered over modelled energy of computing."""


@dataclass(frozen=True, slots=True)
class MeasuredTask:
    """What the checks need of one task of a run."""

    result: TaskResult
    periods: TaskPeriods
    steps_share: float | None
    """Of all local steps of the run, those of this task."""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """What the checks need of one run."""

    experiment: Experiment
    periods: Periods
    tasks: Mapping[str, MeasuredTask]


@dataclass(frozen=True, slots=True)
class Check:
    """One claim and what the runs say of it."""

    claim: str
    holds: bool | None
    """None if these runs cannot tell: an interval holds 0, or there is nothing to compare."""
    figures: dict[str, float | None]


Knob = Literal["importance", "active_pace", "idle_pace"]
Way = Literal["grows", "shrinks"]
_Measure = Callable[[MeasuredTask], float | None]


@dataclass(frozen=True, slots=True)
class _Sign:
    """Which way a figure of a task should go when one of its settings is raised."""

    knob: Knob
    figure: str
    way: Way
    of: _Measure


def steps_of(task: TaskPeriods) -> float:
    """Return a task's local steps, all periods of all devices together."""
    trained = task.periods.ended if task.periods.mean_steps is not None else 0
    return trained * (task.periods.mean_steps or 0.0)


def _joules(energy: PeriodJoules) -> float:
    return energy.compute + energy.uplink + energy.downlink


def _quality(task: MeasuredTask) -> float | None:
    final = task.result.final
    return final if final is None or task.result.higher_is_better else -final


_SIGNS = (
    _Sign("importance", "number of local steps", "grows", lambda task: steps_of(task.periods)),
    _Sign("importance", "share of all local steps", "grows", lambda task: task.steps_share),
    _Sign("importance", "metered energy", "grows", lambda t: _joules(t.periods.periods.metered)),
    _Sign("importance", "final quality", "grows", _quality),
    _Sign(
        "active_pace", "mean computing time", "shrinks", lambda t: t.periods.periods.mean_compute_s
    ),
    _Sign(
        "idle_pace", "mean waiting time", "shrinks", lambda task: task.periods.periods.mean_idle_s
    ),
)


def measure(run_dir: Path) -> MeasuredRun | None:
    """Return a run's figures; None if it is not valid or its devices report no local periods.

    Raises:
        FadelabError: USAGE, if it is no run directory.

    """
    summary = compute_summary(run_dir)
    if summary.periods is None or not summary.valid:
        return None
    own = summary.periods.tasks
    steps = sum(steps_of(task) for task in own.values())
    return MeasuredRun(
        experiment=RunRecord.load(run_dir).experiment,
        periods=summary.periods,
        tasks={
            name: MeasuredTask(result, own[name], steps_of(own[name]) / steps if steps else None)
            for name, result in summary.tasks.items()
        },
    )


def check_all(runs: Sequence[MeasuredRun]) -> list[Check]:
    """Return the checks: staleness, energy, and one for each sign and task that can be compared."""
    return [_check_staleness(runs), *_check_energy(runs), *_check_signs(runs)]


def _check_staleness(runs: Sequence[MeasuredRun]) -> Check:
    capped = [
        task
        for run in runs
        for task in run.periods.tasks.values()
        if task.staleness_cap is not None and task.largest_staleness is not None
    ]
    over = sum(task.over_cap for task in capped)
    figures: dict[str, float | None] = {
        "tasks": len(capped),
        "updates_over_cap": over,
        "largest": max((float(task.largest_staleness or 0) for task in capped), default=None),
        "smallest_cap": min((float(task.staleness_cap or 0) for task in capped), default=None),
    }
    return Check("no applied update is staler than the cap", not over if capped else None, figures)


def _check_energy(runs: Sequence[MeasuredRun]) -> Iterator[Check]:
    for part, most in (("compute", MOST_COMPUTE), ("uplink", None), ("downlink", None)):
        ratios = [
            getattr(run.periods.metered, part) / modelled
            for run in runs
            if (modelled := getattr(run.periods.modelled, part)) > 0
        ]
        claim = f"metered over modelled energy, {part}"
        if most is not None:
            claim += f": at most {most:g}"
        if not ratios:
            yield Check(claim, None, {"runs": 0})
            continue
        found = estimate_mean(ratios)
        yield Check(
            claim,
            None if most is None else max(ratios) <= most,
            {
                "runs": len(ratios),
                "mean": found.mean,
                "low": found.low,
                "high": found.high,
                "worst": max(ratios),
            },
        )


def _check_signs(runs: Sequence[MeasuredRun]) -> Iterator[Check]:
    names = dict.fromkeys(name for run in runs for name in run.tasks)
    for sign in _SIGNS:
        for name in names:
            settings = [own for own in _levels(runs, sign.knob, name) if len(own) > 1]
            for number, levels in enumerate(settings, start=1):
                among = f", setting {number} of {len(settings)}" if len(settings) > 1 else ""
                yield _compare(sign, name, levels, among)


_Levels = dict[float, dict[int, MeasuredRun]]
"""By a setting's value, the runs by their seeds."""


def _levels(runs: Sequence[MeasuredRun], knob: Knob, task: str) -> list[_Levels]:
    """Sort runs by everything but the seed and one setting of a task, then by that setting."""
    found: dict[str, _Levels] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        value = _value(run.experiment, knob, task)
        if value is not None and task in run.tasks:
            rest = _rest(run.experiment, knob, task)
            found[rest][value][run.experiment.seed] = run
    return list(found.values())


def _value(experiment: Experiment, knob: Knob, task: str) -> float | None:
    own = experiment.learning.get(task)
    value = None if own is None else getattr(own if knob == "importance" else own.drift, knob, None)
    return None if value is None else float(value)


def _rest(experiment: Experiment, knob: Knob, task: str) -> str:
    tree = experiment.model_dump(mode="json", exclude={"name", "description", "seed"})
    own = tree["tasks"][task] if tree["tasks"] is not None else {}
    (own if knob == "importance" else own.get("drift", {})).pop(knob, None)
    return json.dumps(tree, sort_keys=True)


def _compare(sign: _Sign, task: str, levels: _Levels, among: str) -> Check:
    low, high = min(levels), max(levels)
    values = [
        {
            seed: value
            for seed, run in levels[level].items()
            if (value := sign.of(run.tasks[task])) is not None
        }
        for level in (high, low)
    ]
    claim = f"{sign.figure} of {task} {sign.way} with its {sign.knob} ({low:g} to {high:g}){among}"
    paired = paired_difference(values[0], values[1])
    if paired is None:
        return Check(claim, None, {"pairs": 0})
    found = paired.estimate
    figures: dict[str, float | None] = {
        "pairs": found.n,
        "at_lowest": paired.baseline_mean,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
    }
    return Check(claim, _holds(found.low, found.high, sign.way), figures)


def _holds(low: float | None, high: float | None, way: Way) -> bool | None:
    if low is None or high is None or low <= 0 <= high:
        return None
    return (low > 0) == (way == "grows")


def main() -> None:
    """Write the checks as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    measured = [measure(run) for run in parser.parse_args().runs]
    checks = check_all([run for run in measured if run is not None])
    sys.stdout.write(json.dumps([asdict(check) for check in checks], indent=2) + "\n")
    sys.exit(0 if all(check.holds is not False for check in checks) else 1)


if __name__ == "__main__":
    main()
