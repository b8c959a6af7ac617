"""``compare.html``: the whole comparison on one self-contained page."""

from collections.abc import Sequence

from fadelab.compare.charts import (
    axis_chart,
    curves_chart,
    differences_chart,
    has_differences,
    tradeoff_chart,
)
from fadelab.compare.curves import curves_of
from fadelab.compare.found import FoundRun
from fadelab.compare.markdown import COSTS, HOW_TO_READ
from fadelab.compare.rows import Table, cost_table, main_table, run_table, sentence_case
from fadelab.compare.schema import Comparison
from fadelab.compare.tradeoff import tradeoff_table, tradeoffs
from fadelab.report.markup import Cell, Markup, card, join, table, tag
from fadelab.report.units import plural
from fadelab.report.write import build_document

_ROWS = 500


def build_comparison(comparison: Comparison, runs: Sequence[FoundRun]) -> str:
    """Return the page's HTML: no network, no external script, style or font.

    Args:
        comparison: what is shown.
        runs: those that it was made from, for their curves.

    """
    tasks = dict.fromkeys(info.task for info in comparison.measures.values() if info.task)
    sections = [
        _heading(comparison),
        _remarks(comparison),
        *(_main(number, comparison, key) for number, key in enumerate(comparison.main)),
        *(_curves(number, comparison, task, runs) for number, task in enumerate(tasks)),
        *_axes(comparison),
        *_tradeoffs(comparison),
        card("Costs and circumstances", _table(cost_table(comparison)), caption=COSTS),
        card("Every run", _table(run_table(comparison)), caption=_RUNS),
    ]
    return build_document(f"{comparison.title} · Fadelab", sections)


_RUNS = "Marked: runs that count nowhere, with the reason. Click a heading to sort."


def _heading(comparison: Comparison) -> Markup:
    states = [run.state for group in comparison.groups for run in group.runs]
    points = len({tuple(group.point.items()) for group in comparison.groups})
    facts = [
        "Fadelab comparison",
        plural(len(comparison.variants), "variant"),
        plural(points, "grid point"),
        f"{plural(states.count('valid'), 'valid run')} of {len(states)}",
    ]
    if comparison.baseline is not None:
        facts.append(f"baseline {comparison.baseline}")
    return tag("header", tag("h1", comparison.title), tag("p", " · ".join(facts)))


def _remarks(comparison: Comparison) -> Markup:
    if not comparison.remarks:
        text = "Every run that was planned is there and valid."
        return tag("div", tag("strong", "COMPLETE"), tag("p", text), class_="verdict ok")
    return tag(
        "div",
        tag("strong", "To be read with care"),
        tag("ul", *(tag("li", remark) for remark in comparison.remarks)),
        class_="verdict mark",
        role="alert",
    )


def _main(number: int, comparison: Comparison, key: str) -> Markup:
    content = main_table(comparison, key)
    body = [_table(content)]
    left = 0
    if has_differences(comparison, key):
        picture, left = differences_chart(number, comparison, key)
        body.append(picture)
    more = f" {left} more differences are in the table alone." if left else ""
    return card(content.title, *body, caption=HOW_TO_READ + more)


def _curves(number: int, comparison: Comparison, task: str, runs: Sequence[FoundRun]) -> Markup:
    curves = curves_of(task, comparison, runs)
    if curves is None:
        return Markup()
    picture, left = curves_chart(number, comparison, curves)
    band = (
        "the 95 % interval of the mean, each moment for itself"
        if curves.are_intervals
        else "the range of the runs, which are too few for intervals of every moment"
    )
    more = f" {left} more grid points are not drawn." if left else ""
    return card(
        f"Learning: {task}",
        picture,
        caption=f"Mean over valid runs of the newest published version's {curves.metric}; the band "
        f"is {band}. Curves end where the shortest run of a group does.{more}",
    )


def _axes(comparison: Comparison) -> list[Markup]:
    """Draw every main measure against every axis that has more than one point."""
    axes = [axis.name for axis in comparison.axes if len(axis.labels) > 1]
    cards: list[Markup] = []
    for key in comparison.main:
        if not any(group.results[key].mean is not None for group in comparison.groups):
            continue
        for name in axes:
            picture = axis_chart(len(cards), comparison, key, name)
            title = f"{comparison.measures[key].title} against {name}"
            caption = (
                "Means over valid runs with their 95 % intervals; no interval from one run. At each "
                "point of the axis variants stand side by side."
            )
            cards.append(card(sentence_case(title), picture, caption=caption))
    return cards


def _tradeoffs(comparison: Comparison) -> list[Markup]:
    """Draw and list what was learned against its energy."""
    cards = []
    for number, (key, cost) in enumerate(tradeoffs(comparison)):
        content = tradeoff_table(comparison, key, cost)
        picture = tradeoff_chart(number, comparison, key, cost)
        caption = (
            "One point for each variant: means over valid runs, with their 95 % intervals in both "
            "directions; no interval from one run. Differences are of runs with the same seed."
        )
        cards.append(card(content.title, picture, _table(content), caption=caption))
    return cards


def _table(content: Table) -> Markup:
    rows = [[Cell(field.text, field.value, field.is_bad) for field in row] for row in content.rows]
    return join(table(content.headings, rows, limit=_ROWS))
