"""Cell-free massive MIMO as a rate model: all devices' rates follow from all devices' powers."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel, LinkRates
from fadelab_emulation.rate.cell_free.downlink import conjugate_beamforming_sinr, full_power
from fadelab_emulation.rate.cell_free.estimation import ChannelEstimate, estimate_channels
from fadelab_emulation.rate.cell_free.local_mmse import LocalMmse
from fadelab_emulation.rate.cell_free.pilots import Pilots, assign_pilots
from fadelab_emulation.rate.cell_free.uplink import (
    UplinkStatistics,
    maximum_ratio_sinr,
    uplink_statistics,
)
from fadelab_emulation.rate.receiver import ReceiverConfig
from fadelab_emulation.scene import Scene


class CellFreeConfig(ReceiverConfig):
    """All sites serve all devices on one band; the defaults are those of published studies.

    The radio section's ``downlink_power_w`` is here the whole power of one access point.
    """

    kind: Literal["cell_free"] = "cell_free"
    bandwidth_hz: float = Field(
        default=20e6, gt=0, le=10e9, description="The band that all devices share."
    )
    downlink_bandwidth_hz: float | None = Field(
        default=None,
        gt=0,
        le=10e9,
        description="The downlink's band, with the noise of the uplink's; the same when left out.",
    )
    noise_figure_db: float = Field(
        default=7.0, ge=0, le=30, description="Noise that the receiver adds."
    )
    antennas: int = Field(default=4, ge=1, le=256, description="Antennas of one access point.")
    pilot_length: int = Field(
        default=10,
        ge=1,
        le=4096,
        description="Symbols of a pilot, and how many pilots there are to tell devices apart.",
    )
    coherence_length: int = Field(
        default=200,
        ge=2,
        le=1_000_000,
        description="Symbols for which a channel keeps its value: pilots first, then data.",
    )
    pilot_power_w: float = Field(
        default=0.1,
        gt=0,
        le=1000,
        description="Power of the pilots, whatever the data's; usually the radio section's "
        "uplink_power_w.",
    )
    pilot_period_s: float | None = Field(
        default=None,
        gt=0,
        description="How often pilots are assigned anew; left out: at the first tick only.",
    )
    data_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the data symbols that each direction gets; 1 looks at each as if it "
        "were alone, 0.5 divides a time-division frame evenly.",
    )
    combining: Literal["mr", "lp_mmse"] = Field(
        default="mr",
        description="Uplink receiver: maximum ratio in closed form, or local MMSE with large-scale "
        "fading decoding by Monte Carlo.",
    )
    realisations: int = Field(
        default=300, ge=10, le=100_000, description="Monte Carlo draws of lp_mmse."
    )
    lp_mmse_period_s: float = Field(
        default=0.0,
        ge=0,
        description="Time between evaluations of lp_mmse; within it SINRs hold unless a power "
        "changes. 0 evaluates every tick.",
    )

    @model_validator(mode="after")
    def _pilots_leave_room(self) -> Self:
        if self.pilot_length >= self.coherence_length:
            raise ValueError(
                f"pilots of {self.pilot_length} symbols leave no room for data in a coherence "
                f"block of {self.coherence_length}: pilot_length must be less"
            )
        return self

    def build(self, scene: Scene) -> "CellFree":
        """Return the model; ValueError where Monte Carlo draws would not fit into memory."""
        return CellFree(self, scene)


@dataclass(frozen=True, slots=True)
class UplinkTerms:
    """What all rates of the uplink follow from, given the devices' powers."""

    statistics: UplinkStatistics
    bandwidth_hz: float
    data_share: float
    """Share of the symbols that carry the uplink's data."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Rates, and what they are the answer to."""

    gain: FloatArray
    uplink_power_w: FloatArray
    downlink_power_w: float
    rates: LinkRates
    estimate: ChannelEstimate


@dataclass(frozen=True, slots=True)
class _UplinkSinr:
    """An evaluation of lp_mmse, and when and for which powers it was made."""

    t_s: float
    uplink_power_w: FloatArray
    sinr: FloatArray


