"""``fadelab compare``: runs and sweeps beside one another."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fadelab.compare.compute import compare as compute
from fadelab.compare.found import find_runs
from fadelab.compare.rows import Table, cost_table, main_table
from fadelab.compare.schema import Comparison
from fadelab.compare.write import write_comparison
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.sweep.record import FILE_NAME, read_record


def compare(
    sources: Annotated[list[Path], typer.Argument(help="Folders of sweeps and of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files. Default: that of the sweep, else ./compare"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="What to compare by; may be repeated: final (the default), best, mean, at:SECONDS, "
            "at_energy:JOULES, time_to:VALUE, bytes_to:VALUE, energy_to:VALUE, versions, and costs "
            "such as wire_up or energy."
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The variant that others are compared with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json.")] = False,
) -> None:
    """Compare variants by paired seeds, with 95 % confidence intervals.

    Example: fadelab compare sweeps/sweep-codecs --metric final --metric time_to:0.8
    """
    found = find_runs(sources)
    comparison = compute(
        found, title=_title(sources), metrics=metric or ["final"], baseline=baseline
    )
    folder = out if out is not None else _folder(sources)
    try:
        write_comparison(folder, comparison, found.runs)
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"--out {folder}: cannot write there: {error.strerror}"
        ) from None
    if as_json:
        typer.echo(comparison.model_dump_json(indent=2))
    else:
        _show(Console(), comparison, folder)


def _title(sources: list[Path]) -> str:
    names = [
        read_record(path).name if (path / FILE_NAME).exists() else path.absolute().name
        for path in sources
    ]
    return " and ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"


def _folder(sources: list[Path]) -> Path:
    is_sweep = len(sources) == 1 and (sources[0] / FILE_NAME).exists()
    return sources[0] if is_sweep else Path("compare")


def _show(console: Console, comparison: Comparison, folder: Path) -> None:
    for remark in comparison.remarks:
        console.print(Text(remark, style="yellow"))
    for key in comparison.main:
        _print(console, main_table(comparison, key))
    _print(console, cost_table(comparison, is_narrow=True))
    console.print(f"page: {folder / 'compare.html'}", markup=False, highlight=False, soft_wrap=True)


def _print(console: Console, table: Table) -> None:
    shown = RichTable(
        title=table.title, title_justify="left", box=None, header_style="dim", padding=(0, 1, 0, 0)
    )
    for heading in table.headings:
        # Words of headings stay whole; what does not fit is folded, never cut.
        longest = max(map(len, heading.split()), default=1)
        shown.add_column(Text(heading), overflow="fold", min_width=min(longest, 11))
    for row in table.rows:
        shown.add_row(*(Text(field.text, style="red" if field.is_bad else "") for field in row))
    console.print(shown)
