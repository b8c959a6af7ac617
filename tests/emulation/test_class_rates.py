"""Rates and losses of signs and moduli that divide a device's power and band."""

from typing import Any

import numpy as np
import pytest

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel
from fadelab_emulation.rate.class_rates import (
    Access,
    ClassAllocation,
    ClassRates,
    Loads,
)
from fadelab_emulation.rate.shannon import ShannonConfig
from fadelab_emulation.world import RadioWorld

NOISE_W_PER_HZ = 10 ** ((-174 + 9 - 30) / 10)
GAIN = np.array([[1e-9], [1e-10], [3e-11]])
POWER_W = np.full(3, 0.1)


def rates() -> ClassRates:
    return ClassRates(ShannonConfig(kind="shannon", bandwidth_hz=1e5), 3)


def channel(fading: tuple[float, ...] = (1.0,)) -> Channel:
    blocks = np.array(fading)[:, None] * np.ones((1, 3))
    return Channel(GAIN, np.zeros(3, dtype=np.int64), blocks, np.full(len(fading), 1 / len(fading)))


def allocation(power: float, sign: float, access: Access = "fdm", **more: Any) -> ClassAllocation:
    ones = np.ones(3)
    return ClassAllocation(power * ones, ones / 3, sign * ones, access, True, **more)


def shannon(width_hz: float, power: float) -> Any:
    return width_hz * np.log2(1 + power * POWER_W * GAIN[:, 0] / (NOISE_W_PER_HZ * width_hz))


@pytest.mark.parametrize(
    ("access", "widths", "times"),
    [
        ("fdm", (2e4, 8e4), (1, 1)),
        ("tdm", (1e5, 1e5), (0.2, 0.8)),
        ("parallel", (1e5, 1e5), (1, 1)),
    ],
)
def test_each_class_has_shannons_rate_on_what_it_has(
    access: Access, widths: tuple[float, float], times: tuple[float, float]
) -> None:
    found = rates().lanes(allocation(0.3, 0.2, access), channel(), channel(), POWER_W)
    for lane, width, time, power in zip(found, widths, times, (0.3, 0.7), strict=True):
        expected = np.maximum(time * shannon(width, power), MIN_RATE_BPS)
        np.testing.assert_allclose(lane.rate_bps, expected, rtol=1e-9)
        assert not lane.loss.mean.any()


def test_a_split_by_bits_is_the_joint_packet_in_two_parts() -> None:
    sign, modulus = rates().lanes(allocation(0.25, 0.25), channel((2.0,)), channel((2.0,)), POWER_W)
    whole = 1e5 * np.log2(1 + 2 * POWER_W * GAIN[:, 0] / (NOISE_W_PER_HZ * 1e5))
    np.testing.assert_allclose(sign.rate_bps + modulus.rate_bps, whole, rtol=1e-9)
    np.testing.assert_allclose(modulus.rate_bps, 3 * sign.rate_bps, rtol=1e-9)


def test_fixed_loads_are_lost_as_often_as_a_rayleigh_channel_carries_less() -> None:
    loads = Loads(sign_bits=2e5, modulus_bits=6e5, deadline_s=1.0)
    given = allocation(0.4, 0.3, loads=loads)
    sign, modulus = rates().lanes(given, channel(), channel(), POWER_W)
    np.testing.assert_allclose(sign.rate_bps, 2e5)
    np.testing.assert_allclose(modulus.rate_bps, 6e5)
    fades = np.random.default_rng(1).exponential(size=(40_000, 1))
    for lane, width, power, bits in ((sign, 3e4, 0.4, 2e5), (modulus, 7e4, 0.6, 6e5)):
        snr = fades * power * POWER_W * GAIN[:, 0] / (NOISE_W_PER_HZ * width)
        lost = np.mean(width * np.log2(1 + snr) < bits, axis=0)
        np.testing.assert_allclose(lane.loss.mean, lost, atol=0.012)


def world(**fading: Any) -> RadioWorld:
    section = {
        "tick_s": 0.5,
        "mobility": {"kind": "static"},
        "rate": {"kind": "shannon", "bandwidth_hz": 1e5},
        "fading": {"kind": "rayleigh", "coherence_s": 1.0} | fading,
        "classes": [
            {"name": "sign", "dscp": 46, "rate_share_up": 0.2, "rate_share_down": 0.1},
            {"name": "modulus", "dscp": 10, "rate_share_up": 0.5, "rate_share_down": 0.1},
        ],
    }
    return RadioWorld(RadioConfig.model_validate(section), 4, 1)


def divided(devices: list[int], *, common: bool) -> ClassAllocation:
    power, band, sign = np.full((3, 4), np.nan)
    power[devices], band[devices], sign[devices] = 0.5, 0.25, 0.5
    return ClassAllocation(power, band, sign, "fdm", common)


def test_only_named_devices_are_divided_and_only_from_then_on() -> None:
    plain, other = world(), world()
    before = plain.step(), other.step()
    np.testing.assert_array_equal(before[0].up[1].rate_bps, before[1].up[1].rate_bps)
    assert other.division is not None
    other.division.allocate(divided([1, 2], common=True))
    one, two = plain.step(), other.step()
    changed = one.up[1].rate_bps != two.up[1].rate_bps
    np.testing.assert_array_equal(changed, [False, True, True, False])
    # The default class, and whatever goes down, has what it had.
    np.testing.assert_array_equal(one.up[0].rate_bps, two.up[0].rate_bps)
    np.testing.assert_array_equal(one.down[2].rate_bps, two.down[2].rate_bps)


def test_with_a_common_fade_equal_classes_have_equal_rates_and_else_their_own() -> None:
    for common in (True, False):
        links = world()
        assert links.division is not None
        links.division.allocate(divided([0, 1, 2, 3], common=common))
        ticks = [links.step() for _ in range(6)]
        same = [np.array_equal(tick.up[1].rate_bps, tick.up[2].rate_bps) for tick in ticks]
        assert all(same) if common else not any(same)


def test_what_a_server_reads_of_channels_predicts_the_mean_snr() -> None:
    links = world()
    tick = links.step()
    assert links.division is not None
    mean_snr = 1 / (links.division.noise_per_hz * 1e5)
    fade = 10 ** (tick.snr_up_db / 10) / mean_snr
    assert np.all((fade > 1e-3) & (fade < 20))
    assert links.division.rates.bandwidth_hz == pytest.approx(4e5)
