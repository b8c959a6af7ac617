"""Movement files of ns-2, as ``setdest``, SUMO's traceExporter and BonnMotion write them.

The ns Manual, chapter "Mobile networking in ns": nodes have initial places, and at given times are
sent to others with a given speed. They stand from arrival to the next order, and are always there.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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

_NODE = r"\$node_\(\s*(\w+)\s*\)"
_PLACE = re.compile(rf"\s*{_NODE}\s+set\s+([XYZ])_\s+(\S+?)\s*;?\s*")
_ORDER = re.compile(
    rf'\s*\$ns_?\s+at\s+(\S+)\s+"\s*{_NODE}\s+setdest\s+(\S+)\s+(\S+)\s+(\S+?)\s*"\s*;?\s*'
)
# Comments, and what setdest tells ns-2's own omniscient observer about numbers of hops.
_IGNORED = re.compile(r'\s*(#.*|\$god_\s.*|\$ns_?\s+at\s+\S+\s+"\$god_\s.*)?\s*', re.DOTALL)
_MOST_ORDERS = 5_000_000
# Slower, an arrival lies beyond what the clock can tell.
_SLOWEST_MPS = 1e-6


class Ns2Config(TraceConfig):
    """Devices that move as an ns-2 movement file says.

    Nodes stand where their last order took them for as long as the experiment lasts.
    """

    kind: Literal["ns2"] = "ns2"

    stays = True

    def sightings(self) -> Iterator[Sighting]:
        """Return every node's starts, turns and arrivals."""
        return _sightings(self.path)


@dataclass(frozen=True, slots=True)
class _Order:
    t_s: float
    x_m: float
    y_m: float
    speed_mps: float


@dataclass(slots=True)
class _Node:
    place_m: dict[str, float] = field(default_factory=dict)
    orders: list[_Order] = field(default_factory=list)


def _sightings(path: Path) -> Iterator[Sighting]:
    nodes = _read(path)
    corners = {name: _corners(node) for name, node in nodes.items()}
    end_s = max((turns[-1][0] for turns in corners.values()), default=0.0)
    for name, turns in corners.items():
        if turns[-1][0] < end_s:
            turns.append((end_s, *turns[-1][1:]))
        for number_of_turn, (t_s, x_m, y_m) in enumerate(turns):
            yield Sighting(t_s, name, x_m, y_m, joined=number_of_turn > 0)


def _read(path: Path) -> dict[str, _Node]:
    nodes: dict[str, _Node] = {}
    orders = 0
    for line_number, line in numbered_lines(path):
        try:
            orders += _understand(line, nodes)
        except ValueError as error:
            raise at_line(path, line_number, error) from None
        if orders > _MOST_ORDERS:
            problem = f"more than {_MOST_ORDERS} orders are not supported"
            raise at_line(path, line_number, problem)
    for name, node in nodes.items():
        for axis in "XY":
            if axis not in node.place_m:
                raise ValueError(f"{path}: node {name} is never given a place with 'set {axis}_'")
    return nodes


def _understand(line: str, nodes: dict[str, _Node]) -> bool:
    """Take in one line; return whether it is an order to move."""
    if place := _PLACE.fullmatch(line):
        name, axis, text = place.groups()
        node = nodes.setdefault(name, _Node())
        if axis in node.place_m:
            raise ValueError(f"{axis}_ of node {name} is set a second time")
        node.place_m[axis] = number(text, f"{axis}_ of node {name}")
        return False
    if match := _ORDER.fullmatch(line):
        t_text, name, x_text, y_text, speed_text = match.groups()
        order = _Order(
            number(t_text, f"the time for node {name}"),
            number(x_text, f"x for node {name}"),
            number(y_text, f"y for node {name}"),
            number(speed_text, f"the speed for node {name}"),
        )
        _give(order, name, nodes.setdefault(name, _Node()))
        return True
    if not _IGNORED.fullmatch(line):
        raise ValueError(
            f"{shown(line.strip())} is not understood; allowed are '$node_(0) set X_ 1.0' and "
            "'$ns_ at 2.0 \"$node_(0) setdest 3.0 4.0 5.0\"'"
        )
    return False


def _give(order: _Order, name: str, node: _Node) -> None:
    if order.t_s < 0:
        raise ValueError(f"the time for node {name} is {seconds(order.t_s)}; it must be at least 0")
    if order.speed_mps < 0 or 0 < order.speed_mps < _SLOWEST_MPS:
        raise ValueError(
            f"the speed for node {name} is {order.speed_mps:g} m/s; it must be 0 or at least "
            f"{_SLOWEST_MPS:g} m/s"
        )
    if node.orders and order.t_s <= node.orders[-1].t_s:
        last_s = node.orders[-1].t_s
        raise ValueError(
            f"node {name} gets a second order at {seconds(last_s)}"
            if order.t_s == last_s
            else f"the time of node {name} goes back from {seconds(last_s)} to {seconds(order.t_s)}"
        )
    node.orders.append(order)


def _corners(node: _Node) -> list[tuple[float, float, float]]:
    """Return where and when a node's motion changes: time, x and y, times increasing from 0."""
    corners = [(0.0, node.place_m["X"], node.place_m["Y"])]
    for number_of_order, order in enumerate(node.orders):
        t_s, x_m, y_m = corners[-1]
        if order.t_s > t_s:
            corners.append((order.t_s, x_m, y_m))
        following = node.orders[number_of_order + 1 :][:1]
        until_s = following[0].t_s if following else math.inf
        corners += _way(order, x_m, y_m, until_s)
    return corners


def _way(order: _Order, x_m: float, y_m: float, until_s: float) -> list[tuple[float, float, float]]:
    """Return the end of the way from ``(x_m, y_m)``: the goal, or where time is up before it."""
    length_m = math.hypot(order.x_m - x_m, order.y_m - y_m)
    if length_m == 0 or order.speed_mps == 0:
        return []
    arrival_s = order.t_s + length_m / order.speed_mps
    if arrival_s <= until_s:
        # So near that the clock cannot tell: not a move.
        return [(arrival_s, order.x_m, order.y_m)] if arrival_s > order.t_s else []
    part = (until_s - order.t_s) * order.speed_mps / length_m
    return [(until_s, x_m + part * (order.x_m - x_m), y_m + part * (order.y_m - y_m))]
