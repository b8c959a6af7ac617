"""Gauss-Markov motion: speed and heading that remember, and wander about their means.

B. Liang and Z. J. Haas, "Predictive distance-based mobility management for PCS networks", IEEE
INFOCOM 1999, in the form of T. Camp, J. Boleng and V. Davies, "A survey of mobility models for ad
hoc network research", Wireless Communications and Mobile Computing 2(5), 2002: once per time step,

    v' = a v + (1 - a) mean + std sqrt(1 - a^2) z

with standard normal z, for the speed and for the heading alike; both hold until the next step.
"""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.base import MobilityConfig, Motion
from fadelab_emulation.mobility.mirror import fold
from fadelab_emulation.mobility.ranges import FASTEST_MPS
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator

_START, _STEP = 0, 1


class GaussMarkovConfig(MobilityConfig):
    """Devices whose speed and heading change smoothly."""

    kind: Literal["gauss_markov"] = "gauss_markov"
    mean_speed_mps: float = Field(gt=0, le=FASTEST_MPS, description="Mean of the speed.")
    speed_std_mps: float = Field(
        default=0.0,
        ge=0,
        le=FASTEST_MPS,
        description="Standard deviation of the speed. Where the speed would fall below 0 the "
        "device stands; with a third of the mean that is 0.1 % of the time.",
    )
    heading_std_rad: float = Field(
        default=0.5,
        ge=0,
        le=math.pi,
        description="Standard deviation of the heading about the device's mean heading, which is "
        "any with equal probability.",
    )
    memory: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="Correlation of speeds, and of headings, one time step apart: at 0 each "
        "step is independent of the one before, at 1 nothing ever changes.",
    )
    time_step_s: float = Field(
        default=1.0,
        ge=0.01,
        le=1e6,
        description="Time between two changes of speed and heading, whatever the tick.",
    )

    def build(self, scene: Scene) -> "GaussMarkov":
        """Return devices drawn from the stationary law."""
        return GaussMarkov(self, scene)


class GaussMarkov:
    """Devices with autoregressive speed and heading, stationary from the first instant.

    Borders reflect a device together with its mean heading. So nothing but the fold knows of
    borders, and places are uniform at every instant.
    """

    def __init__(self, config: GaussMarkovConfig, scene: Scene) -> None:
        self._config = config
        self._seed = scene.seed
        self._area_m = np.asarray(scene.area_m)
        start = generator(scene.seed, Stream.MOBILITY, _START).random((scene.devices, 3))
        self._unfolded_m = start[:, :2] * self._area_m
        self._mean = np.column_stack(
            [np.full(scene.devices, config.mean_speed_mps), 2 * np.pi * start[:, 2]]
        )
        self._std = np.array([config.speed_std_mps, config.heading_std_rad])
        self._steps = 0
        self._left_s = config.time_step_s
        self._state = self._mean + self._std * self._normal()
        self._velocity_mps, self._speed_mps = _velocity(self._state)

    def advance(self, duration_s: float) -> Motion:
        """Move on by ``duration_s``, through as many time steps as begin in it."""
        travelled_m = np.zeros(len(self._speed_mps))
        while True:
            part_s = min(duration_s, self._left_s)
            self._unfolded_m += self._velocity_mps * part_s
            travelled_m += self._speed_mps * part_s
            duration_s -= part_s
            self._left_s -= part_s
            if self._left_s > 0:
                break
            self._renew()
        np.mod(self._unfolded_m, 2 * self._area_m, out=self._unfolded_m)
        position_m, velocity_mps = fold(self._unfolded_m, self._velocity_mps, self._area_m)
        return Motion(position_m, velocity_mps, travelled_m)

    def _renew(self) -> None:
        self._steps += 1
        self._left_s = self._config.time_step_s
        memory = self._config.memory
        noise = self._std * math.sqrt(1 - memory**2) * self._normal()
        self._state = memory * self._state + (1 - memory) * self._mean + noise
        self._velocity_mps, self._speed_mps = _velocity(self._state)

    def _normal(self) -> FloatArray:
        draw = generator(self._seed, Stream.MOBILITY, _STEP, self._steps)
        return draw.standard_normal(self._mean.shape)


def _velocity(state: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return velocities and speeds from columns of speed and heading.

    Only what is used of the speed stops at 0: the state itself stays Gaussian, and so stationary.
    """
    speed_mps = np.maximum(state[:, 0], 0.0)
    heading = np.column_stack([np.cos(state[:, 1]), np.sin(state[:, 1])])
    return speed_mps[:, None] * heading, speed_mps
