"""Write ``report.html``."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fadelab.report.bound import bound
from fadelab.report.coverage import field_map, timeline
from fadelab.report.devices import device_table, manifest
from fadelab.report.energy import energy_table
from fadelab.report.fidelity import fidelity
from fadelab.report.learning import learning
from fadelab.report.ledger import ledger
from fadelab.report.markup import Markup, tag
from fadelab.report.model import Run
from fadelab.report.overview import heading, key_figures, marks, verdict
from fadelab.report.periods import periods
from fadelab.report.proof import proof
from fadelab.report.rounds import round_plans
from fadelab.report.sp_fl import sp_fl
from fadelab.report.stages import stages
from fadelab.report.staleness import staleness
from fadelab.report.throughput import throughput
from fadelab.report.timing import resume, start_up
from fadelab.report.twin import twin

_SECTIONS = (
    heading,
    verdict,
    marks,
    key_figures,
    learning,
    stages,
    periods,
    bound,
    round_plans,
    timeline,
    field_map,
    sp_fl,
    proof,
    fidelity,
    throughput,
    twin,
    staleness,
    ledger,
    resume,
    start_up,
    device_table,
    energy_table,
    manifest,
)


def write_report(path: Path, run: Run) -> None:
    """Write one self-contained HTML page: no network, no external script, style or font.

    The same input gives the same bytes. Raises ``OSError`` if ``path`` cannot be written.
    """
    path.write_text(build_page(run), encoding="utf-8")


def build_page(run: Run) -> str:
    """Return the page's HTML."""
    title = f"{run.summary.name} · Fadelab"
    return build_document(title, [section(run) for section in _SECTIONS])


def build_document(title: str, sections: Sequence[str]) -> str:
    """Return a self-contained page in the report's style with sortable tables."""
    here = files("fadelab.report")
    style = Markup((here / "report.css").read_text(encoding="utf-8"))
    script = Markup((here / "report.js").read_text(encoding="utf-8"))
    head = tag(
        "head",
        Markup('<meta charset="utf-8">\n'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        tag("title", title),
        tag("style", style),
    )
    main = tag("main", *sections)
    return "<!doctype html>\n" + tag(
        "html", head, tag("body", main, tag("script", script)), lang="en"
    )
