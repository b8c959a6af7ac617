"""Rates against hand-worked points."""

import numpy as np
import pytest
from scenes import make_scene

from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel
from fadelab_emulation.rate.fixed import FixedRateConfig
from fadelab_emulation.rate.receiver import noise_power_w
from fadelab_emulation.rate.shannon import ShannonConfig

SCENE = make_scene(devices=2)
# With this noise density a band of 1 MHz holds exactly 1 microwatt: 10 log10(1e-12 W / 1 mW).
EASY = {"noise_dbm_per_hz": -90.0, "noise_figure_db": 0.0}


def gain(*blocks: list[float], share: list[float] | None = None) -> Channel:
    """Return two devices' gains by fading block, at a site whose mean gain is 1."""
    return Channel(
        gain=np.ones((2, 1)),
        site=np.zeros(2, dtype=np.int64),
        fading=np.array(blocks),
        share=np.array(share or [1.0]),
    )


def test_noise_of_one_megahertz_at_room_temperature() -> None:
    assert noise_power_w(1e6, -174.0, 0.0) == pytest.approx(3.98107e-15, rel=1e-5)
    assert noise_power_w(1e6, -174.0, 10.0) == pytest.approx(3.98107e-14, rel=1e-5)


def test_rates_by_hand() -> None:
    """SNR 1 gives one bit, 3 two bits, 15 four bits per second and hertz."""
    model = ShannonConfig(bandwidth_hz=1e6, **EASY).build(SCENE)
    rates = model.rates(gain([1e-6, 3e-6]), np.array([1.0, 5.0]), 15.0)
    assert rates.rate_up_bps == pytest.approx([1e6, 4e6])
    assert rates.rate_down_bps == pytest.approx([4e6, np.log2(46) * 1e6])
    assert rates.snr_up_db == pytest.approx([0.0, 10 * np.log10(15)])


def test_power_and_bandwidth_of_a_known_link_budget() -> None:
    """0.2 W over 110 dB into 200 kHz at 9 dB: 23.01 - 110 + 174 - 53.01 - 9 = 25.0 dB."""
    model = ShannonConfig(bandwidth_hz=200e3, noise_figure_db=9.0).build(SCENE)
    rates = model.rates(gain([1e-11, 1e-11]), np.array([0.2, 0.2]), 1.0)
    assert rates.snr_up_db[0] == pytest.approx(25.0, abs=0.01)
    assert rates.rate_up_bps[0] == pytest.approx(200e3 * np.log2(1 + 10**2.5), rel=1e-3)


def test_a_wider_downlink_hears_more_noise_and_carries_more() -> None:
    """Ten times the band holds 10 microwatts of noise: SNR 15 needs ten times the power."""
    config = ShannonConfig(bandwidth_hz=1e6, downlink_bandwidth_hz=1e7, **EASY)
    model = config.build(SCENE)
    rates = model.rates(gain([1e-6, 3e-6]), np.array([1.0, 1.0]), 150.0)
    assert rates.rate_up_bps == pytest.approx([1e6, 2e6])
    assert rates.rate_down_bps == pytest.approx([4e7, np.log2(46) * 1e7])
    assert model.noise_w == pytest.approx(1e-5)


def test_the_effective_rate_is_the_mean_of_the_blocks_rates_and_not_the_rate_of_the_mean() -> None:
    model = ShannonConfig(bandwidth_hz=1e6, **EASY).build(SCENE)
    uneven = gain([1e-6, 0.0], [15e-6, 3e-6], share=[0.25, 0.75])
    rates = model.rates(uneven, np.ones(2), 1.0)
    assert rates.rate_up_bps == pytest.approx([3.25e6, 1.5e6])
    assert rates.snr_up_db == pytest.approx(10 * np.log10([11.5, 2.25]))


def test_only_the_serving_site_counts() -> None:
    model = ShannonConfig(bandwidth_hz=1e6, **EASY).build(make_scene(2, sites_m=[(1, 1), (2, 2)]))
    gains = np.array([[1e-6, 3e-6], [15e-6, 7e-6]])
    channel = Channel(gains, np.array([1, 0]), fading=np.ones((1, 1)), share=np.ones(1))
    assert model.rates(channel, np.ones(2), 1.0).rate_up_bps == pytest.approx([2e6, 4e6])


def test_the_bound_holds_in_each_block_and_the_floor_for_the_mean() -> None:
    model = ShannonConfig(bandwidth_hz=1e6, max_rate_bps=2e6, **EASY).build(SCENE)
    blocks = gain([15e-6, 1e-12], [1e-6, 1e-12], share=[0.5, 0.5])
    assert model.rates(blocks, np.ones(2), 1.0).rate_up_bps == pytest.approx([1.5e6, MIN_RATE_BPS])


def test_efficiency_scales_the_capacity() -> None:
    model = ShannonConfig(bandwidth_hz=1e6, efficiency=0.75, **EASY).build(SCENE)
    assert model.rates(gain([3e-6, 3e-6]), np.ones(2), 1.0).rate_up_bps[0] == pytest.approx(1.5e6)


def test_fixed_rates_ignore_channel_and_power() -> None:
    model = FixedRateConfig(rate_up_bps=5e6, rate_down_bps=20e6).build(SCENE)
    for power_w in (1e-6, 100.0):
        rates = model.rates(gain([1e-18, 1.0]), np.full(2, power_w), power_w)
        assert rates.rate_up_bps.tolist() == [5e6, 5e6]
        assert rates.rate_down_bps.tolist() == [20e6, 20e6]


@pytest.mark.parametrize("rate_bps", [-1.0, 0.0, 63_999.0, 1e12])
def test_absurd_fixed_rates_are_refused(rate_bps: float) -> None:
    with pytest.raises(ValueError, match=r"greater than or equal to 64000|less than or equal to"):
        FixedRateConfig(rate_up_bps=rate_bps, rate_down_bps=1e6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("bandwidth_hz", 0.0), ("efficiency", 1.01), ("noise_figure_db", -1.0), ("max_rate_bps", 1.0)],
)
def test_impossible_shannon_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ShannonConfig.model_validate({"bandwidth_hz": 1e6, field: value})


def test_a_deafening_receiver_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of -5 dBm per hertz .* 9 dB together exceed 0 dBm"):
        ShannonConfig(bandwidth_hz=1e6, noise_dbm_per_hz=-5.0)
