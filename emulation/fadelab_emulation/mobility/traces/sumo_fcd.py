"""Floating-car data of the traffic simulator SUMO (option ``--fcd-output``).

Format: https://sumo.dlr.de/docs/Simulation/Output/FCDOutput.html. Used are the time of each
``timestep`` and the id, x and y of each ``vehicle`` in it; velocities follow from the places.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

from fadelab_emulation.mobility.traces.base import TraceConfig
from fadelab_emulation.mobility.traces.reading import (
    Sighting,
    at_line,
    number,
    opened,
    seconds,
    shown,
)

_CHUNK_BYTES = 64 * 1024
_LONGEST_TAG_BYTES = 1024 * 1024
_DEEPEST = 16


class SumoFcdConfig(TraceConfig):
    """Devices that move as vehicles do in SUMO's floating-car data.

    A vehicle goes straight from one time step to the next. It is absent, and not underway, between
    two time steps if it is missing from one in between (SUMO takes it off the road to park or to
    teleport it). Places must be in metres: not ``--fcd-output.geo``.
    """

    kind: Literal["sumo_fcd"] = "sumo_fcd"

    def sightings(self) -> Iterator[Sighting]:
        """Return every vehicle of every time step."""
        return _sightings(self.path)


def _sightings(path: Path) -> Iterator[Sighting]:
    reader = _Reader(path)
    with opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield from reader.feed(chunk)
    yield from reader.feed(b"")


class _Reader:
    """Turns XML, as it comes in, into sightings; holds nothing but the latest time steps.

    Expat itself rather than an element tree: no tree has to be kept small, every sentence can name
    its line, and a document type is refused before any of its entities is read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._xml = ParserCreate("UTF-8")
        self._xml.StartElementHandler = self._begin
        self._xml.EndElementHandler = self._end
        self._xml.StartDoctypeDeclHandler = self._refuse_document_type
        self._fed_bytes = 0
        self._depth = 0
        self._t_s: float | None = None
        self._here: set[str] = set()
        self._before: set[str] = set()
        self._found: list[Sighting] = []

    def feed(self, chunk: bytes) -> list[Sighting]:
        """Return the sightings that a chunk completes; an empty one ends the file."""
        self._found = []
        self._fed_bytes += len(chunk)
        try:
            self._xml.Parse(chunk, not chunk)
        except ExpatError as error:
            text = f"it is not well-formed XML ({ErrorString(error.code)})"
            raise at_line(self._path, error.lineno, text) from None
        except ValueError as error:
            raise at_line(self._path, self._xml.CurrentLineNumber, error) from None
        if chunk and self._fed_bytes - self._xml.CurrentByteIndex > _LONGEST_TAG_BYTES:
            problem = f"a tag is longer than {_LONGEST_TAG_BYTES} bytes"
            raise at_line(self._path, self._xml.CurrentLineNumber, problem)
        return self._found

    def _refuse_document_type(self, *_: object) -> None:
        raise ValueError(
            "it has a document type declaration, which is not allowed: floating-car data needs "
            "none, and its entities could grow without bound"
        )

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth == 0 and name != "fcd-export":
            raise ValueError(
                f"it begins with the tag {shown(name)}; floating-car data begins with 'fcd-export'"
            )
        if self._depth == _DEEPEST:
            raise ValueError(f"tags are nested more than {_DEEPEST} deep")
        if name == "timestep":
            self._begin_timestep(attributes)
        elif name == "vehicle":
            self._see(attributes)
        self._depth += 1

    def _end(self, name: str) -> None:
        del name
        self._depth -= 1

    def _begin_timestep(self, attributes: dict[str, str]) -> None:
        if self._depth != 1:
            raise ValueError("a timestep must stand directly in fcd-export")
        if "time" not in attributes:
            raise ValueError("the timestep has no time")
        t_s = number(attributes["time"], "the time")
        if self._t_s is not None and t_s <= self._t_s:
            raise ValueError(
                f"there is a second timestep at {seconds(t_s)}"
                if t_s == self._t_s
                else f"the time goes back from {seconds(self._t_s)} to {seconds(t_s)}"
            )
        self._t_s = t_s
        self._before, self._here = self._here, set()

    def _see(self, attributes: dict[str, str]) -> None:
        if self._depth != 2 or self._t_s is None:
            raise ValueError("a vehicle must stand directly in a timestep")
        vehicle = attributes.get("id")
        if vehicle is None:
            raise ValueError(f"a vehicle at {seconds(self._t_s)} has no id")
        if vehicle in self._here:
            raise ValueError(f"vehicle {shown(vehicle)} has a second place at {seconds(self._t_s)}")
        try:
            x_m, y_m = (_coordinate(attributes, axis) for axis in ("x", "y"))
        except ValueError as error:
            subject = f"vehicle {shown(vehicle)} at {seconds(self._t_s)}"
            raise ValueError(f"{subject}: {error}") from None
        self._here.add(vehicle)
        self._found.append(Sighting(self._t_s, vehicle, x_m, y_m, vehicle in self._before))


def _coordinate(attributes: dict[str, str], axis: str) -> float:
    if axis not in attributes:
        raise ValueError(f"it has no {axis}")
    return number(attributes[axis], axis)
