"""Rates over time from a CSV table, in and out of Fadelab's own hands.

The first line names the columns, of which the first three are needed::

    t_s,rate_up_bps,rate_down_bps,delay_s,loss_up,loss_down,open
    0,5e6,10e6,0.02,0,0,1
    12.5,1e6,2e6,0.05,0.01,0.01,1
    20,0,0,0.05,0,0,0

Each line holds from its time on until the next one's. Rates are layer-2 rates, the delay is one-way
and the same in both directions, ``open`` is 0 or 1.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray, Lane, LinkTick, PacketLoss
from fadelab_emulation.timeline.link_source import LinkTerms, TraceTicks, refuse_power
from fadelab_emulation.timeline.trace_file import read_trace
from fadelab_proto.config import StrictModel

_ROUNDING_BITS = 0.1
_NEEDED = ("t_s", "rate_up_bps", "rate_down_bps")
_HIGHEST = {
    "t_s": 1e9,
    "rate_up_bps": 1e12,
    "rate_down_bps": 1e12,
    "delay_s": 60.0,
    "loss_up": 1.0,
    "loss_down": 1.0,
    "open": 1.0,
}
"""The columns, and the highest value of each; the lowest is 0."""


@dataclass(frozen=True, slots=True)
class RateSteps:
    """A table of link states; arrays have shape ``(steps,)``."""

    t_s: FloatArray
    """When each step begins: from 0 on, increasing."""
    columns: dict[str, FloatArray]
    """The other columns that the file has."""

    def at(self, column: str, t_s: float) -> float | None:
        """Return a column's value at a time; None where the file has no such column."""
        if column not in self.columns:
            return None
        step = int(np.searchsorted(self.t_s, t_s, side="right")) - 1
        return float(self.columns[column][step])


class _Integral:
    """The bits that a link may carry from 0 on, closed times none."""

    def __init__(self, steps: RateSteps, column: str, period_s: float | None) -> None:
        self._rate_bps = steps.columns[column] * steps.columns.get("open", 1.0)
        self._t_s = steps.t_s
        self._bits = np.append(0.0, np.cumsum(self._rate_bps[:-1] * np.diff(steps.t_s)))
        self._period_s = period_s

    def bits(self, t_s: float) -> float:
        """Return the bits up to a time."""
        if self._period_s is None:
            return self._in_round(t_s)
        rounds, rest_s = divmod(t_s, self._period_s)
        return rounds * self._in_round(self._period_s) + self._in_round(rest_s)

    def _in_round(self, t_s: float) -> float:
        step = int(np.searchsorted(self._t_s, t_s, side="right")) - 1
        return float(self._bits[step] + self._rate_bps[step] * (t_s - self._t_s[step]))


