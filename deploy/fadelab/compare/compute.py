"""From runs to a comparison: group by variant and grid point, pair by seed."""

from collections.abc import Iterator, Mapping, Sequence

from fadelab.compare.found import Collection, FoundRun, PointKey, unlike_conditions
from fadelab.compare.measures import ALWAYS, IF_KNOWN, Measure, measures_of
from fadelab.compare.schema import (
    Comparison,
    DifferenceResult,
    Group,
    MeanResult,
    MeasureInfo,
    MeasureResult,
    RunResult,
)
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.results.paired import CONFIDENCE, PairedDifference, estimate_mean, paired_difference

GroupKey = tuple[str, PointKey]


def compare(
    found: Collection, *, title: str, metrics: Sequence[str], baseline: str | None
) -> Comparison:
    """Compare runs.

    Args:
        found: the runs.
        title: of the pages.
        metrics: names as :func:`fadelab.compare.measures.measures_of` knows them.
        baseline: a variant; the sweep's, or the first one, if None.

    Raises:
        FadelabError: USAGE, if there is no such metric or variant, or no run has come to an end.

    """
    tasks = next((run.summary.tasks for run in found.runs if run.summary is not None), None)
    if tasks is None:
        raise FadelabError(ExitCode.USAGE, "no run has come to an end: there is nothing to compare")
    main = [measure for metric in metrics for measure in measures_of(metric, tasks)]
    always = [measure for name in ALWAYS for measure in measures_of(name, tasks)]
    summaries = [run.summary for run in found.runs if run.summary is not None]
    if any(summary.periods is not None for summary in summaries):
        always += [measure for name in IF_KNOWN for measure in measures_of(name, tasks)]
    measures = {measure.key: measure for measure in [*main, *always]}
    chosen = _baseline(found, baseline)
    grouped = _grouped(found)
    groups = [_group(key, grouped, measures, chosen) for key in grouped]
    return Comparison(
        title=title,
        confidence=CONFIDENCE,
        baseline=chosen,
        variants=list(found.variants),
        axes=list(found.axes),
        main=list(dict.fromkeys(measure.key for measure in main)),
        measures={
            key: MeasureInfo(
                title=measure.title,
                unit=measure.unit,
                task=measure.task,
                higher_is_better=measure.higher_is_better,
            )
            for key, measure in measures.items()
        },
        groups=groups,
        remarks=list(_remarks(found, groups)),
    )


def _baseline(found: Collection, wanted: str | None) -> str | None:
    if wanted is not None and wanted not in found.variants:
        raise FadelabError(
            ExitCode.USAGE,
            f"--baseline {wanted}: there is no such variant; allowed: {', '.join(found.variants)}",
        )
    if len(found.variants) == 1:
        return None
    return wanted or (found.baseline if found.baseline in found.variants else found.variants[0])


def _grouped(found: Collection) -> dict[GroupKey, list[FoundRun]]:
    """Return the runs by grid point and, within one, by variant, in the plan's order."""
    order = {
        axis.name: {label: place for place, label in enumerate(axis.labels)} for axis in found.axes
    }
    points = sorted(
        dict.fromkeys(run.point for run in found.runs),
        key=lambda point: [(axis, order[axis][label]) for axis, label in point],
    )
    groups: dict[GroupKey, list[FoundRun]] = {
        (variant, point): [] for point in points for variant in found.variants
    }
    for run in sorted(found.runs, key=lambda run: run.seed):
        groups[run.variant, run.point].append(run)
    return {key: runs for key, runs in groups.items() if runs}


def _group(
    key: GroupKey,
    grouped: Mapping[GroupKey, Sequence[FoundRun]],
    measures: Mapping[str, Measure],
    baseline: str | None,
) -> Group:
    variant, point = key
    runs = grouped[key]
    reference = None if baseline in (None, variant) else grouped.get((str(baseline), point), [])
    return Group(
        variant=variant,
        point=dict(point),
        runs=[_run(run, measures) for run in runs],
        results={name: _measured(measure, runs, reference) for name, measure in measures.items()},
    )


def _run(run: FoundRun, measures: Mapping[str, Measure]) -> RunResult:
    values = {
        name: None if run.summary is None else measure.of(run.summary)
        for name, measure in measures.items()
    }
    return RunResult.model_validate(
        {
            "seed": run.seed,
            "folder": str(run.folder),
            "state": run.state,
            "reasons": list(run.reasons),
            "values": values,
        }
    )


def _measured(
    measure: Measure, runs: Sequence[FoundRun], reference: Sequence[FoundRun] | None
) -> MeasureResult:
    values = _values(measure, runs)
    valid = {run.seed for run in runs if run.is_valid}
    mean = difference = None
    if values:
        found = estimate_mean(list(values.values()))
        mean = MeanResult(n=found.n, mean=found.mean, std=found.std, low=found.low, high=found.high)
    if reference is not None:
        difference = _difference(values, _values(measure, reference), runs, reference)
    return MeasureResult(mean=mean, without=sorted(valid - values.keys()), difference=difference)


def _difference(
    values: Mapping[int, float],
    baseline: Mapping[int, float],
    runs: Sequence[FoundRun],
    reference: Sequence[FoundRun],
) -> DifferenceResult | None:
    paired = paired_difference(values, baseline)
    if paired is None:
        return None
    planned = {run.seed for run in [*runs, *reference]}
    return difference_result(paired, unpaired=sorted(planned - set(paired.pairs)))


def difference_result(paired: PairedDifference, *, unpaired: Sequence[int]) -> DifferenceResult:
    """Return a paired difference as files tell it; ``unpaired`` are the seeds without a pair."""
    return DifferenceResult(
        n=paired.estimate.n,
        mean=paired.estimate.mean,
        low=paired.estimate.low,
        high=paired.estimate.high,
        relative=paired.relative,
        seeds=list(paired.pairs),
        unpaired=list(unpaired),
    )


def _values(measure: Measure, runs: Sequence[FoundRun]) -> dict[int, float]:
    """Return the measure of valid runs by seed."""
    found = {
        run.seed: measure.of(run.summary)
        for run in runs
        if run.is_valid and run.summary is not None
    }
    return {seed: value for seed, value in found.items() if value is not None}


def _remarks(found: Collection, groups: Sequence[Group]) -> Iterator[str]:
    states: list[str] = [run.state for group in groups for run in group.runs]
    for state, meaning in (
        ("invalid", "Not valid by their own measurements"),
        ("failed", "Ended early"),
        ("missing", "Not there, or not at an end"),
    ):
        count = states.count(state)
        if count:
            yield f"{meaning}: {count} of {len(states)} runs. Means are of valid runs alone."
    differing = unlike_conditions(found.runs)
    if differing:
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        yield (
            "At one grid point, variants differ in what a seed should decide alike "
            f"({shown}): pairing by seed then takes away less of the chance."
        )
    if any(run.summary is not None and run.summary.links.oracle for run in found.runs):
        oracles = sorted(
            {r.variant for r in found.runs if r.summary is not None and r.summary.links.oracle}
        )
        yield f"In {', '.join(oracles)} devices knew the true future, which no device can know."
