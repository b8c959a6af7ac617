"""Numbers and names as a reader likes them."""

from collections.abc import Sequence

import numpy as np

NONE = "–"
"""Stands for a quantity that could not be measured."""


def number(
    value: float | None, unit: str = "", *, digits: int = 3, keep_zeros: bool = False
) -> str:
    """Write a number with thin thousands separators; a fraction with so many significant digits.

    Trailing zeros are kept for numbers that stand in a column.
    """
    if value is None:
        return NONE
    if isinstance(value, int) or value == 0 or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}".replace(",", "\u202f")
    else:
        text = f"{value:#.{digits}g}".rstrip(".")
        if not keep_zeros and "." in text and "e" not in text:
            text = text.rstrip("0").rstrip(".")
    return f"{text}\u202f{unit}" if unit else text


def byte_size(count: float) -> str:
    """Write a byte count with the decimal prefix that suits it (1 MB = 1 000 000 B)."""
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return number(count / size, f"{prefix}B", keep_zeros=True)
    return number(count, "B")


def share(part: float, whole: float) -> str:
    """Write a part as a percentage of the whole."""
    return number(100 * part / whole, "%") if whole else NONE


def plural(count: int, noun: str) -> str:
    """Write a count with its noun, whose plural takes an s."""
    return f"{number(count)} {noun}" + ("" if count == 1 else "s")


def short_name(name: str, length: int = 18) -> str:
    """Cut a name to fit beside an axis; control characters, which SVG forbids, become blanks."""
    clean = "".join(letter if letter.isprintable() else " " for letter in name)
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def spread(values: Sequence[float], unit: str) -> str:
    """Summarise a sample in words: its size, median, 95th percentile and largest value."""
    median, p95 = np.percentile(values, [50, 95])
    return (
        f"n = {number(len(values))}, median {number(median, unit)}, "
        f"p95 {number(p95, unit)}, max {number(max(values), unit)}"
    )
