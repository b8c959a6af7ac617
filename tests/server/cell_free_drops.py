"""Uplinks for the tests of power control: a published set-up, and small inventions."""

import numpy as np

from fadelab_emulation.rate.cell_free.estimation import ChannelEstimate, estimate_channels
from fadelab_emulation.rate.cell_free.pilots import assign_pilots
from fadelab_emulation.rate.cell_free.uplink import uplink_statistics
from fadelab_server.allocator.round_cost import RoundLoad
from fadelab_server.allocator.uplink import F64, UplinkStatistics

PARAMETERS = 462_410
# -174 dBm/Hz over 20 MHz, and a noise figure of 7 dB.
NOISE_W = 20e6 * 10 ** ((-174 + 7 - 30) / 10)
FULL_POWER_SNR = 0.1 / NOISE_W


def published_gain(devices: int, seed: int) -> F64:
    """Return power gains on 1 km^2 with wrap-around, 16 jittered access points, 4 dB shadowing."""
    rng = np.random.default_rng(seed)
    line = np.arange(4) * 250.0 + 125.0
    sites = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    sites += rng.uniform(-62.5, 62.5, sites.shape)
    apart = np.abs(rng.uniform(0, 1000, (devices, 1, 2)) - sites)
    distance = np.sqrt((np.minimum(apart, 1000 - apart) ** 2).sum(axis=-1) + 10.0**2)
    shadowing = 4 * rng.standard_normal(distance.shape)
    gain: F64 = np.power(10, (-30.5 - 36.7 * np.log10(distance) + shadowing) / 10)
    return gain


def published_estimate(devices: int, seed: int) -> ChannelEstimate:
    gain = published_gain(devices, seed)
    return estimate_channels(
        gain, assign_pilots(gain, 10), antennas=4, pilot_length=10, pilot_snr=FULL_POWER_SNR
    )


def published_drop(devices: int, seed: int) -> UplinkStatistics:
    """Return an uplink with 4 antennas, 10 pilots in 200 symbols, 20 MHz, 100 mW."""
    terms = uplink_statistics(published_estimate(devices, seed), FULL_POWER_SNR)
    return UplinkStatistics(
        terms.coherent_gain,
        terms.own_interference,
        terms.cross_interference,
        terms.noise,
        bandwidth_hz=20e6,
        data_share=1 - 10 / 200,
        full_power_w=0.1,
    )


def model_load(devices: int, bits_per_entry: float = 4.0) -> RoundLoad:
    """Return the load of a model of 462 410 parameters and 75 ms of computing."""
    return RoundLoad(np.full(devices, PARAMETERS * bits_per_entry), compute_s=0.075)


def invented(devices: int, seed: int, *, interference: float = 1.0) -> UplinkStatistics:
    """Return an uplink in units of the noise, with SINRs at full power around -10 to 20 dB."""
    rng = np.random.default_rng(seed)
    cross = interference * np.power(10, rng.uniform(-1.5, 0.5, (devices, devices)))
    np.fill_diagonal(cross, 0.0)
    return UplinkStatistics(
        np.power(10, rng.uniform(0, 2.5, devices)),
        np.power(10, rng.uniform(-3, -0.5, devices)),
        cross,
        np.ones(devices),
        bandwidth_hz=1e6,
        data_share=0.9,
        full_power_w=0.2,
    )


def uneven_load(devices: int, seed: int) -> RoundLoad:
    """Return a load of different sizes, 0.2 to 2 Mbit."""
    return RoundLoad(np.random.default_rng(seed).uniform(2e5, 2e6, devices))


def power_grid(steps: int, lowest: float = 1e-3) -> F64:
    """Return all pairs of coefficients of a logarithmic grid, shape ``(pairs, 2)``."""
    line = np.geomspace(lowest, 1, steps)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
