"""Streets of a city as 3GPP sees them: UMi (street canyon) and UMa (macro cell) of TR 38.901.

3GPP TR 38.901 V17.0.0: path loss and shadowing of table 7.4.1-1, probability of line of sight of
table 7.4.2-1, for devices out of doors.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.propagation.base import ChannelDraw, MeanLoss, PathLossConfig
from fadelab_emulation.propagation.correlated import CorrelatedNormal
from fadelab_emulation.propagation.line_of_sight import (
    LINE_OF_SIGHT_CORRELATION_M,
    LineOfSight,
    LineOfSightChoice,
)
from fadelab_emulation.scene import Geometry, Scene

LEAST_GROUND_DISTANCE_M = 10.0
"""The table begins here; nearer devices are taken to be this far."""
MOST_GROUND_DISTANCE_M = 5000.0
_BREAK_POINT_SPEED_MPS = 3.0e8  # "the propagation velocity in free space" in the table's note 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario's rows of the tables. Slopes are dB per decade of distance."""

    name: str
    site_height_m: float
    sight_decay_m: float
    """Decay of the probability of line of sight."""
    sight_db: float
    sight_slope_db: float
    break_db: float
    """Factor of the break point's logarithm beyond it."""
    blocked_db: float
    blocked_slope_db: float
    blocked_carrier_db: float
    """Loss per decade of carrier frequency without line of sight; with it, it is 20 dB."""
    blocked_height_db: float
    """Gain per metre of device height above 1.5 m without line of sight."""
    sight_shadowing_db: float
    blocked_shadowing_db: float
    above_roofs: bool
    """Whether high devices see over the roofs nearby."""


UMI = Scenario(
    name="UMi",
    site_height_m=10.0,
    sight_decay_m=36.0,
    sight_db=32.4,
    sight_slope_db=21.0,
    break_db=9.5,
    blocked_db=22.4,
    blocked_slope_db=35.3,
    blocked_carrier_db=21.3,
    blocked_height_db=0.3,
    sight_shadowing_db=4.0,
    blocked_shadowing_db=7.82,
    above_roofs=False,
)
UMA = Scenario(
    name="UMa",
    site_height_m=25.0,
    sight_decay_m=63.0,
    sight_db=28.0,
    sight_slope_db=22.0,
    break_db=9.0,
    blocked_db=13.54,
    blocked_slope_db=39.08,
    blocked_carrier_db=20.0,
    blocked_height_db=0.6,
    sight_shadowing_db=4.0,
    blocked_shadowing_db=6.0,
    above_roofs=True,
)


class _Tr38901Config(PathLossConfig):
    """The settings that both scenarios share."""

    line_of_sight: LineOfSightChoice = Field(
        default="random",
        description="random: by the standard's probability over distance; or every link alike.",
    )


class Tr38901UmiConfig(_Tr38901Config):
    """Street canyon: base stations at 10 m, below the roofs (3GPP TR 38.901, UMi)."""

    kind: Literal["tr38901_umi"] = "tr38901_umi"

    def build(self, scene: Scene) -> "Tr38901":
        """Return the model; ValueError for a scene that the standard does not cover."""
        return Tr38901(UMI, self.line_of_sight, scene)


class Tr38901UmaConfig(_Tr38901Config):
    """Macro cell: base stations at 25 m, above the roofs (3GPP TR 38.901, UMa)."""

    kind: Literal["tr38901_uma"] = "tr38901_uma"

    def build(self, scene: Scene) -> "Tr38901":
        """Return the model; ValueError for a scene that the standard does not cover."""
        return Tr38901(UMA, self.line_of_sight, scene)


class Tr38901:
    """Path loss of one scenario, with or without line of sight link by link."""

    def __init__(self, scenario: Scenario, choice: LineOfSightChoice, scene: Scene) -> None:
        _check_covered(scenario, scene)
        self._scenario = scenario
        self._site_height_m = scene.site_height_m
        self._device_height_m = scene.device_height_m
        self._carrier_ghz = scene.carrier_hz / 1e9
        self._line_of_sight = LineOfSight(choice, scene)
        self._roofs = _Roofs(scene) if scenario.above_roofs and scene.device_height_m > 13 else None

    def advance(self, geometry: Geometry, motion: Motion) -> MeanLoss:
        """Return loss and shadowing's deviation, shape ``(devices, sites)``."""
        table = self._scenario
        ground_m = np.maximum(geometry.horizontal_m, LEAST_GROUND_DISTANCE_M)
        probability = sight_probability(ground_m, table.sight_decay_m)
        environment_m: FloatArray | float = 1.0
        if self._roofs is not None:
            over_roofs = roof_sight(ground_m, self._device_height_m)
            probability *= 1 + over_roofs
            environment_m = self._roofs.environment_m(over_roofs, motion.travelled_m)
        in_sight = self._line_of_sight.advance(probability, motion.travelled_m)
        sight_db, blocked_db = self._losses_db(ground_m, environment_m)
        return MeanLoss(
            np.where(in_sight, sight_db, blocked_db),
            np.where(in_sight, table.sight_shadowing_db, table.blocked_shadowing_db),
        )

    def _losses_db(
        self, ground_m: FloatArray, environment_m: FloatArray | float
    ) -> tuple[FloatArray, FloatArray]:
        """Return the losses with and without line of sight.

        ``environment_m`` is the effective height of what surrounds the device, above which both
        antennas' heights count for the break point.
        """
        table = self._scenario
        rise_m = self._site_height_m - self._device_height_m
        log_distance = 0.5 * np.log10(ground_m**2 + rise_m**2)
        heights_m2 = (self._site_height_m - environment_m) * (self._device_height_m - environment_m)
        break_m = 4 * heights_m2 * (self._carrier_ghz * 1e9) / _BREAK_POINT_SPEED_MPS
        log_carrier = math.log10(self._carrier_ghz)
        # The two lines cross at the break point, the steeper one above the other beyond it.
        near_db = table.sight_slope_db * log_distance
        far_db = 40 * log_distance - table.break_db * np.log10(break_m**2 + rise_m**2)
        sight_db = table.sight_db + 20 * log_carrier + np.maximum(near_db, far_db)
        blocked_db = (
            table.blocked_db
            + table.blocked_slope_db * log_distance
            + table.blocked_carrier_db * log_carrier
            - table.blocked_height_db * (self._device_height_m - 1.5)
        )
        return sight_db, np.maximum(sight_db, blocked_db)


