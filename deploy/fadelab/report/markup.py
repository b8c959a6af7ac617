"""HTML in small pieces; whatever is not known to be HTML is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


class Markup(str):
    """Text that is HTML already. Any other string is escaped when it joins a page."""

    __slots__ = ()


def join(*parts: str) -> Markup:
    """Put pieces one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def tag(name: str, *children: str, **attributes: str) -> Markup:
    """Build one element; ``class_`` and ``data_key`` become ``class`` and ``data-key``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>\n")


def card(title: str, *body: str, caption: str = "") -> Markup:
    """Build one section of the page: a title, its content, and what the terms mean."""
    note = tag("p", caption, class_="caption") if caption else Markup()
    return tag("section", tag("h2", title), *body, note, class_="card")


def figure(title: str, value: str, remark: str = "", *, is_bad: bool = False) -> Markup:
    """Build one figure that stands for itself: what it is, its value, and a remark."""
    shown = tag("b", value, class_="bad") if is_bad else tag("b", value)
    return tag("div", tag("span", title), shown, tag("small", remark))


def empty(sentence: str) -> Markup:
    """Say in the place of a chart why there is none."""
    return tag("p", sentence, class_="empty")


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a table: a number to sort by if ``value`` is given, text otherwise."""

    text: str
    value: float | None = None
    is_bad: bool = False


def _row(cells: Sequence[Cell]) -> Markup:
    fields = []
    for cell in cells:
        classes = " ".join(["num"] * (cell.value is not None) + ["bad"] * cell.is_bad)
        attributes = {"class_": classes} if classes else {}
        if cell.value is not None:
            attributes["data_key"] = repr(float(cell.value))
        fields.append(tag("td", cell.text, **attributes))
    return tag("tr", *fields)


def _heading(text: str, rows: Sequence[Sequence[Cell]], column: int) -> Markup:
    """Build a heading that stands above its numbers, which are set to the right."""
    is_numeric = bool(rows) and all(row[column].value is not None for row in rows)
    attributes = {"class_": "num"} if is_numeric else {}
    return tag("th", tag("button", text, type="button"), **attributes)


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    foot: Sequence[Cell] | None = None,
    limit: int,
) -> Markup:
    """Build a table, sortable in place, of the first ``limit`` rows; it says how many are left."""
    head = tag("tr", *(_heading(text, rows, column) for column, text in enumerate(headings)))
    parts = [tag("thead", head), tag("tbody", *(_row(row) for row in rows[:limit]))]
    if foot is not None:
        parts.append(tag("tfoot", _row(foot)))
    left = len(rows) - limit
    more = tag("p", f"… and {left} more in summary.json", class_="caption") if left > 0 else ""
    return join(tag("div", tag("table", *parts), class_="scroll"), more)
