"""What all fading models share: the waves that add up, over time or block by block.

A fading model says how the sum of scattered waves, and a direct one, becomes a power
(:class:`Envelope`). The waves themselves come either anew every coherence time
(:class:`BlockFading`) or from a standing pattern that the device moves through
(:class:`PathFading`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import (
    SPEED_OF_LIGHT_MPS,
    ChannelDraw,
    FadingBlocks,
    FadingConfig,
    FadingLaw,
)
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator

ComplexArray = NDArray[np.complex128]

BLOCKS_PER_TICK = 16
MOST_BLOCKS_PER_TICK = 1000
LAW_POINTS = 32
LEAST_QUANTILE = 1e-4
MOST_QUANTILE_COMPLEMENT = 1e-9
_WAVE_PAIRS = 16
_NEGLIGIBLE_BLOCK = 1e-9
"""Shorter spans, relative to a block, come from rounding and not from the model."""


class Envelope(Protocol):
    """How waves become a power gain of mean 1."""

    @property
    def law(self) -> FadingLaw:
        """The stationary distribution of the power gain."""
        ...

    def power(self, scattered: ComplexArray, direct_rad: FloatArray) -> FloatArray:
        """Return the power gain, any shape.

        ``scattered`` is a circular complex Gaussian of mean power 1, ``direct_rad`` the phase of
        a wave that comes straight from the other antenna.
        """
        ...


class ScatteringConfig(FadingConfig, ABC):
    """Settings of every model in which waves add up."""

    coherence_s: float | None = Field(
        default=None,
        gt=0,
        description="Time for which the channel keeps its value, to change at once and at random. "
        "Left out: it changes gradually with the device's movement (Clarke's model), with a "
        "coherence time of about 0.42 wavelengths of travel divided by the speed.",
    )
    blocks_per_tick: int | None = Field(
        default=None,
        ge=1,
        le=MOST_BLOCKS_PER_TICK,
        description="Instants, equally spaced, at which a channel that changes gradually is "
        "evaluated in each tick; left out: 16.",
    )

    @model_validator(mode="after")
    def _one_course(self) -> Self:
        if self.coherence_s is not None and self.blocks_per_tick is not None:
            raise ValueError(
                "give either coherence_s or blocks_per_tick: a coherence time says by itself how "
                "many values a tick has"
            )
        return self

    def check_tick(self, tick_s: float) -> None:
        """Raise ValueError if a tick would hold more blocks than are worth drawing."""
        least_s = tick_s / MOST_BLOCKS_PER_TICK
        if self.coherence_s is not None and self.coherence_s < least_s:
            raise ValueError(
                f"a coherence time of {self.coherence_s:g} s is too short for a tick of "
                f"{tick_s:g} s: the least is a thousandth of the tick, {least_s:g} s"
            )

    @abstractmethod
    def envelope(self) -> Envelope:
        """Return how waves become a power in this model."""

    def build(self, scene: Scene) -> "BlockFading | PathFading":
        """Return the model for the scene's devices."""
        if self.coherence_s is not None:
            return BlockFading(self.envelope(), self.coherence_s, scene)
        return PathFading(self.envelope(), self.blocks_per_tick or BLOCKS_PER_TICK, scene)


class BlockFading:
    """Independent power gains, one per block and device.

    Block ``b`` fills ``[b, b + 1) * coherence_s`` and draws from a generator of its own, so any
    span can be asked for in any order. Up- and downlink share one carrier (time division), hence
    one gain.
    """

    def __init__(self, envelope: Envelope, coherence_s: float, scene: Scene) -> None:
        self._envelope = envelope
        self._coherence_s = coherence_s
        self._scene = scene

    @property
    def law(self) -> FadingLaw:
        """The distribution of every block."""
        return self._envelope.law

    def during(self, start_s: float, duration_s: float, speed_mps: FloatArray) -> FadingBlocks:
        """Return every block that overlaps the span, weighted by its overlap."""
        del speed_mps
        start = start_s / self._coherence_s
        end = (start_s + duration_s) / self._coherence_s
        first = math.floor(start + _NEGLIGIBLE_BLOCK)
        last = max(first + 1, math.ceil(end - _NEGLIGIBLE_BLOCK))
        edges = np.clip(np.arange(first, last + 1, dtype=np.float64), start, end)
        share = np.diff(edges)
        power = np.stack([self._block(number) for number in range(first, last)])
        return FadingBlocks(power=power, share=share / share.sum())

    def _block(self, number: int) -> FloatArray:
        draw = generator(self._scene.seed, Stream.CHANNEL, ChannelDraw.FADING, number)
        normal = draw.standard_normal((self._scene.devices, 2)) / math.sqrt(2)
        return self._envelope.power(normal[:, 0] + 1j * normal[:, 1], np.zeros(len(normal)))


