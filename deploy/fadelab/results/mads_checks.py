"""Whether runs bear out what MADS claims: four checks over run directories.

Run ``python -m fadelab.results.mads_checks RUN...`` with the runs of a speed sweep. Runs that differ
in nothing but method and seed are compared with each other. The exit code is 0 if every check that
could be made holds.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fadelab.experiment import Experiment
from fadelab.methods import AflMethod, MadsMethod
from fadelab.results.compute import compute_summary
from fadelab.results.contact_schema import ContactUse
from fadelab.results.record import RunRecord
from fadelab_agent.policy import DenseConfig, FixedFractionConfig

LEAST_SUCCESS = 0.95
MOST_ENERGY = 1.05
"""Over the allowance."""
LEAST_FIT = 0.9
"""R^2 of "linear, then flat"."""
_FEWEST_POINTS = 3


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """What the checks need of one run."""

    setting: str
    """The experiment without name, method and seed: the same for runs to be compared."""
    method: str
    """"mads", or the share of entries that is always kept."""
    final: float | None
    """The first task's metric at the end, larger being better."""
    contacts: ContactUse


@dataclass(frozen=True, slots=True)
class Check:
    """One claim and what the runs say of it."""

    claim: str
    holds: bool | None
    """None if these runs cannot tell."""
    figures: dict[str, float]


def measure(run_dir: Path) -> MeasuredRun | None:
    """Return a run's figures; None if it is not valid, or neither of MADS nor of a fixed share.

    Raises:
        FadelabError: USAGE, if it is no run directory.

    """
    experiment = RunRecord.load(run_dir).experiment
    label = method_label(experiment)
    summary = compute_summary(run_dir)
    if label is None or summary.contacts is None or not summary.valid:
        return None
    task = next(iter(summary.tasks.values()), None)
    sign = 1 if task is None or task.higher_is_better else -1
    return MeasuredRun(
        setting=experiment.model_dump_json(exclude={"name", "description", "method", "seed"}),
        method=label,
        final=None if task is None or task.final is None else sign * task.final,
        contacts=summary.contacts,
    )


def check_all(runs: Sequence[MeasuredRun]) -> list[Check]:
    """Return the four checks."""
    mads = [run for run in runs if run.method == "mads"]
    return [_check_shape(mads), _check_success(mads), _check_energy(mads), _check_metric(runs)]


def method_label(experiment: Experiment) -> str | None:
    """Return "mads", or the share of entries that is always kept; None for any other method."""
    method = experiment.method
    match method:
        case MadsMethod():
            return "mads"
        case AflMethod(upload=DenseConfig()):
            return "1"
        case AflMethod(upload=FixedFractionConfig(fraction=fraction)):
            return f"{fraction:g}"
        case _:
            return None


def _check_shape(mads: Iterable[MeasuredRun]) -> Check:
    """Kept share over contact time, one point for each setting: linear, then flat."""
    points = [
        (contacts.mean_predicted_s, contacts.mean_kept_share)
        for contacts in (run.contacts for run in mads)
        if contacts.mean_predicted_s is not None and contacts.mean_kept_share is not None
    ]
    claim = "the kept share grows linearly with contact time until it saturates"
    if len({x for x, _ in points}) < _FEWEST_POINTS:
        return Check(claim, None, {"points": len(points)})
    x, y = (np.array(values) for values in zip(*points, strict=True))
    # The slope is the one unknown: every slope that leads through a point or between two is tried.
    slopes = np.geomspace(y.min() / x.max() / 2 + 1e-12, 2 * y.max() / x.min() + 1e-9, 2000)
    flat = float(y.max())
    errors = [float(np.sum((np.minimum(flat, slope * x) - y) ** 2)) for slope in slopes]
    spread = float(np.sum((y - y.mean()) ** 2))
    fit = 1 - min(errors) / spread if spread > 0 else 0.0
    slope = float(slopes[int(np.argmin(errors))])
    return Check(claim, fit >= LEAST_FIT, {"r_squared": fit, "per_s": slope, "points": len(x)})


def _check_success(mads: Iterable[MeasuredRun]) -> Check:
    covered = acknowledged = 0
    for run in mads:
        covered += run.contacts.covered
        acknowledged += run.contacts.covered_acknowledged
    share = acknowledged / covered if covered else 0.0
    return Check(
        "updates that were to fit, in contacts as long as was counted on, are acknowledged in them",
        share >= LEAST_SUCCESS if covered else None,
        {"share": share, "updates": covered},
    )


def _check_energy(mads: Iterable[MeasuredRun]) -> Check:
    ratios = [
        run.contacts.mean_energy_j / run.contacts.allowance_j
        for run in mads
        if run.contacts.mean_energy_j is not None and run.contacts.allowance_j is not None
    ]
    worst = max(ratios, default=0.0)
    return Check(
        "mean energy of a contact keeps to its allowance",
        worst <= MOST_ENERGY if ratios else None,
        {"worst_ratio": worst, "runs": len(ratios)},
    )


def _check_metric(runs: Iterable[MeasuredRun]) -> Check:
    """Means over seeds; intervals of paired differences are for a comparison to give."""
    finals: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.final is not None:
            finals[run.setting][run.method].append(run.final)
    leads: dict[str, list[float]] = defaultdict(list)
    for methods in finals.values():
        if "mads" in methods:
            own = float(np.mean(methods["mads"]))
            for name, values in methods.items():
                if name != "mads":
                    leads[name].append(own - float(np.mean(values)))
    claim = "MADS is as good as every fixed share in every setting, and better than each in some setting"
    if not leads:
        return Check(claim, None, {})
    holds = all(min(own) >= 0 and max(own) > 0 for own in leads.values())
    figures = {f"least_lead_over_{name}": min(own) for name, own in sorted(leads.items())}
    return Check(claim, holds, figures)


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
