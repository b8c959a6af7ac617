"""Grid axes and variants: named sets of settings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from fadelab.sweep.file import Settings, SweepFile

METHOD_AXIS = "method"


@dataclass(frozen=True, slots=True)
class Point:
    """One value of an axis."""

    label: str
    settings: Settings
    value: JsonValue
    """As it stands in the file; the label of a point that the file names."""

    @property
    def number(self) -> float | None:
        """Where the point lies on a numeric axis; None if it is no number."""
        return _number(self.value)


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of the grid."""

    name: str
    points: tuple[Point, ...]


def axes_of(file: SweepFile) -> tuple[list[Axis], list[Point]]:
    """Return the grid's axes and the variants, at least one.

    Without variants of its own, a sweep over methods compares the methods.
    """
    axes = [Axis(name, _points(name, given)) for name, given in file.grid.items()]
    variants = [Point(name, settings, name) for name, settings in file.variants.items()]
    if not variants:
        methods = [axis for axis in axes if axis.name == METHOD_AXIS]
        axes = [axis for axis in axes if axis.name != METHOD_AXIS]
        variants = list(methods[0].points) if methods else [Point("base", {}, "base")]
    return axes, variants


def _points(name: str, given: Sequence[JsonValue] | dict[str, Settings]) -> tuple[Point, ...]:
    if isinstance(given, dict):
        return tuple(Point(label, settings, label) for label, settings in given.items())
    labels = [_label(value) for value in given]
    return tuple(
        # What would look alike is told apart by its place in the list.
        Point(label if labels.count(label) == 1 else f"{label}-{place}", {name: value}, value)
        for place, (label, value) in enumerate(zip(labels, given, strict=True), 1)
    )


def _label(value: JsonValue) -> str:
    """Return a short name of a value: sections are named by their name or kind."""
    if isinstance(value, dict):
        parts = [str(value[key]) for key in ("name", "kind") if key in value]
        return parts[0] if parts else "section"
    if isinstance(value, list):
        number = _number(value)
        return "-".join(_label(item) for item in value) if number is None else f"{number:g}"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return re.sub(r"\s+", " ", str(value)) or "empty"


def _number(value: JsonValue) -> float | None:
    """Return a value as a number; a range between equal ends is one, too."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return _number(value[0])
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except ValueError:
            return None
    return None
