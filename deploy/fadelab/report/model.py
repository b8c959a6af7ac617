"""What a report is drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fadelab.experiment import ValidityConfig
from fadelab.results.period_schema import BoundPoint
from fadelab.results.schema import DeviceResult, Summary
from fadelab.results.stages import Stage
from fadelab.results.throughput import Throughput

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

NAMED_DEVICES = 32
"""With more devices than these, there is no room for every name: charts aggregate."""


class Band(NamedTuple):
    """The range that a ratio must lie in, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """The recorded link schedule as plain arrays, of shape ``(ticks, devices)`` unless noted.

    Raises ``ValueError`` if the shapes disagree.
    """

    device_ids: tuple[str, ...]
    """Which device each column belongs to."""
    t_s: FloatArray
    """Emulated seconds of each tick, shape ``(ticks,)``."""
    x_m: FloatArray
    y_m: FloatArray
    rate_up_bps: FloatArray
    rate_down_bps: FloatArray
    is_open: BoolArray
    sites_m: FloatArray
    """Places of the base stations, shape ``(sites, 2)``; none where they are not known."""
    radius_m: float | None
    """Coverage radius; None where contact is not decided by distance."""
    area_m: tuple[float, float] | None
    """Width and height of the area, whose lower left corner is the origin; None if unbounded."""

    @property
    def has_places(self) -> bool:
        """Whether the devices are anywhere: an imported trace says nothing of it."""
        return len(self.sites_m) > 0 or bool(self.x_m.any() or self.y_m.any())

    def __post_init__(self) -> None:
        expected = (len(self.t_s), len(self.device_ids))
        for name in ("x_m", "y_m", "rate_up_bps", "rate_down_bps", "is_open"):
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(f"{name} has shape {shape}, not (ticks, devices) = {expected}.")


@dataclass(frozen=True, slots=True)
class PeriodTimeline:
    """What only the report tells of local periods; nothing where devices report none."""

    stages: Sequence[Stage] = ()
    bounds: Mapping[str, Sequence[BoundPoint]] = field(default_factory=dict)
    """The convergence bound of every task after its aggregations."""


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that one report shows."""

    summary: Summary
    manifest: Mapping[str, object]
    schedule: ScheduleView
    throughput: Throughput | None
    """None if no readings of the links were recorded."""
    bounds: ValidityConfig
    """What the run was judged by."""
    timeline: PeriodTimeline = PeriodTimeline()

    @property
    def ratio_band(self) -> Band:
        """Where achieved / programmed bytes of a saturated link must lie for a valid run."""
        return Band(*self.bounds.rate_ratio)

    @property
    def devices(self) -> dict[str, DeviceResult]:
        """The devices' results by device id, in the summary's order."""
        return self.summary.devices

    @property
    def shows_names(self) -> bool:
        """Whether there is room for every device's name on an axis; if not, charts aggregate."""
        return len(self.devices) <= NAMED_DEVICES
