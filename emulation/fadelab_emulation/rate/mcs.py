"""Link adaptation: the modulation and coding schemes of 5G NR, chosen by SNR.

Tables: 3GPP TS 38.214, 5.1.3.1-1 (to 64QAM) and 5.1.3.1-2 (to 256QAM).

Block error rate: a scheme of spectral efficiency ``e`` needs ``gap`` decibels more than the
``2^e - 1`` of Shannon's bound for a block error rate of 10 %, and falls off as a logistic curve::

    threshold_db = 10 log10(2^e - 1) + gap_db
    BLER(snr_db) = 1 / (1 + 9 exp((snr_db - threshold_db) / slope_db))

The gap is the "SNR efficiency" that P. Mogensen et al., "LTE capacity compared to the Shannon
bound", IEEE VTC Spring 2007, fit to link simulations; a waterfall in decibels around one threshold
per scheme is how system simulators keep such results. The published link-level curves of the
5G-LENA simulator (S. Lagen et al., "New Radio physical layer abstraction for system-level
simulations of 5G networks", IEEE ICC 2020), read for MCS 16 and 17 of the 256QAM table, show gaps
of 4.2 to 4.4 dB and slopes of 0.09 dB (code blocks of 8192 bits), 0.13 dB (3496) and 0.3 dB (504).
"""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray, IntArray
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel, LinkRates
from fadelab_emulation.rate.receiver import ReceiverConfig
from fadelab_emulation.scene import Scene

McsTable = Literal["qam64", "qam256"]

_REFERENCE_ODDS = 9.0
"""Odds of success at a scheme's threshold, where the block error rate is 10 %."""

# One row per modulation: bits per symbol, then the target code rates times 1024 of its schemes.
_ROWS: dict[McsTable, tuple[tuple[int, tuple[float, ...]], ...]] = {
    "qam64": (
        (2, (120, 157, 193, 251, 308, 379, 449, 526, 602, 679)),
        (4, (340, 378, 434, 490, 553, 616, 658)),
        (6, (438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948)),
    ),
    "qam256": (
        (2, (120, 193, 308, 449, 602)),
        (4, (378, 434, 490, 553, 616, 658)),
        (6, (466, 517, 567, 616, 666, 719, 772, 822, 873)),
        (8, (682.5, 711, 754, 797, 841, 885, 916.5, 948)),
    ),
}


def spectral_efficiency(table: McsTable) -> FloatArray:
    """Return the bits per symbol of every MCS index: modulation order times code rate."""
    return np.array([order * rate / 1024 for order, rates in _ROWS[table] for rate in rates])


class McsConfig(ReceiverConfig):
    """The best scheme of a 5G NR table that the SNR allows."""

    kind: Literal["mcs"] = "mcs"
    table: McsTable = Field(
        default="qam256", description="TS 38.214 table 5.1.3.1-1 (qam64) or 5.1.3.1-2 (qam256)."
    )
    target_bler: float = Field(
        default=0.1, gt=0, lt=1, description="Greatest block error rate a scheme is used at."
    )
    gap_db: float = Field(
        default=3.0,
        ge=0,
        le=20,
        description="How much more SNR than Shannon's bound a scheme needs for 10 % block errors.",
    )
    slope_db: float = Field(
        default=0.15,
        gt=0,
        le=5,
        description="SNR over which the odds of a block error fall by e; longer code blocks have "
        "steeper curves.",
    )
    overhead: float = Field(
        default=0.14,
        ge=0,
        lt=1,
        description="Share of the symbols that carry no data; 0.14 is TS 38.306's for the "
        "downlink below 6 GHz.",
    )

    def build(self, scene: Scene) -> "LinkAdaptation":
        """Return the model; it is the same for every scene."""
        del scene
        return LinkAdaptation(self)


class LinkAdaptation:
    """Each fading block uses the most efficient scheme whose block error rate is low enough.

    ``rate = efficiency * bandwidth * (1 - overhead) * (1 - BLER)``: blocks in error are lost and
    sent again. A block whose SNR suits no scheme carries nothing; the floor
    :data:`~fadelab_emulation.rate.base.MIN_RATE_BPS` holds for the tick's mean. Two schemes of
    nearly the same efficiency make the rate *fall* a little, by less than the target error rate,
    where the better one has just become usable: the rule looks at error rates, as link adaptation
    does, and not at throughput.
    """

    def __init__(self, config: McsConfig) -> None:
        self.noise_w: float = config.noise_w
        self._scale_bps = config.bandwidth_hz * (1 - config.overhead)
        self._slope_db = config.slope_db
        # In the 64QAM table index 17 is less efficient than 16: by efficiency, not by index.
        self._efficiency = np.sort(spectral_efficiency(config.table))
        self._threshold_db = 10 * np.log10(np.exp2(self._efficiency) - 1) + config.gap_db
        odds = (1 - config.target_bler) / config.target_bler
        self._usable_db = self._threshold_db + self._slope_db * math.log(odds / _REFERENCE_ODDS)

    def rates(
        self, channel: Channel, uplink_power_w: FloatArray, downlink_power_w: float
    ) -> LinkRates:
        """Return SNR and rates of every device; devices do not disturb each other."""
        power_gain = channel.power_gain
        snr_up = power_gain * (uplink_power_w / self.noise_w)
        snr_down = power_gain * (downlink_power_w / self.noise_w)
        return LinkRates(
            snr_up_db=10 * np.log10(channel.mean(snr_up)),
            rate_up_bps=self._effective_bps(snr_up, channel),
            rate_down_bps=self._effective_bps(snr_down, channel),
        )

    def scheme(self, snr_db: FloatArray) -> IntArray:
        """Return which scheme, in the order of efficiency, is used; -1 where none is."""
        return np.searchsorted(self._usable_db, snr_db, side="right") - 1

    def bler(self, scheme: IntArray, snr_db: FloatArray) -> FloatArray:
        """Return the block error rate of schemes (not -1) at an SNR."""
        above = (snr_db - self._threshold_db[scheme]) / self._slope_db
        # Beyond e^700 floats end; the error rate is 0 or 1 to the last bit long before.
        bler: FloatArray = 1 / (1 + _REFERENCE_ODDS * np.exp(np.clip(above, -700, 700)))
        return bler

    def _effective_bps(self, snr: FloatArray, channel: Channel) -> FloatArray:
        # A fade to nothing is a fade to less than any scheme needs, without a warning from log10.
        snr_db = 10 * np.log10(np.maximum(snr, 1e-30))
        scheme = self.scheme(snr_db)
        best = np.maximum(scheme, 0)
        carried = self._efficiency[best] * (1 - self.bler(best, snr_db))
        per_block = self._scale_bps * np.where(scheme < 0, 0.0, carried)
        return np.maximum(channel.mean(per_block), MIN_RATE_BPS)
