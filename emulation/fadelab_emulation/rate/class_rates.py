"""Rates of two packet classes that divide a device's power and band: signs and moduli.

Each class has a part of the device's power, and a part of its band (``fdm``) or its time (``tdm``),
or all of both (``parallel``). Its rate is Shannon's, as in
:mod:`fadelab_emulation.rate.shannon`, with the noise of its own width. Turns of ``tdm`` are short
beside a tick, so a class has its part of the whole band's rate all the time.

With fixed loads a class is sent at the rate at which its bits take the deadline, and lost with the
probability that a Rayleigh channel's capacity is below that (the outage of SP-FL's packets, arXiv
2603.10763, reconstructed).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fadelab_emulation.link_state import FloatArray, Lane, PacketLoss
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel
from fadelab_emulation.rate.receiver import noise_power_w
from fadelab_emulation.rate.shannon import ShannonConfig

Access = Literal["fdm", "tdm", "parallel"]
SIGN, MODULUS = "sign", "modulus"
_LARGEST_EXPONENT = 500.0


@dataclass(frozen=True, slots=True)
class Loads:
    """What classes send within a deadline, whatever the channel carries; layer-2 bits."""

    sign_bits: float
    modulus_bits: float
    deadline_s: float


@dataclass(frozen=True, slots=True, eq=False)
class ClassAllocation:
    """How devices' resources are divided; arrays over all devices."""

    power: FloatArray
    """Part of a device's power for signs; NaN where nothing is divided."""
    band: FloatArray
    """Its part of all bandwidth."""
    sign: FloatArray
    """Part of its band (or time) for signs."""
    access: Access
    common_fading: bool
    loads: Loads | None = None

    @property
    def divided(self) -> "np.typing.NDArray[np.bool_]":
        """Whose resources are divided."""
        return ~np.isnan(self.power)

    def updated(self, later: "ClassAllocation") -> "ClassAllocation":
        """Return the later allocation, and this one where that says nothing."""
        given = later.divided
        return ClassAllocation(
            np.where(given, later.power, self.power),
            np.where(given, later.band, self.band),
            np.where(given, later.sign, self.sign),
            later.access,
            later.common_fading,
            later.loads,
        )


class ClassRates:
    """Rates and losses of signs and moduli.

    Args:
        config: the links' rate model.
        devices: how many share the bandwidth, which is so many times that of one.

    """

    def __init__(self, config: ShannonConfig, devices: int) -> None:
        self.bandwidth_hz = devices * config.bandwidth_hz
        self.efficiency = config.efficiency
        self._noise_w_per_hz = noise_power_w(1.0, config.noise_dbm_per_hz, config.noise_figure_db)
        self._max_rate_bps = math.inf if config.max_rate_bps is None else config.max_rate_bps

    def noise_per_hz(self, channel: Channel, power_w: FloatArray) -> FloatArray:
        """Return noise on 1 Hz over the mean received power, 1/Hz, shape ``(devices,)``."""
        gain = channel.gain[np.arange(len(channel.site)), channel.site]
        result: FloatArray = self._noise_w_per_hz / (gain * power_w)
        return result

    def lanes(
        self,
        allocation: ClassAllocation,
        sign: Channel,
        modulus: Channel,
        power_w: FloatArray,
    ) -> tuple[Lane, Lane]:
        """Return the lanes of signs and moduli; values of devices with nothing divided are void.

        Args:
            allocation: who has what.
            sign: the channel that signs meet.
            modulus: the one that moduli meet; the same with common fading.
            power_w: the devices' powers.

        """
        width = np.nan_to_num(allocation.band) * self.bandwidth_hz
        parts = np.nan_to_num(allocation.sign, nan=0.5), np.nan_to_num(allocation.power, nan=0.5)
        loads = allocation.loads
        bits = (math.nan, math.nan) if loads is None else (loads.sign_bits, loads.modulus_bits)
        found = []
        for channel, part, share, size in (
            (sign, parts[0], parts[1], bits[0]),
            (modulus, 1 - parts[0], 1 - parts[1], bits[1]),
        ):
            width_hz = width * part if allocation.access == "fdm" else width
            time = part if allocation.access == "tdm" else np.ones_like(part)
            found.append(
                self._following(channel, power_w * share, width_hz, time)
                if loads is None
                else self._fixed(
                    channel, power_w * share, width_hz, size / (loads.deadline_s * time), time
                )
            )
        return found[0], found[1]

    def _following(
        self, channel: Channel, power_w: FloatArray, width_hz: FloatArray, time: FloatArray
    ) -> Lane:
        """Return a lane whose rate follows the fading."""
        width_hz = np.maximum(width_hz, 1.0)
        snr = channel.power_gain * (power_w / (self._noise_w_per_hz * width_hz))
        per_block = self.efficiency * width_hz * np.log2(1 + snr)
        rate_bps = channel.mean(np.minimum(per_block, self._max_rate_bps)) * time
        none = PacketLoss.independent(np.zeros_like(rate_bps))
        return Lane(np.maximum(rate_bps, MIN_RATE_BPS), none)

    def _fixed(
        self,
        channel: Channel,
        power_w: FloatArray,
        width_hz: FloatArray,
        rate_bps: FloatArray,
        time: FloatArray,
    ) -> Lane:
        """Return a lane at this rate in its time, lost when the capacity is below it."""
        width_hz = np.maximum(width_hz, 1.0)
        nats = np.log(2) * rate_bps / (self.efficiency * width_hz)
        needed_snr = np.expm1(np.minimum(nats, _LARGEST_EXPONENT))
        mean_snr = power_w / width_hz / (self.noise_per_hz(channel, np.ones_like(power_w)))
        lost = -np.expm1(-needed_snr / mean_snr)
        return Lane(
            np.maximum(rate_bps * time, MIN_RATE_BPS),
            PacketLoss.independent(np.clip(lost, 0.0, 1.0)),
        )


def merged(before: Lane, divided: Lane, where: "np.typing.NDArray[np.bool_]") -> Lane:
    """Return a lane that is ``divided`` for some devices and as before for the others."""
    old, new = before.loss, divided.loss
    return Lane(
        np.where(where, divided.rate_bps, before.rate_bps),
        PacketLoss(
            in_good=np.where(where, new.in_good, old.in_good),
            in_bad=np.where(where, new.in_bad, old.in_bad),
            to_bad=np.where(where, new.to_bad, old.to_bad),
            to_good=np.where(where, new.to_good, old.to_good),
        ),
    )
