"""SINR and rates against the emulator's, a Monte Carlo, and known percentiles."""

import dataclasses

import numpy as np
import pytest
from tests.emulation.scenes import make_scene
from tests.server.cell_free_drops import (
    NOISE_W,
    invented,
    model_load,
    published_drop,
    published_estimate,
    published_gain,
)

from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel
from fadelab_emulation.rate.cell_free.model import CellFreeConfig
from fadelab_emulation.rate.cell_free.uplink import maximum_ratio_sinr
from fadelab_server.allocator.full_power import full_power
from fadelab_server.allocator.min_max_latency import min_max_latency
from fadelab_server.allocator.round_cost import RoundLoad
from fadelab_server.allocator.uplink import UplinkStatistics


@pytest.mark.parametrize("devices", [1, 7, 20, 40])
def test_sinr_and_rates_are_those_of_the_emulator(devices: int) -> None:
    coefficient = np.random.default_rng(devices).uniform(0.01, 1, devices)
    estimate, statistics = published_estimate(devices, 3), published_drop(devices, 3)
    sinr = maximum_ratio_sinr(estimate, coefficient * 0.1 / NOISE_W)
    assert statistics.sinr(coefficient) == pytest.approx(sinr, rel=1e-10)

    model = CellFreeConfig().build(make_scene(devices, sites_m=[(1, 1)] * 16))
    here = Channel(
        published_gain(devices, 3), np.zeros(devices, np.int64), np.ones((1, 1)), np.ones(1)
    )
    rates = model.rates(here, coefficient * 0.1, 0.2)
    # The emulator's links are never slower than its floor.
    rate_bps = np.maximum(statistics.rate_bps(coefficient), MIN_RATE_BPS)
    assert rate_bps == pytest.approx(rates.rate_up_bps, rel=1e-9)


def test_sinr_against_monte_carlo_of_maximum_ratio_combining() -> None:
    """Three devices, two of which share a pilot; two access points of two antennas."""
    rng = np.random.default_rng(11)
    gain = np.array([[1.0, 0.2], [0.3, 0.8], [0.5, 0.4]])
    pilot, length, snr, draws = np.array([0, 1, 0]), 2, 4.0, 150_000

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * np.sqrt(0.5)

    channel = np.sqrt(gain)[..., None] * normal(draws, 3, 2, 2)
    same = pilot[:, None] == pilot
    noise = normal(draws, 2, 2, 2)[:, pilot]
    received = np.sqrt(length * snr) * np.einsum("ki,riln->rkln", same, channel) + noise
    scale = np.sqrt(length * snr) * gain / (length * snr * (same @ gain) + 1)
    combiner = scale[..., None] * received
    through = np.einsum("rkln,riln->rki", combiner.conj(), channel)
    square = np.square(np.abs(through)).mean(axis=0)
    coherent = np.square(np.abs(np.diagonal(through.mean(axis=0))))
    cross = square - np.diag(np.diagonal(square))
    norm = np.square(np.abs(combiner)).sum(axis=(2, 3)).mean(axis=0)

    coefficient, full_snr = np.array([0.3, 1.0, 0.6]), 5.0
    power = full_snr * coefficient
    sampled = coherent * power / ((np.diagonal(square) - coherent) * power + cross @ power + norm)
    gamma = scale**2 * (length * snr * (same @ gain) + 1)
    shared = 2 * (gamma / gain) @ gain.T
    statistics = UplinkStatistics(
        (2 * gamma.sum(axis=1)) ** 2,
        2 * (gamma * gain).sum(axis=1),
        (2 * gamma @ gain.T + same * shared**2) * (1 - np.eye(3)),
        2 * gamma.sum(axis=1) / full_snr,
        bandwidth_hz=1e6,
        data_share=0.8,
        full_power_w=0.1,
    )
    assert statistics.sinr(coefficient) == pytest.approx(sampled, rel=0.02)
    assert statistics.rate_bps(coefficient) == pytest.approx(0.8e6 * np.log2(1 + sampled), rel=0.02)


