"""What MADS made of its contacts over a sweep, as Markdown tables for a document.

Run ``python -m fadelab.compare.contact_tables SWEEP`` with sweeps, runs, or both. It tells what
``fadelab compare`` does not: how MADS stands against whichever fixed share is best at each grid
point, how contacts were used, and how the kept share depends on contact time.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab.compare.compute import difference_result
from fadelab.compare.found import Collection, FoundRun, PointKey, find_runs
from fadelab.compare.markdown import markdown_table
from fadelab.compare.rows import Field, Table, interval, point_name, verdict
from fadelab.exit_codes import FadelabError
from fadelab.report.units import NONE
from fadelab.results.contact_schema import ContactUse
from fadelab.results.contacts import uploads
from fadelab.results.mads_checks import method_label
from fadelab.results.paired import paired_difference
from fadelab.results.record import RunRecord

_BINS = 12
_MADS = "mads"
_FEWEST_BINS = 4
_KNEES = 500


@dataclass(frozen=True, slots=True)
class _Cell:
    """The valid runs of one variant at one grid point."""

    variant: str
    point: PointKey
    label: str
    """"mads", or the share of entries that is always kept."""
    runs: tuple[FoundRun, ...]

    @property
    def finals(self) -> dict[int, float]:
        """The first task's last metric by seed."""
        found: dict[int, float] = {}
        for run in self.runs:
            task = next(iter(run.summary.tasks.values()), None) if run.summary else None
            if task is not None and task.final is not None:
                found[run.seed] = task.final
        return found

    @property
    def contacts(self) -> list[ContactUse]:
        """How each run used its contacts."""
        return [run.summary.contacts for run in self.runs if run.summary and run.summary.contacts]


@dataclass(frozen=True, slots=True)
class Hinge:
    """``share = offset + slope min(contact, knee)``: a line that ends in a plateau."""

    offset: float
    per_s: float
    knee_s: float
    r_squared: float


def fit_hinge(contact_s: NDArray[np.float64], share: NDArray[np.float64]) -> Hinge | None:
    """Return the hinge that is nearest to points; None for too few of them.

    Args:
        contact_s: shape ``(points,)``, rising.
        share: kept share at each, same shape.

    """
    if len(contact_s) < _FEWEST_BINS:
        return None
    spread = float(np.sum((share - share.mean()) ** 2))
    best: Hinge | None = None
    # For a given knee it is linear in what is left, so only the knee has to be tried.
    for knee_s in np.linspace(contact_s[1], contact_s[-1], _KNEES).tolist():
        bent = np.minimum(contact_s, knee_s)
        columns = np.stack([np.ones_like(bent), bent], axis=1)
        (offset, per_s), *_ = np.linalg.lstsq(columns, share, rcond=None)
        error = float(np.sum((offset + per_s * bent - share) ** 2))
        fit = 1 - error / spread if spread > 0 else 0.0
        if best is None or fit > best.r_squared:
            best = Hinge(float(offset), float(per_s), knee_s, fit)
    return best


def contact_tables(found: Collection) -> list[Table]:
    """Return the three tables: the lead over the best fixed share, contacts, kept share."""
    cells = list(_cells(found))
    return [lead_table(cells), use_table(cells), share_table(cells)]


def lead_table(cells: Sequence[_Cell]) -> Table:
    """Return MADS less the fixed share with the best mean, at each grid point, paired by seed.

    The best is chosen by the same runs that it is then compared with, which flatters it.
    """
    rows = []
    for cell in cells:
        if cell.label != _MADS:
            continue
        fixed = [
            other
            for other in cells
            if other.point == cell.point and other.label != _MADS and other.finals
        ]
        if not fixed or not cell.finals:
            continue
        higher = _higher_is_better(cell)
        best = max(fixed, key=lambda other: (1 if higher else -1) * _mean(other.finals.values()))
        rows.append(_lead_row(cell, best, higher_is_better=higher))
    headings = ("variant", "grid point", "final", "best fixed share", "its final")
    return Table(
        "MADS and the best fixed share",
        (*headings, "difference [95 % interval]", "pairs", "verdict"),
        tuple(rows),
    )


def use_table(cells: Iterable[_Cell]) -> Table:
    """Return how contacts were used, all seeds together."""
    rows = [_use_row(cell) for cell in cells if cell.contacts]
    headings = (
        "variant",
        "grid point",
        "contacts",
        "skipped",
        "sent",
        "acknowledged in their contact",
        "of those that were to fit",
        "mean contact (s)",
        "kept share",
        "energy per contact (J)",
        "over allowance, worst run",
    )
    return Table("Contacts", headings, tuple(rows))


