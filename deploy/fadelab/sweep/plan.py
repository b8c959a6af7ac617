"""From a sweep file to its runs, each a checked experiment with a name of its own."""

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment, check_experiment, put_setting
from fadelab.sweep.axes import Axis, Point, axes_of
from fadelab.sweep.file import NAME_PATTERN, Settings, SweepFile, load_sweep_file

_LONGEST_NAME = 120
_SHOWN_MISTAKES = 5
_WITHOUT_EFFECT = {"name", "description"}


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a sweep."""

    name: str
    """Its folder's name."""
    variant: str
    point: tuple[tuple[str, str], ...]
    """Axes and labels of its grid point."""
    seed: int
    experiment: Experiment
    digest: str


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """Everything that a sweep shall run."""

    name: str
    file: Path
    axes: tuple[Axis, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    attempts: int
    baseline: str
    runs: tuple[PlannedRun, ...]
    """Seed after seed: what there is of an interrupted sweep can be compared."""


def digest_of(experiment: Experiment) -> str:
    """Return what identifies a resolved experiment: SHA-256 of all that decides its results."""
    tree = experiment.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def load_plan(path: Path) -> SweepPlan:
    """Read a sweep file and check every run of it.

    Raises:
        FadelabError: USAGE, naming the file, the key, what was given and what is allowed.

    """
    file, base = load_sweep_file(path)
    name = file.name or path.stem
    if not re.match(NAME_PATTERN, name):
        raise FadelabError(ExitCode.USAGE, f"{path}: '{name}' is no name for a sweep: give 'name'.")
    axes, variants = axes_of(file)
    baseline = variants[0].label if file.baseline is None else file.baseline
    labels = [variant.label for variant in variants]
    if baseline not in labels:
        raise FadelabError(
            ExitCode.USAGE,
            f"{path}: 'baseline' is '{baseline}'; allowed: {', '.join(labels)}.",
        )
    cells = list(_cells(path, file, axes, variants))
    if not cells:
        raise FadelabError(ExitCode.USAGE, f"{path}: 'exclude' leaves no run.")
    return SweepPlan(
        name,
        path,
        tuple(axes),
        tuple(labels),
        tuple(file.seed_list),
        file.attempts,
        baseline,
        tuple(_checked(path, file, base, axes, cells)),
    )


@dataclass(frozen=True, slots=True)
class _Cell:
    """One run before its experiment is checked."""

    seed: int
    variant: Point
    points: tuple[Point, ...]


def _cells(
    path: Path, file: SweepFile, axes: Sequence[Axis], variants: Sequence[Point]
) -> Iterator[_Cell]:
    """Yield every run that no entry of ``exclude`` leaves out."""
    names = [axis.name for axis in axes]
    excluded = [False] * len(file.exclude)
    for number, entry in enumerate(file.exclude):
        unknown = [key for key in entry if key not in [*names, "variant", "seed"]]
        if unknown or not entry:
            allowed = ", ".join([*names, "variant", "seed"])
            given = f"unknown key '{unknown[0]}'" if unknown else "it is empty"
            raise FadelabError(
                ExitCode.USAGE, f"{path}: 'exclude[{number}]': {given}; allowed: {allowed}."
            )
    grid = list(itertools.product(*(axis.points for axis in axes)))
    for seed, points, variant in itertools.product(file.seed_list, grid, variants):
        cell = _Cell(seed, variant, points)
        matches = [_matches(entry, names, cell) for entry in file.exclude]
        excluded = [a or b for a, b in zip(excluded, matches, strict=True)]
        if not any(matches):
            yield cell
    if not all(excluded):
        number = excluded.index(False)
        raise FadelabError(ExitCode.USAGE, f"{path}: 'exclude[{number}]' matches no run.")


def _matches(entry: Settings, names: Sequence[str], cell: _Cell) -> bool:
    points = dict(zip(names, cell.points, strict=True))

    def agrees(key: str, wanted: JsonValue) -> bool:
        if key == "seed":
            return wanted == cell.seed
        point = cell.variant if key == "variant" else points[key]
        return wanted in (point.value, point.label)

    return all(agrees(key, wanted) for key, wanted in entry.items())


def _checked(
    path: Path,
    file: SweepFile,
    base: dict[str, object],
    axes: Sequence[Axis],
    cells: Sequence[_Cell],
) -> Iterator[PlannedRun]:
    """Yield the runs; all mistakes of all of them are told together, each once."""
    mistakes: dict[str, list[str]] = {}
    names: set[str] = set()
    for cell in cells:
        point = tuple((axis.name, p.label) for axis, p in zip(axes, cell.points, strict=True))
        name = _unique(_run_name(cell, axes), names)
        try:
            experiment = check_experiment(_resolve(file, base, cell), "")
        except FadelabError as error:
            for sentence in str(error).splitlines():
                mistakes.setdefault(sentence.removeprefix(": "), []).append(name)
            continue
        if not mistakes:
            yield PlannedRun(
                name, cell.variant.label, point, cell.seed, experiment, digest_of(experiment)
            )
    if mistakes:
        raise FadelabError(ExitCode.USAGE, _told(path, mistakes, len(cells)))


def _told(path: Path, mistakes: dict[str, list[str]], runs: int) -> str:
    lines = []
    for sentence, names in list(mistakes.items())[:_SHOWN_MISTAKES]:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        where = "every run" if len(names) == runs > 1 else f"run {names[0]}{others}"
        lines.append(f"{path}, {where}: {sentence}")
    if len(mistakes) > _SHOWN_MISTAKES:
        lines.append(f"{path}: ... and {len(mistakes) - _SHOWN_MISTAKES} more mistakes")
    return "\n".join(lines)


def _resolve(file: SweepFile, base: dict[str, object], cell: _Cell) -> dict[str, object]:
    """Return the tree of one run's experiment.

    Settings of all runs come first. Of those of variant and grid point, whole sections come
    before single keys, so that one may choose a method and the other tune it.
    """
    tree = copy.deepcopy(base)
    for key, value in sorted(file.settings.items(), key=lambda item: item[0].count(".")):
        put_setting(tree, key, copy.deepcopy(value), f"settings.{key}")
    own: Settings = {}
    for point in (cell.variant, *cell.points):
        for key, value in point.settings.items():
            if key in own and own[key] != value:
                raise FadelabError(ExitCode.USAGE, f"'{key}' is set twice, to different values.")
            own[key] = value
    for key, value in sorted(own.items(), key=lambda item: item[0].count(".")):
        put_setting(tree, key, copy.deepcopy(value), f"'{key}'")
    return tree | {"seed": cell.seed}


def _run_name(cell: _Cell, axes: Sequence[Axis]) -> str:
    last = [axis.name.rpartition(".")[2] for axis in axes]
    short = [
        axis.name if last.count(name) > 1 else name for axis, name in zip(axes, last, strict=True)
    ]
    parts = [cell.variant.label]
    parts += [f"{name}={p.label}" for name, p in zip(short, cell.points, strict=True)]
    name = re.sub(r"[^A-Za-z0-9_.=+-]+", "-", "_".join([*parts, f"seed={cell.seed}"]))
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256("_".join(parts).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 40]}_{digest}_seed={cell.seed}"


def _unique(name: str, taken: set[str]) -> str:
    """Return a name that no run has yet; the order of runs decides, which the file does."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found
