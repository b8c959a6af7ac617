"""Power controls and quantisers side by side, as Markdown tables for a document.

Run ``python -m fadelab.compare.round_tables SOURCE...`` with sweeps or runs of method emq, or with a
file that ``fadelab.twin.power_rounds`` has written. One table for each figure, the variants beside
each other and the grid points below each other. Figures by formula say so in every title.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fadelab.compare.found import find_runs
from fadelab.compare.markdown import markdown_table
from fadelab.compare.rows import Field, Table, point_name
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.report.units import NONE
from fadelab.results.paired import estimate_mean, paired_difference
from fadelab.twin.power_schema import FormulaRuns

_Point = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StoppedRun:
    """What a run came to inside its budgets."""

    variant: str
    point: _Point
    seed: int
    rounds: int
    metric: float | None
    nominal_share: float | None
    wire_share: float | None


@dataclass(frozen=True, slots=True)
class _Figure:
    title: str
    of: Callable[[StoppedRun], float | None]
    digits: int


_FIGURES = (
    _Figure("Rounds inside the same budgets", lambda run: float(run.rounds), 1),
    _Figure("Metric at the stop", lambda run: run.metric, 3),
    _Figure("Update bits over full precision", lambda run: run.nominal_share, 3),
    _Figure("Uplink wire bytes over full precision", lambda run: run.wire_share, 3),
)
_PAIRED = _FIGURES[:2]
"""Which figures are also shown as differences to the baseline."""


def round_tables(runs: Sequence[StoppedRun], *, baseline: str, source: str) -> list[Table]:
    """Return the tables: means, and differences to the baseline variant of the same seed.

    Args:
        runs: all of them.
        baseline: a variant.
        source: said in every title: where the figures come from.

    """
    tables = [_means(runs, figure, source) for figure in _FIGURES]
    if any(run.variant == baseline for run in runs):
        tables += [_differences(runs, figure, source, baseline) for figure in _PAIRED]
    return tables


def _means(runs: Sequence[StoppedRun], figure: _Figure, source: str) -> Table:
    def cell(own: Sequence[StoppedRun]) -> Field:
        values = [value for run in own if (value := figure.of(run)) is not None]
        if not values:
            return Field(NONE)
        found = estimate_mean(values)
        spread = "" if found.half_width is None else f" ± {found.half_width:.{figure.digits}f}"
        return Field(f"{found.mean:.{figure.digits}f}{spread}")

    return _table(runs, f"{figure.title} ({source})", _variants(runs), cell)


def _differences(runs: Sequence[StoppedRun], figure: _Figure, source: str, baseline: str) -> Table:
    def by_seed(own: Sequence[StoppedRun]) -> dict[int, float]:
        return {run.seed: value for run in own if (value := figure.of(run)) is not None}

    def cell(own: Sequence[StoppedRun]) -> Field:
        point = own[0].point
        base = [run for run in runs if run.variant == baseline and run.point == point]
        paired = paired_difference(by_seed(own), by_seed(base))
        if paired is None:
            return Field(NONE)
        found, digits = paired.estimate, figure.digits
        if found.low is None or found.high is None:
            return Field(f"{found.mean:+.{digits}f}")
        ends = f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
        return Field(f"{found.mean:+.{digits}f} {ends}")

    others = [variant for variant in _variants(runs) if variant != baseline]
    return _table(runs, f"{figure.title}, less {baseline} ({source})", others, cell)


def _table(
    runs: Sequence[StoppedRun],
    title: str,
    variants: Sequence[str],
    cell: Callable[[Sequence[StoppedRun]], Field],
) -> Table:
    rows = []
    for point in dict.fromkeys(run.point for run in runs):
        fields = [Field(point_name(dict(point)) or NONE)]
        for variant in variants:
            own = [run for run in runs if run.variant == variant and run.point == point]
            fields.append(cell(own) if own else Field(NONE))
        rows.append(tuple(fields))
    return Table(title, ("grid point", *variants), tuple(rows))


def _variants(runs: Sequence[StoppedRun]) -> list[str]:
    return list(dict.fromkeys(run.variant for run in runs))


def formula_tables(path: Path) -> list[Table]:
    """Return the tables of a file of figures by formula.

    Raises:
        FadelabError: USAGE, if it cannot be read or is none.

    """
    try:
        found = FormulaRuns.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise FadelabError(
            ExitCode.USAGE, f"{path} holds no figures by formula: {error}"
        ) from error
    runs = [
        StoppedRun(
            run.variant,
            tuple(run.point.items()),
            run.seed,
            run.rounds,
            run.metric,
            run.nominal_share,
            run.wire_share,
        )
        for run in found.runs
    ]
    return round_tables(runs, baseline=found.baseline, source=f"by formula, {_seeds(runs)}")


def socket_tables(sources: Sequence[Path]) -> list[Table]:
    """Return the tables of runs on sockets; runs that are not valid are left out.

    Raises:
        FadelabError: USAGE, if a source is no sweep and no run.

    """
    found = find_runs(sources)
    runs: list[StoppedRun] = []
    for run in found.runs:
        if run.is_valid and run.summary is not None and run.summary.rounds is not None:
            rounds = run.summary.rounds
            task = next(iter(run.summary.tasks.values()))
            runs.append(
                StoppedRun(
                    run.variant,
                    run.point,
                    run.seed,
                    rounds.rounds_ended,
                    task.final,
                    rounds.nominal_share,
                    rounds.wire_share,
                )
            )
    left_out = len(found.runs) - len(runs)
    source = f"on sockets, {_seeds(runs)}, {left_out} runs left out"
    return round_tables(runs, baseline=found.baseline or "", source=source)


def _seeds(runs: Sequence[StoppedRun]) -> str:
    return f"{len({run.seed for run in runs})} seeds"


def _tables(sources: Sequence[Path]) -> Iterator[Table]:
    folders = [source for source in sources if source.suffix != ".json"]
    for source in sources:
        if source.suffix == ".json":
            yield from formula_tables(source)
    if folders:
        yield from socket_tables(folders)


def main() -> None:
    """Write the tables of sweeps, or of figures by formula, as Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "sources", type=Path, nargs="+", help="folders of sweeps and runs, or .json files"
    )
    try:
        tables = list(_tables(parser.parse_args().sources))
    except FadelabError as error:
        sys.exit(str(error))
    sys.stdout.write("\n\n".join(markdown_table(table) for table in tables) + "\n")


if __name__ == "__main__":
    main()