def sight_probability(ground_m: FloatArray, decay_m: float) -> FloatArray:
    """Return the probability of line of sight out of doors at devices below the roofs.

    ``18/d + exp(-d/decay) (1 - 18/d)``, 1 within 18 m; any shape (3GPP TR 38.901, table 7.4.2-1).
    """
    near = 18.0 / np.maximum(ground_m, 18.0)
    probability: FloatArray = near + np.exp(-ground_m / decay_m) * (1 - near)
    return probability


def roof_sight(ground_m: FloatArray, device_height_m: float) -> FloatArray:
    """Return ``C(d, h)`` of UMa: by which part sight is likelier for devices above 13 m.

    ``((h - 13) / 10)^1.5 * 5/4 (d / 100)^3 exp(-d / 150)`` beyond 18 m, any shape (3GPP TR 38.901,
    table 7.4.2-1).
    """
    hundreds = ground_m / 100
    rise = 1.25 * hundreds * hundreds * hundreds * np.exp(-ground_m / 150)
    return np.where(ground_m <= 18, 0.0, ((device_height_m - 13) / 10) ** 1.5 * rise)


class _Roofs:
    """Roofs that the signal meets below a high device."""

    def __init__(self, scene: Scene) -> None:
        # scipy takes a while to import, which runs with other models need not wait for.
        from scipy import special  # noqa: PLC0415

        self._normal_cdf = special.ndtr
        self._heights_m = np.arange(12.0, scene.device_height_m - 1.5 + 1e-9, 3.0)
        self._normal = CorrelatedNormal(
            scene, LINE_OF_SIGHT_CORRELATION_M, ChannelDraw.LINE_OF_SIGHT, 1
        )

    def environment_m(self, over_roofs: FloatArray, travelled_m: FloatArray) -> FloatArray:
        """Return the effective environment height (note 1 of table 7.4.1-1).

        1 m with probability ``1 / (1 + C)``, else any of 12 m, 15 m, ... up to 1.5 m below the
        device, all alike.
        """
        uniform = self._normal_cdf(self._normal.advance(travelled_m))
        street = 1 / (1 + over_roofs)
        choices = len(self._heights_m)
        if choices == 0:
            return np.ones_like(uniform)
        above = np.divide(
            uniform - street, 1 - street, out=np.zeros_like(uniform), where=uniform >= street
        )
        roof = np.minimum((above * choices).astype(np.int64), choices - 1)
        return np.where(uniform < street, 1.0, self._heights_m[roof])


def _check_covered(scenario: Scenario, scene: Scene) -> None:
    """Raise ValueError for a scene outside the standard's ranges."""
    model = f"the {scenario.name} model of 3GPP TR 38.901"
    if not 0.5e9 <= scene.carrier_hz <= 100e9:
        raise ValueError(
            f"{model} holds from 0.5 to 100 GHz, but carrier_hz is {scene.carrier_hz / 1e9:g} GHz"
        )
    if scene.site_height_m != scenario.site_height_m:
        raise ValueError(
            f"{model} is for base stations at {scenario.site_height_m:g} m, but site_height_m is "
            f"{scene.site_height_m:g}"
        )
    if not 1.5 <= scene.device_height_m <= 22.5:
        raise ValueError(
            f"{model} is for devices at 1.5 to 22.5 m, but device_height_m is "
            f"{scene.device_height_m:g}"
        )
    farthest_m = scene_reach_m(scene)
    if farthest_m > MOST_GROUND_DISTANCE_M:
        raise ValueError(
            f"{model} holds up to {MOST_GROUND_DISTANCE_M:g} m on the ground, but a device of this "
            f"area can be {farthest_m:.0f} m from a base station"
        )


def scene_reach_m(scene: Scene) -> float:
    """Return the greatest ground distance of any place in the area from any site, metres."""
    area_m = np.asarray(scene.area_m)
    if scene.wrap_around:
        return float(np.hypot(*(area_m / 2)))
    corner_m = np.maximum(scene.sites_m, area_m - scene.sites_m)
    return float(np.hypot(corner_m[:, 0], corner_m[:, 1]).max())
