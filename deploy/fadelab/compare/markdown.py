"""``compare.md``: the tables for a document."""

from fadelab.compare.rows import Table, cost_table, main_table, run_table
from fadelab.compare.schema import Comparison
from fadelab.compare.tradeoff import tradeoff_table, tradeoffs

HOW_TO_READ = (
    "Means are over valid runs; intervals are Student's t. Differences are of runs with the same "
    "seed, which share data, initial model, mobility and channel. Where the interval holds 0 the "
    "question stays open. Each interval stands for itself: of many comparisons one in twenty misses by "
    "chance."
)
COSTS = (
    "Half the width of the 95 % interval stands behind ±. Wire bytes are layer-2 bytes of all devices "
    "by the kernel's interface counters, energy is by the papers' formulas from measured times, and "
    "staleness is that of the updates that were applied."
)


def write_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    parts = [f"# {comparison.title}", *(f"> {remark}" for remark in comparison.remarks)]
    parts += [markdown_table(main_table(comparison, key)) for key in comparison.main]
    parts += [
        markdown_table(tradeoff_table(comparison, key, cost)) for key, cost in tradeoffs(comparison)
    ]
    parts += [
        markdown_table(cost_table(comparison)),
        HOW_TO_READ,
        COSTS,
        markdown_table(run_table(comparison)),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table below its title."""
    lines = [
        f"## {table.title}",
        "",
        _row(table.headings),
        _row(["---"] * len(table.headings)),
        *(
            _row([f"**{field.text}**" if field.is_bad else field.text for field in row])
            for row in table.rows
        ),
    ]
    return "\n".join(lines)


def _row(fields: list[str] | tuple[str, ...]) -> str:
    clean = [" ".join(field.split()).replace("|", "\\|") for field in fields]
    return f"| {' | '.join(clean)} |"