def share_table(cells: Iterable[_Cell]) -> Table:
    """Return the mean kept share of MADS by predicted contact time, over all grid points."""
    points = np.array([point for cell in cells if cell.label == _MADS for point in _shares(cell)])
    groups = list(_binned(points)) if len(points) else []
    rows = tuple(
        (
            Field(f"{times.min():.2f} to {times.max():.2f}"),
            Field(str(len(times))),
            Field(f"{times.mean():.2f}"),
            Field(f"{shares.mean():.3f}"),
        )
        for times, shares in groups
    )
    hinge = fit_hinge(
        np.array([times.mean() for times, _ in groups]),
        np.array([shares.mean() for _, shares in groups]),
    )
    title = "Kept share of MADS by predicted contact time"
    if hinge is not None:
        title += (
            f": {hinge.offset:.3f} + {hinge.per_s:.4f} per s up to {hinge.knee_s:.1f} s, "
            f"R^2 {hinge.r_squared:.3f}"
        )
    return Table(title, ("predicted contact (s)", "updates", "mean (s)", "mean kept share"), rows)


def _binned(
    points: NDArray[np.float64],
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield contact times and shares of each bin that holds any; all bins have the same ratio.

    Fast devices have many short contacts, slow ones few long ones: bins of equal number would
    leave the long contacts to one bin.
    """
    times_s = points[:, 0]
    edges_s = np.geomspace(times_s.min(), times_s.max(), _BINS + 1)
    places = np.clip(np.searchsorted(edges_s, times_s, side="right") - 1, 0, _BINS - 1)
    for place in np.unique(places).tolist():
        chosen = points[places == place]
        yield chosen[:, 0], chosen[:, 1]


def _cells(found: Collection) -> Iterator[_Cell]:
    grouped: dict[tuple[PointKey, str], list[FoundRun]] = {}
    for run in found.runs:
        if run.is_valid and run.experiment is not None:
            grouped.setdefault((run.point, run.variant), []).append(run)
    for (point, variant), runs in grouped.items():
        label = None if runs[0].experiment is None else method_label(runs[0].experiment)
        if label is not None:
            yield _Cell(variant, point, label, tuple(sorted(runs, key=lambda run: run.seed)))


def _lead_row(cell: _Cell, best: _Cell, *, higher_is_better: bool) -> tuple[Field, ...]:
    head = (
        Field(cell.variant),
        Field(_point(cell)),
        Field(f"{_mean(cell.finals.values()):.4f}"),
        Field(best.label),
        Field(f"{_mean(best.finals.values()):.4f}"),
    )
    paired = paired_difference(cell.finals, best.finals)
    if paired is None:
        return (*head, Field(NONE), Field("0", is_bad=True), Field("no pair"))
    difference = difference_result(paired, unpaired=paired.unpaired)
    text = interval(difference.mean, difference.low, difference.high, sign=True)
    said = verdict(difference, higher_is_better=higher_is_better)
    return (*head, Field(text), Field(str(difference.n)), Field(said))


def _use_row(cell: _Cell) -> tuple[Field, ...]:
    used = cell.contacts
    sums = {
        name: sum(getattr(use, name) for use in used)
        for name in ("used", "skipped", "sent", "acknowledged", "covered", "covered_acknowledged")
    }
    ratios = [
        use.mean_energy_j / use.allowance_j
        for use in used
        if use.mean_energy_j is not None and use.allowance_j is not None
    ]
    return (
        Field(cell.variant),
        Field(_point(cell)),
        Field(str(sums["used"])),
        Field(str(sums["skipped"])),
        Field(str(sums["sent"])),
        Field(_percent(sums["acknowledged"], sums["sent"])),
        Field(_percent(sums["covered_acknowledged"], sums["covered"])),
        _mean_field([use.mean_predicted_s for use in used], 2),
        _mean_field([use.mean_kept_share for use in used], 3),
        _mean_field([use.mean_energy_j for use in used], 3),
        Field(f"{max(ratios):.3f}" if ratios else NONE),
    )


def _shares(cell: _Cell) -> Iterator[tuple[float, float]]:
    for run in cell.runs:
        for upload in uploads(RunRecord.load(run.folder)):
            if upload.kept_share is not None:
                yield upload.predicted_s, upload.kept_share


def _higher_is_better(cell: _Cell) -> bool:
    summary = cell.runs[0].summary
    task = None if summary is None else next(iter(summary.tasks.values()), None)
    return task is None or task.higher_is_better


def _point(cell: _Cell) -> str:
    return point_name(dict(cell.point)) or NONE


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of {whole}" if whole else NONE


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_field(values: Sequence[float | None], digits: int) -> Field:
    known = [value for value in values if value is not None]
    return Field(f"{_mean(known):.{digits}f}" if known else NONE)


def main() -> None:
    """Write the tables of a sweep as Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sources", type=Path, nargs="+", help="folders of sweeps and of runs")
    try:
        tables = contact_tables(find_runs(parser.parse_args().sources))
    except FadelabError as error:
        sys.exit(str(error))
    sys.stdout.write("\n\n".join(markdown_table(table) for table in tables) + "\n")


if __name__ == "__main__":
    main()