class CellFree:
    """Rates ``bandwidth * data_share * (1 - pilots / coherence block) * log2(1 + SINR)``.

    Every device is taken to send and to be sent to all the time, in contact or not, so a device's
    rate depends on all others: on their gains, their powers and their number. The SINRs are
    use-and-then-forget bounds that average small-scale fading, so the fading model of the radio
    section and the serving site have no say here, and a rate is its own ergodic rate. The floor
    :data:`~fadelab_emulation.rate.base.MIN_RATE_BPS` holds. Downlink: conjugate beamforming at full
    power, whatever the uplink's receiver. Sums of many devices are matrix products, whose last bit
    may differ between machines.
    """

    def __init__(self, config: CellFreeConfig, scene: Scene) -> None:
        self.noise_w: float = config.noise_w
        self._config = config
        used = 1 - config.pilot_length / config.coherence_length
        self._scale_bps = config.bandwidth_hz * config.data_share * used
        down_hz = config.downlink_bandwidth_hz or config.bandwidth_hz
        self._scale_down_bps = self._scale_bps * down_hz / config.bandwidth_hz
        self._pilots: Pilots | None = None
        self._pilots_since_s = 0.0
        self._answer: _Answer | None = None
        self._uplink: _UplinkSinr | None = None
        self._local_mmse: LocalMmse | None = None
        if config.combining == "lp_mmse":
            self._local_mmse = LocalMmse(
                sites=scene.sites,
                antennas=config.antennas,
                pilots=min(config.pilot_length, scene.devices),
                realisations=config.realisations,
                seed=scene.seed,
            )

    def rates(
        self, channel: Channel, uplink_power_w: FloatArray, downlink_power_w: float
    ) -> LinkRates:
        """Return SINR (as ``snr_up_db``) and rates of all devices together."""
        last = self._answer
        # A tick asks twice, for its own fading and for fading's law: the answer is the same.
        if (
            last is not None
            and last.gain is channel.gain
            and last.downlink_power_w == downlink_power_w
            and np.array_equal(last.uplink_power_w, uplink_power_w)
        ):
            return last.rates
        estimate = self._estimate(channel)
        up = self._uplink_sinr(estimate, uplink_power_w, channel.t_s)
        down = conjugate_beamforming_sinr(
            estimate, downlink_power_w / self.noise_w, full_power(estimate)
        )
        rates = LinkRates(
            10 * np.log10(up),
            _rate_bps(self._scale_bps, up),
            _rate_bps(self._scale_down_bps, down),
        )
        self._answer = _Answer(
            channel.gain, uplink_power_w.copy(), downlink_power_w, rates, estimate
        )
        return rates

    def uplink_terms(self, full_power_w: float) -> UplinkTerms | None:
        """Return the terms of the uplink's SINRs as they were last asked for.

        None before that, and with combining lp_mmse, whose SINRs have no such terms. May be called
        from any thread.

        Args:
            full_power_w: the power of coefficient 1.

        """
        answer, config = self._answer, self._config
        if answer is None or config.combining != "mr":
            return None
        return UplinkTerms(
            uplink_statistics(answer.estimate, full_power_w / self.noise_w),
            config.bandwidth_hz,
            self._scale_bps / config.bandwidth_hz,
        )

    def _estimate(self, channel: Channel) -> ChannelEstimate:
        config = self._config
        if self._pilots is None or _has_passed(
            config.pilot_period_s, self._pilots_since_s, channel.t_s
        ):
            self._pilots = assign_pilots(channel.gain, config.pilot_length)
            self._pilots_since_s = channel.t_s
        return estimate_channels(
            channel.gain,
            self._pilots,
            antennas=config.antennas,
            pilot_length=config.pilot_length,
            pilot_snr=config.pilot_power_w / self.noise_w,
        )

    def _uplink_sinr(
        self, estimate: ChannelEstimate, uplink_power_w: FloatArray, t_s: float
    ) -> FloatArray:
        power_snr = uplink_power_w / self.noise_w
        if self._local_mmse is None:
            return maximum_ratio_sinr(estimate, power_snr)
        held = self._uplink
        if (
            held is None
            or _has_passed(self._config.lp_mmse_period_s, held.t_s, t_s)
            or not np.array_equal(held.uplink_power_w, uplink_power_w)
        ):
            sinr = self._local_mmse.sinr(estimate, power_snr)
            held = self._uplink = _UplinkSinr(t_s, uplink_power_w.copy(), sinr)
        return held.sinr


def _rate_bps(scale_bps: float, sinr: FloatArray) -> FloatArray:
    return np.maximum(scale_bps * np.log2(1 + sinr), MIN_RATE_BPS)


def _has_passed(period_s: float | None, since_s: float, t_s: float) -> bool:
    """Return whether a period is over, rounding of tick times aside."""
    return period_s is not None and t_s - since_s >= period_s * (1 - 1e-9)
