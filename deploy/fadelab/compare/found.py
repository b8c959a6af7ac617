"""Find the runs that shall be compared: those of sweeps, and single ones."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.results.schema import Summary
from fadelab.sweep.record import FILE_NAME, AxisEntry, SweepRecord, read_record, run_dir
from fadelab.sweep.verdict import judge

_SINGLE = "single run"
_NAMED_DIFFERENCES = 3
_SHARED_BY_SEED = ("devices", "duration_s", "partition", "radio", "task")
"""Sections that must agree for the same seed to mean the same data and the same channel."""

PointKey = tuple[tuple[str, str], ...]
Flat = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FoundRun:
    """One run that was asked for, whether it is there or not."""

    folder: Path
    source: str
    """The sweep's name."""
    variant: str
    point: PointKey
    seed: int
    experiment: Experiment | None
    summary: Summary | None
    """None if the run has not come to an end."""
    reasons: tuple[str, ...]
    """Why it does not count; empty for a valid run."""
    ended_early: bool = False
    """Whether it failed or was interrupted."""

    @property
    def is_valid(self) -> bool:
        """Whether the run counts."""
        return self.summary is not None and not self.reasons

    @property
    def state(self) -> str:
        """What to call it."""
        if self.is_valid:
            return "valid"
        if self.summary is None:
            return "missing"
        return "failed" if self.ended_early else "invalid"


@dataclass(frozen=True, slots=True)
class Collection:
    """All runs of a comparison."""

    runs: tuple[FoundRun, ...]
    axes: tuple[AxisEntry, ...]
    variants: tuple[str, ...]
    baseline: str | None
    """As the sweep names it."""


def find_runs(paths: Sequence[Path]) -> Collection:
    """Read sweeps and run directories.

    Raises:
        FadelabError: USAGE, if one is neither, if a run is there twice, or if runs have learned
            different tasks or measured them differently.

    """
    sweeps: list[tuple[Path, SweepRecord]] = []
    runs: list[FoundRun] = []
    for path in dict.fromkeys(path.absolute() for path in paths):
        if (path / FILE_NAME).exists():
            record = read_record(path)
            sweeps.append((path, record))
            runs += _of_sweep(path, record)
        elif (path / "manifest.json").exists():
            runs.append(_single(path))
        else:
            raise FadelabError(
                ExitCode.USAGE,
                f"{path} is neither a sweep nor a run directory: it has no {FILE_NAME} and no "
                "manifest.json",
            )
    runs = _told_apart(_named_by_difference(runs))
    _check_no_repeats(runs)
    _check_same_tasks(runs)
    return Collection(
        tuple(runs),
        tuple(_axes(record for _, record in sweeps)),
        tuple(dict.fromkeys(run.variant for run in runs)),
        sweeps[0][1].baseline if len(sweeps) == 1 else None,
    )


def _of_sweep(path: Path, record: SweepRecord) -> Iterable[FoundRun]:
    for entry in record.runs:
        folder = run_dir(path, entry.name)
        verdict = judge(folder)
        reasons = verdict.reasons
        summary = verdict.summary
        if verdict.experiment is None:
            reasons = entry.reasons or [f"{entry.state}: there is no run"]
        elif not verdict.is_of(entry.digest):
            summary, reasons = None, ["its experiment is another than the sweep's plan has"]
        point = tuple((axis.name, entry.point[axis.name]) for axis in record.axes)
        yield FoundRun(
            folder,
            record.name,
            entry.variant,
            point,
            entry.seed,
            verdict.experiment,
            summary,
            tuple(reasons),
            verdict.failure is not None,
        )


def _single(path: Path) -> FoundRun:
    verdict = judge(path)
    if verdict.experiment is None:
        raise FadelabError(ExitCode.USAGE, f"{path}: {verdict.problem}")
    experiment = verdict.experiment
    return FoundRun(
        path,
        _SINGLE,
        experiment.name,
        (),
        experiment.seed,
        experiment,
        verdict.summary,
        tuple(verdict.reasons),
        verdict.failure is not None,
    )