class PathFading:
    """Power gains of devices that move through waves from all around.

    Each device meets 32 waves of equal power and random phase, from directions all around at
    equal angles with a random turn, and a direct wave from a random direction. A wave's phase
    advances by ``2 pi / wavelength`` times the way gone towards its source. Over time, the sum of
    scattered waves has the autocorrelation ``J0(2 pi f_D tau)``, ``f_D = speed * carrier / c``
    (R. H. Clarke, "A statistical theory of mobile-radio reception", Bell Syst. Tech. J. 47(6),
    1968; as a sum of sinusoids with random directions: Y. R. Zheng and C. Xiao, "Simulation models
    with correct statistical properties for Rayleigh fading channels", IEEE Trans. Commun. 51(6),
    2003). Its power is exponential but for an amount of fading of 1 - 1/32 in place of 1.

    The pattern stands: a device that stops keeps its gain, and the length of ticks changes only
    where on its way it is evaluated. Up- and downlink share one carrier, hence one gain.
    """

    def __init__(self, envelope: Envelope, blocks: int, scene: Scene) -> None:
        self._envelope = envelope
        self._blocks = blocks
        self._share = np.full(blocks, 1 / blocks)
        self._rad_per_m = 2 * math.pi * scene.carrier_hz / SPEED_OF_LIGHT_MPS
        draw = generator(scene.seed, Stream.CHANNEL, ChannelDraw.FADING)
        # One row per device, so that devices do not depend on their number.
        drawn = draw.random((scene.devices, 2 * _WAVE_PAIRS + 3))
        turns = 2 * math.pi * np.ascontiguousarray(drawn.T)
        direction = (2 * math.pi * np.arange(_WAVE_PAIRS)[:, None] + turns[0]) / (2 * _WAVE_PAIRS)
        # Waves come in pairs from opposite directions, which have opposite Doppler shifts: the
        # second of each pair is kept as its conjugate, so that one rotation moves both.
        self._towards = np.cos(direction)[:, None, :]
        # With pairs in front, numpy adds them up in the same order even for a single device.
        phase = turns[3:].reshape(_WAVE_PAIRS, 2, scene.devices)
        self._waves = np.exp(1j * phase) / math.sqrt(2 * _WAVE_PAIRS)
        self._direct_rad = turns[1]
        self._direct_towards = np.cos(turns[2])

    @property
    def law(self) -> FadingLaw:
        """The distribution over time."""
        return self._envelope.law

    def during(self, start_s: float, duration_s: float, speed_mps: FloatArray) -> FadingBlocks:
        """Return the gains in the middle of equal parts of the span."""
        del start_s
        half_rad = 0.5 * self._rad_per_m * speed_mps * (duration_s / self._blocks)
        half_turn = np.exp(1j * (self._towards * half_rad))
        turn = half_turn * half_turn
        scattered = np.empty((self._blocks, len(speed_mps)), dtype=np.complex128)
        self._waves *= half_turn
        for block in range(self._blocks):
            if block:
                self._waves *= turn
            ahead, behind = self._waves.sum(axis=0)
            scattered[block] = ahead + behind.conj()
        self._waves *= half_turn
        odd = np.arange(1, 2 * self._blocks, 2)[:, None]
        direct_step_rad = self._direct_towards * half_rad
        direct_rad = self._direct_rad + odd * direct_step_rad
        self._direct_rad = self._direct_rad + 2 * self._blocks * direct_step_rad
        return FadingBlocks(self._envelope.power(scattered, direct_rad), self._share)


def law_of(density: Callable[[FloatArray], FloatArray], least: float, most: float) -> FadingLaw:
    """Return 32 points of a distribution of mean 1, equally spaced in the logarithm of power.

    There, both the density and ``log(1 + snr * power)`` are smooth, and the trapezoidal rule
    converges geometrically (L. N. Trefethen and J. A. C. Weideman, SIAM Review 56(3), 2014): the
    mean rate is right to 1e-4 at any SNR, where Gauss-Laguerre with as many points is off by 2e-3.

    Args:
        density: of the power gain.
        least: quantile of :data:`LEAST_QUANTILE`; what lies below is left out.
        most: quantile of 1 - :data:`MOST_QUANTILE_COMPLEMENT`.

    """
    power = np.geomspace(least, most, LAW_POINTS)
    weight = power * density(power)
    weight /= weight.sum()
    return FadingLaw(power=power / (weight * power).sum(), weight=weight)