@pytest.mark.parametrize(
    ("devices", "known_mbps", "latencies_s", "drops"),
    [
        (20, (2.5, 22.7, 43.5), (0.056, 0.079), 80),
        (40, (1.4, 9.6, 40.8), (0.10, 0.135), 80),
    ],
)
def test_percentiles_of_the_published_set_up(
    devices: int, known_mbps: tuple[float, ...], latencies_s: tuple[float, float], drops: int
) -> None:
    """Known values come from about five drops; 1.712 Mbit is one payload of AQUILA."""
    load = RoundLoad(np.full(devices, 1.712e6))
    cells = [published_drop(devices, seed) for seed in range(drops)]
    mbps = np.array([cell.rate_bps(np.ones(devices)) for cell in cells]) / 1e6
    low, median, high = np.percentile(mbps, [10, 50, 90])
    assert low == pytest.approx(known_mbps[0], rel=0.6)
    assert median == pytest.approx(known_mbps[1], rel=0.2)
    assert high == pytest.approx(known_mbps[2], rel=0.06)
    least_s = [min_max_latency(cell, load).round_s for cell in cells[:20]]
    assert latencies_s[0] < np.median(least_s) < latencies_s[1]
    worst_s = [full_power(cell, load).round_s for cell in cells[:20]]
    assert np.median(np.array(worst_s) / np.array(least_s)) > 10


def test_what_a_round_costs() -> None:
    statistics = UplinkStatistics(
        np.array([3.0, 14.0, 0.0]),
        np.array([0.0, 0.0, 0.0]),
        np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        np.array([1.0, 1.0, 1.0]),
        bandwidth_hz=1000.0,
        data_share=0.5,
        full_power_w=0.4,
    )
    # SINRs 3 and 14 / 3: rates 500 * 2 and 500 * log2(17/3) bit/s; device 2 is not heard.
    heard = full_power(statistics, RoundLoad(np.array([2000.0, 0.0, 0.0]), 0.25, 0.125))
    assert heard.coefficient.tolist() == [1, 0, 0]
    assert heard.upload_s.tolist() == [2, 0, 0]
    assert heard.upload_j == pytest.approx([0.8, 0, 0])
    assert (heard.round_s, heard.round_j) == pytest.approx((2.25, 0.925))
    assert heard.rounds_within(energy_j=9.25, latency_s=9.0) == pytest.approx(4)
    assert heard.rounds_within(energy_j=1.85, latency_s=9.0) == pytest.approx(2)

    all_three = full_power(statistics, RoundLoad(np.array([2000.0, 1000.0, 5.0])))
    assert all_three.upload_s[1] == pytest.approx(2 / np.log2(17 / 3))
    assert all_three.coefficient[2] == 0
    assert all_three.upload_s[2] == all_three.round_s == np.inf
    assert all_three.upload_j[2] == 0
    assert all_three.round_j == pytest.approx(0.4 * (2 + all_three.upload_s[1]))


def test_who_has_nothing_to_send_does_not_disturb() -> None:
    statistics = invented(4, 1)
    load = RoundLoad(np.array([1e5, 0.0, 1e5, 0.0]))
    part = statistics.of(np.array([0, 2]))
    among = min_max_latency(statistics, load)
    apart = min_max_latency(part, RoundLoad(np.full(2, 1e5)))
    assert among.coefficient == pytest.approx(
        [apart.coefficient[0], 0, apart.coefficient[1], 0], rel=1e-6
    )
    assert among.round_s == pytest.approx(apart.round_s)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"coherent_gain": np.ones(3)}, r"coherent_gain has the shape \(3,\) instead of \(2,\)"),
        ({"own_interference": np.array([1.0, -1.0])}, "own_interference holds values that are neg"),
        ({"coherent_gain": np.array([1.0, np.nan])}, "coherent_gain holds values .* not finite"),
        ({"noise": np.array([1.0, 0.0])}, "noise holds zeros"),
        ({"cross_interference": np.ones((2, 2))}, "cross_interference has a diagonal"),
        ({"bandwidth_hz": 0.0}, "must be positive"),
        ({"data_share": 1.5}, "data_share at most 1"),
        ({"full_power_w": np.inf}, "must be positive"),
    ],
)
def test_impossible_statistics_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(invented(2, 1), **changes)


@pytest.mark.parametrize(
    ("bits", "sentence"),
    [
        ([1.0, -1.0], "not negative"),
        ([1.0, np.inf], "finite"),
        ([1.0], "bits for 1 devices and statistics for 2"),
        ([0.0, 0.0], "no device has anything to send"),
    ],
)
def test_impossible_loads_are_refused(bits: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        full_power(invented(2, 1), RoundLoad(np.array(bits)))


def test_negative_computing_is_refused() -> None:
    with pytest.raises(ValueError, match="compute_s and compute_j"):
        dataclasses.replace(model_load(2), compute_j=-1.0)