def load_rate_steps(path: Path) -> RateSteps:
    """Read a table.

    Raises:
        ValueError: the file cannot be read, or the line that is named does not fit.

    """
    try:
        text = read_trace(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the trace {path} is not text in UTF-8") from None
    lines = csv.reader(text.splitlines())
    names = [name.strip() for name in next(lines)]
    _check_names(path, names)
    rows: list[list[float]] = []
    for cells in lines:
        if not cells:
            continue
        row = _row(path, lines.line_num, names, cells)
        t_s = row[names.index("t_s")]
        if not rows and t_s != 0:
            raise ValueError(f"{path}, line {lines.line_num}: the first step must begin at 0 s")
        if rows and t_s <= rows[-1][names.index("t_s")]:
            raise ValueError(
                f"{path}, line {lines.line_num}: {t_s:g} s does not come after the step before"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has column names and no step")
    table = dict(zip(names, np.array(rows).T, strict=True))
    return RateSteps(t_s=table.pop("t_s"), columns=table)


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if name not in _HIGHEST:
            raise ValueError(
                f"{path}, line 1: {name!r} is no column; there are {', '.join(_HIGHEST)}"
            )
        if names.count(name) > 1:
            raise ValueError(f"{path}, line 1: the column {name} stands there twice")
    for name in _NEEDED:
        if name not in names:
            raise ValueError(f"{path}, line 1: the column {name} is missing")


def _row(path: Path, line: int, names: list[str], cells: list[str]) -> list[float]:
    if len(cells) != len(names):
        raise ValueError(f"{path}, line {line}: {len(cells)} values for {len(names)} columns")
    row = []
    for name, cell in zip(names, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            raise ValueError(f"{path}, line {line}: {name} is {cell!r}, not a number") from None
        if not 0 <= value <= _HIGHEST[name] or (name == "open" and value not in {0, 1}):
            raise ValueError(
                f"{path}, line {line}: {name} is {cell.strip()}, it must be "
                + ("0 or 1" if name == "open" else f"between 0 and {_HIGHEST[name]:g}")
            )
        row.append(value)
    return row


class CsvConfig(StrictModel):
    """A table of rates over time instead of the radio models, the same for every device."""

    kind: Literal["csv"] = "csv"
    path: Path = Field(
        description="CSV file with t_s, rate_up_bps, rate_down_bps and, if wanted, delay_s, "
        "loss_up, loss_down, open."
    )
    period_s: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Repeat the table after this time; left out: its last line holds on.",
    )

    def build(self, terms: LinkTerms) -> "RateStepLinks":
        """Return the timeline.

        Raises:
            ValueError: the table cannot be read, does not fit the period, or gives a delay that is
                too short for the jitter.

        """
        steps = load_rate_steps(self.path)
        if self.period_s is not None and self.period_s <= steps.t_s[-1]:
            raise ValueError(
                f"{self.path} cannot be repeated every {self.period_s:g} s: its last step begins "
                f"at {steps.t_s[-1]:g} s"
            )
        jitter_s = max(terms.jitter_up_s, terms.jitter_down_s)
        if "delay_s" in steps.columns and 3 * jitter_s > steps.columns["delay_s"].min():
            raise ValueError(
                f"{self.path} has a delay of {steps.columns['delay_s'].min():g} s, but a jitter of "
                f"{jitter_s:g} s needs at least three times as much"
            )
        return RateStepLinks(terms, steps, self.period_s)


class RateStepLinks:
    """Links that follow a table of rates.

    A tick's rate is the mean over the tick, so that no bit is lost where a step falls inside one;
    a tick in which no bit passes in either direction is closed. Delay and loss are those of the
    tick's beginning.
    """

    def __init__(self, terms: LinkTerms, steps: RateSteps, period_s: float | None) -> None:
        self._ticks = TraceTicks(terms)
        self._devices = terms.devices
        self._tick_s = terms.tick_s
        self._steps = steps
        self._period_s = period_s
        self._up = _Integral(steps, "rate_up_bps", period_s)
        self._down = _Integral(steps, "rate_down_bps", period_s)
        self._index = 0

    def step(self) -> LinkTick:
        """Return the next tick."""
        index = self._index
        self._index += 1
        tick = self._ticks.tick(
            index, self._rate_bps(self._up, index), self._rate_bps(self._down, index)
        )
        t_s = self._edge_s(index)
        if self._period_s is not None:
            t_s %= self._period_s
        delay_s = self._steps.at("delay_s", t_s)
        if delay_s is not None:
            delays_s = np.full(self._devices, delay_s)
            tick = replace(tick, delay_up_s=delays_s, delay_down_s=delays_s)
        return replace(
            tick,
            up=_with_loss(tick.up, self._steps.at("loss_up", t_s)),
            down=_with_loss(tick.down, self._steps.at("loss_down", t_s)),
        )

    def _rate_bps(self, integral: _Integral, index: int) -> FloatArray:
        bits = integral.bits(self._edge_s(index + 1)) - integral.bits(self._edge_s(index))
        # Large sums differ in their last digits; a closed link must not open for them.
        rate_bps = 0.0 if bits < _ROUNDING_BITS else bits / self._tick_s
        return np.full(self._devices, rate_bps)

    def _edge_s(self, index: int) -> float:
        # Whole microseconds: the product may lie a little beside the time that the table names.
        return round(index * self._tick_s, 6)

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Raise ValueError: a table cannot be changed by a power."""
        refuse_power(device, power_w, "a table of rates")


def _with_loss(lanes: tuple[Lane, ...], probability: float | None) -> tuple[Lane, ...]:
    """Give the default class's lane a loss of its own, unless the table has none."""
    if probability is None:
        return lanes
    default, *others = lanes
    loss = PacketLoss.independent(np.full(len(default.rate_bps), probability))
    return replace(default, loss=loss), *others
