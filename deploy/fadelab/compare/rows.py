"""A comparison's tables: the same rows for terminal, Markdown and page."""

from collections.abc import Sequence
from dataclasses import dataclass

from fadelab.compare.schema import Comparison, DifferenceResult, Group, MeanResult, MeasureInfo
from fadelab.report.units import NONE, number, short_name

_DIGITS = 4
_COST_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a table."""

    text: str
    value: float | None = None
    """To sort by; None for text."""
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its title."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]


def point_name(point: dict[str, str]) -> str:
    """Return a grid point's name; empty without a grid."""
    return ", ".join(f"{axis.rpartition('.')[2]} {label}" for axis, label in point.items())


def sentence_case(title: str) -> str:
    """Begin a title with a capital letter; names in it stay as they are."""
    return title[:1].upper() + title[1:]


def interval(mean: float, low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Write a mean with its interval; without one if a single run tells of none."""
    text = _signed(mean) if sign else _plain(mean)
    if low is None or high is None:
        return text
    ends = (_signed(low), _signed(high)) if sign else (_plain(low), _plain(high))
    return f"{text} [{ends[0]}, {ends[1]}]"


def main_table(comparison: Comparison, key: str) -> Table:
    """Return the table of one measure: means, and differences to the baseline."""
    info = comparison.measures[key]
    unit = f" ({info.unit})" if info.unit else ""
    percent = f"{100 * comparison.confidence:g} % interval"
    headings = [*group_headings(comparison), "valid runs", f"mean{unit} [{percent}]"]
    if comparison.baseline is not None:
        headings += [f"less {short_name(comparison.baseline, 30)} [{percent}]", "pairs", "verdict"]
    rows = []
    for group in comparison.groups:
        result = group.results[key]
        fields = [*group_fields(comparison, group), _runs_field(group)]
        fields.append(mean_field(result.mean, result.without))
        if comparison.baseline is not None:
            is_baseline = group.variant == comparison.baseline
            fields += _difference_fields(result.difference, info, is_baseline=is_baseline)
        rows.append(tuple(fields))
    return Table(sentence_case(info.title), tuple(headings), tuple(rows))


def cost_table(comparison: Comparison, *, is_narrow: bool = False) -> Table:
    """Return the means of all other measures; narrow headings are the measures' names."""
    keys = [key for key in comparison.measures if key not in comparison.main]
    units = [comparison.measures[key].unit for key in keys]
    titles = keys if is_narrow else [comparison.measures[key].title for key in keys]
    headings = [
        f"{title} ({unit})" if unit else title for title, unit in zip(titles, units, strict=True)
    ]
    rows = []
    for group in comparison.groups:
        fields = list(group_fields(comparison, group))
        for key in keys:
            mean = group.results[key].mean
            if mean is None:
                fields.append(Field(NONE, float("-inf")))
                continue
            spread = "" if mean.high is None else f" ± {_short(mean.high - mean.mean)}"
            fields.append(Field(_short(mean.mean) + spread, mean.mean))
        rows.append(tuple(fields))
    return Table("Costs and circumstances", (*group_headings(comparison), *headings), tuple(rows))


def run_table(comparison: Comparison) -> Table:
    """Return every run, also those that do not count."""
    headings = (*group_headings(comparison), "seed", "state")
    titles = tuple(comparison.measures[key].title for key in comparison.main)
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            bad = run.state != "valid"
            values = [run.values[key] for key in comparison.main]
            rows.append(
                (
                    *group_fields(comparison, group),
                    Field(str(run.seed), float(run.seed)),
                    Field(run.state, is_bad=bad),
                    *(
                        Field(NONE, float("-inf"))
                        if value is None
                        else Field(_plain(value), value, bad)
                        for value in values
                    ),
                    Field("; ".join(run.reasons) if bad else run.folder),
                )
            )
    return Table("Every run", (*headings, *titles, "folder, or why it does not count"), tuple(rows))


def group_headings(comparison: Comparison) -> tuple[str, ...]:
    """Return the headings of the columns that say which group a row is of."""
    last = [axis.name.rpartition(".")[2] for axis in comparison.axes]
    return (
        "variant",
        *(
            axis.name if last.count(name) > 1 else name
            for axis, name in zip(comparison.axes, last, strict=True)
        ),
    )


def group_fields(comparison: Comparison, group: Group) -> tuple[Field, ...]:
    """Return a group's fields of these columns."""
    numbers = {
        (axis.name, label): value
        for axis in comparison.axes
        for label, value in zip(axis.labels, axis.numbers, strict=True)
    }
    labels = [group.point.get(axis.name) for axis in comparison.axes]
    return (
        Field(group.variant),
        *(
            Field(NONE) if label is None else Field(label, numbers[axis.name, label])
            for axis, label in zip(comparison.axes, labels, strict=True)
        ),
    )


def _runs_field(group: Group) -> Field:
    valid = sum(run.state == "valid" for run in group.runs)
    text = f"{valid}" if valid == len(group.runs) else f"{valid} of {len(group.runs)}"
    return Field(text, float(valid), valid < len(group.runs))


def mean_field(mean: MeanResult | None, without: Sequence[int]) -> Field:
    """Return a mean with its interval, and how many runs have none."""
    if mean is None:
        text = f"{NONE} (none of {len(without)} has it)" if without else NONE
        return Field(text, float("-inf"), bool(without))
    text = interval(mean.mean, mean.low, mean.high)
    if without:
        text += f" (of {mean.n}; {len(without)} never)"
    return Field(text, mean.mean, bool(without))


def _difference_fields(
    difference: DifferenceResult | None, info: MeasureInfo, *, is_baseline: bool
) -> list[Field]:
    if is_baseline:
        return [Field("baseline", float("-inf")), Field("", float("-inf")), Field("")]
    if difference is None:
        return [difference_field(None), Field("0", 0.0, is_bad=True), Field("no pair")]
    pairs = str(difference.n)
    if difference.unpaired:
        pairs += f" (without seed {', '.join(map(str, difference.unpaired))})"
    return [
        difference_field(difference),
        Field(pairs, float(difference.n), bool(difference.unpaired)),
        Field(verdict(difference, higher_is_better=info.higher_is_better)),
    ]


def difference_field(difference: DifferenceResult | None) -> Field:
    """Return a difference to the baseline with its interval."""
    if difference is None:
        return Field(NONE, float("-inf"))
    text = interval(difference.mean, difference.low, difference.high, sign=True)
    return Field(text, difference.mean)


def verdict(difference: DifferenceResult, *, higher_is_better: bool | None) -> str:
    """Say in words what an interval shows."""
    if difference.low is None or difference.high is None:
        return "one pair: no interval"
    if difference.low <= 0 <= difference.high:
        return "open"
    if higher_is_better is None:
        return "higher" if difference.low > 0 else "lower"
    return "better" if (difference.low > 0) == higher_is_better else "worse"


def _plain(value: float) -> str:
    return _minus(number(value, digits=_DIGITS, keep_zeros=True))


def _short(value: float) -> str:
    return _minus(number(value, digits=_COST_DIGITS, keep_zeros=True))


def _signed(value: float) -> str:
    return f"+{_plain(value)}" if value > 0 else _plain(value)


def _minus(text: str) -> str:
    """Write the sign of a negative number as wide as a plus."""
    return f"\u2212{text[1:]}" if text.startswith("-") else text