def _named_by_difference(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """Give single runs of one name but different settings names that tell these."""
    alike: dict[str, dict[Path, Flat]] = defaultdict(dict)
    for run in runs:
        if run.source == _SINGLE:
            alike[run.variant][run.folder] = _flat(run)
    names: dict[Path, str] = {}
    for flats in alike.values():
        names |= _differences_in_words(flats)
    return [
        replace(run, variant=f"{run.variant} ({names[run.folder]})") if run.folder in names else run
        for run in runs
    ]


def _differences_in_words(flats: Mapping[Path, Flat]) -> dict[Path, str]:
    """Return the settings of each that others do not share; none if they all agree."""
    differing = _differing(list(flats.values()))
    if not differing:
        return {}
    own = {folder: [key for key in differing if key in flat] for folder, flat in flats.items()}
    short = {
        folder: ", ".join(
            f"{key.rpartition('.')[2]}={flats[folder][key]}" for key in keys[:_NAMED_DIFFERENCES]
        )
        for folder, keys in own.items()
    }
    kinds = {repr([flat.get(key) for key in differing]) for flat in flats.values()}
    if len(set(short.values())) == len(kinds) and all(short.values()):
        return short
    return {
        folder: ", ".join(f"{key}={flats[folder][key]}" for key in keys) or "none of these"
        for folder, keys in own.items()
    }


def _told_apart(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """Put the sweep's name before variants that more than one source has."""
    sources: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        sources[run.variant].add(run.source)
    return [
        replace(run, variant=f"{run.source}/{run.variant}")
        if len(sources[run.variant]) > 1
        else run
        for run in runs
    ]


def _check_no_repeats(runs: Sequence[FoundRun]) -> None:
    seen: dict[tuple[str, PointKey, int], Path] = {}
    for run in runs:
        key = run.variant, run.point, run.seed
        if key in seen:
            raise FadelabError(
                ExitCode.USAGE,
                f"{seen[key]} and {run.folder} are both seed {run.seed} of {run.variant}: runs of "
                "one seed are not independent; give one of them",
            )
        seen[key] = run.folder


def _check_same_tasks(runs: Sequence[FoundRun]) -> None:
    first: tuple[FoundRun, dict[str, tuple[str, bool]]] | None = None
    for run in runs:
        if run.summary is None:
            continue
        tasks = {
            name: (task.metric, task.higher_is_better) for name, task in run.summary.tasks.items()
        }
        first = first or (run, tasks)
        if tasks != first[1]:
            raise FadelabError(
                ExitCode.USAGE,
                f"{first[0].folder} learned {_listed(first[1])} and {run.folder} {_listed(tasks)}: "
                "different tasks or metrics cannot be compared",
            )


def _listed(tasks: Mapping[str, tuple[str, bool]]) -> str:
    return " and ".join(f"{name} by {metric}" for name, (metric, _) in tasks.items()) or "nothing"


def _axes(records: Iterable[SweepRecord]) -> Iterable[AxisEntry]:
    """Yield every axis once, with the labels of all sweeps."""
    merged: dict[str, dict[str, float | None]] = {}
    for record in records:
        for axis in record.axes:
            merged.setdefault(axis.name, {}).update(zip(axis.labels, axis.numbers, strict=True))
    for name, points in merged.items():
        yield AxisEntry(name=name, labels=list(points), numbers=list(points.values()))


def unlike_conditions(runs: Sequence[FoundRun]) -> list[str]:
    """Name the settings by which runs of one grid point differ though a seed should decide them."""
    at_point: dict[tuple[PointKey, int], list[Flat]] = defaultdict(list)
    for run in runs:
        if run.experiment is not None:
            shared = run.experiment.model_dump(mode="json", include=set(_SHARED_BY_SEED))
            shared["tasks"] = {
                name: one.model_dump(mode="json", include=set(_SHARED_BY_SEED))
                for name, one in (run.experiment.tasks or {}).items()
            }
            at_point[run.point, run.seed].append(dict(_leaves("", shared)))
    found = {key for flats in at_point.values() for key in _differing(flats)}
    return sorted(found)


def _flat(run: FoundRun) -> Flat:
    assert run.experiment is not None
    tree = run.experiment.model_dump(
        mode="json", exclude={"seed", "name", "description", "validity"}
    )
    return dict(_leaves("", tree))


def _leaves(key: str, value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(f"{key}.{name}" if key else str(name), child)
    else:
        yield key, value


def _differing(flats: Sequence[Flat]) -> list[str]:
    """Return the keys that have not the same value everywhere."""
    keys = dict.fromkeys(key for flat in flats for key in flat)
    absent = object()
    return [
        key
        for key in keys
        if any(flat.get(key, absent) != flats[0].get(key, absent) for flat in flats)
    ]
