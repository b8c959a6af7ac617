"""Traces as comma-separated tables with the columns t_s, device, x_m and y_m."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fadelab_emulation.mobility.traces.base import TraceConfig
from fadelab_emulation.mobility.traces.reading import (
    Sighting,
    at_line,
    number,
    numbered_lines,
    seconds,
    shown,
)

_COLUMNS = ("t_s", "device", "x_m", "y_m")
_MOST_VEHICLES = 1_000_000


class CsvConfig(TraceConfig):
    """Devices that move as a CSV file says.

    The first line names the columns ``t_s``, ``device``, ``x_m`` and ``y_m``, in any order and
    among others. Rows may be sorted by time or by device; each device's times must increase. From
    its first row to its last a device is present, and goes straight from place to place.
    """

    kind: Literal["csv"] = "csv"

    def sightings(self) -> Iterator[Sighting]:
        """Return the rows."""
        return _sightings(self.path)


def _sightings(path: Path) -> Iterator[Sighting]:
    table: _Table | None = None
    for line_number, line in numbered_lines(path):
        try:
            if table is None:
                table = _Table(_fields(line))
                continue
            sighting = table.row(_fields(line)) if line.strip() else None
        except ValueError as error:
            raise at_line(path, line_number, error) from None
        if sighting is not None:
            yield sighting


class _Table:
    """The rows under one header."""

    def __init__(self, names: list[str]) -> None:
        self._width = len(names)
        self._columns = [_column(name, names) for name in _COLUMNS]
        self._last_s: dict[str, float] = {}

    def row(self, fields: list[str]) -> Sighting:
        if len(fields) != self._width:
            raise ValueError(f"it has {len(fields)} fields, but the header has {self._width}")
        t_text, vehicle, x_text, y_text = (fields[column] for column in self._columns)
        if not vehicle:
            raise ValueError("the device has no name")
        t_s, x_m, y_m = number(t_text, "t_s"), number(x_text, "x_m"), number(y_text, "y_m")
        last_s = self._last_s.get(vehicle)
        if last_s is None and len(self._last_s) == _MOST_VEHICLES:
            raise ValueError(f"more than {_MOST_VEHICLES} devices are not supported")
        if last_s is not None and t_s <= last_s:
            raise ValueError(
                f"device {shown(vehicle)} has a second place at {seconds(t_s)}"
                if t_s == last_s
                else f"the time of device {shown(vehicle)} goes back from {seconds(last_s)} to "
                f"{seconds(t_s)}"
            )
        self._last_s[vehicle] = t_s
        return Sighting(t_s, vehicle, x_m, y_m, joined=last_s is not None)


def _fields(line: str) -> list[str]:
    try:
        rows = list(csv.reader([line], strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"it is not CSV ({error})") from None
    return [field.strip() for field in rows[0]] if rows else []


def _column(name: str, names: list[str]) -> int:
    if names.count(name) != 1:
        found = "it is missing" if name not in names else "it stands there more than once"
        raise ValueError(
            f"the header must name the column {name} once, but {found}: {shown(','.join(names))}"
        )
    return names.index(name)
