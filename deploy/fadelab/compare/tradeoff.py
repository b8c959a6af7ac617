"""What was learned against what it has cost: accuracy against energy."""

from collections.abc import Iterator

from fadelab.compare.learned import TASK_ENERGY
from fadelab.compare.measures import ENERGIES, is_quality
from fadelab.compare.rows import (
    Field,
    Table,
    difference_field,
    group_fields,
    group_headings,
    mean_field,
    sentence_case,
)
from fadelab.compare.schema import Comparison

ALSO = "energy_modelled"


def tradeoffs(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Yield pairs of measures: a quality that was asked for, and the energy that it is held against.

    None where there is but one variant, or no energy is known.
    """
    if len(comparison.variants) < 2:
        return
    for key in comparison.main:
        if not is_quality(key) or not _is_known(comparison, key):
            continue
        own = f"{comparison.measures[key].task}/{TASK_ENERGY}"
        known = [cost for cost in (own, *ENERGIES) if _is_known(comparison, cost)]
        if known:
            yield key, known[0]


def tradeoff_title(comparison: Comparison, key: str, cost: str) -> str:
    """Return what a pair of measures is called."""
    quality, energy = comparison.measures[key].title, comparison.measures[cost].title
    return sentence_case(f"{quality} against {energy}")


def tradeoff_table(comparison: Comparison, key: str, cost: str) -> Table:
    """Return means of a quality and of energies side by side, and differences to the baseline."""
    shown = [key, cost]
    # Of all tasks together, and so beside what is of all tasks too.
    if cost in ENERGIES and _is_known(comparison, ALSO):
        shown.append(ALSO)
    headings = [*group_headings(comparison)]
    for name in shown:
        info = comparison.measures[name]
        headings.append(f"{info.title} ({info.unit})" if info.unit else info.title)
    if comparison.baseline is not None:
        headings += [f"{comparison.measures[name].title}, difference" for name in (key, cost)]
    rows = []
    for group in comparison.groups:
        fields = [*group_fields(comparison, group)]
        results = [group.results[name] for name in shown]
        fields += [mean_field(result.mean, result.without) for result in results]
        if comparison.baseline is not None:
            is_baseline = group.variant == comparison.baseline
            fields += [
                Field("baseline", float("-inf"))
                if is_baseline
                else difference_field(group.results[name].difference)
                for name in (key, cost)
            ]
        rows.append(tuple(fields))
    return Table(tradeoff_title(comparison, key, cost), tuple(headings), tuple(rows))


def _is_known(comparison: Comparison, key: str) -> bool:
    return key in comparison.measures and any(
        group.results[key].mean is not None for group in comparison.groups
    )
