"""Cell-free MIMO as a rate model, through the whole radio world."""

import numpy as np
import pytest
from scenes import make_scene

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel, LinkRates
from fadelab_emulation.rate.cell_free.model import CellFree, CellFreeConfig
from fadelab_emulation.world import RadioWorld

# Percentiles 1, 10, 50 and 90 of the uplink's rate in Mbit/s over devices and drops, all at full
# power, as evaluated independently for the published set-up (16 access points of 4 antennas on
# 1 km^2, 10 pilots in 200 symbols, 20 MHz, 100 mW).
KNOWN_MBPS = {20: (0.7, 2.5, 22.7, 43.5), 40: (0.2, 1.4, 9.6, 40.8)}


def square_kilometre(fading: object = None, **rate: object) -> RadioConfig:
    return RadioConfig.model_validate(
        {
            "area_m": (1000, 1000),
            "sites": {"kind": "grid", "columns": 4, "rows": 4, "jitter": 0.25},
            "wrap_around": True,
            "site_height_m": 11.5,
            "device_height_m": 1.5,
            "mobility": {"kind": "static"},
            "path_loss": {"kind": "log_distance", "exponent": 3.67, "reference_loss_db": 30.5},
            "shadowing": {"std_db": 4.0},
            "fading": fading or {"kind": "none"},
            "uplink_power_w": 0.1,
            "downlink_power_w": 0.2,
            "rate": {"kind": "cell_free", **rate},
        }
    )


def drops_mbps(devices: int, drops: int, **rate: object) -> FloatArray:
    """Return uplink rates of independent places and shadowing, shape ``(drops, devices)``."""
    config = square_kilometre(**rate)
    worlds = (RadioWorld(config, devices, seed) for seed in range(drops))
    return np.array([world.step().rate_up_bps for world in worlds]) / 1e6


@pytest.mark.parametrize("devices", [20, 40])
def test_percentiles_of_the_published_set_up(devices: int) -> None:
    """The known percentiles lie where those of five drops fall in 95 of 100 cases.

    They come from about five drops: from many more, the lowest would scatter less than they differ.
    The upper two are held against 400 drops directly.
    """
    mbps = drops_mbps(devices, 400)
    known = np.array(KNOWN_MBPS[devices])
    pick = np.random.default_rng(1)
    few = [np.percentile(mbps[pick.integers(0, 400, 5)], [1, 10, 50, 90]) for _ in range(2000)]
    low, high = np.percentile(few, [2.5, 97.5], axis=0)
    assert np.all((known > low) & (known < high)), (low, high)
    assert np.percentile(mbps, [50, 90]) == pytest.approx(known[2:], rel=0.15)
    assert np.percentile(mbps, 90) == pytest.approx(known[3], rel=0.04)


def test_local_mmse_is_better_than_maximum_ratio_for_most_devices() -> None:
    plain = drops_mbps(20, 10)
    better = drops_mbps(20, 10, combining="lp_mmse")
    assert np.median(better) > 1.5 * np.median(plain)
    assert np.mean(better > plain) > 0.95


def test_a_world_of_one_device_has_the_rate_of_its_formula() -> None:
    """One device, one access point: g = tau rho b^2 / (tau rho b + 1), noise -94 dBm."""
    model = CellFreeConfig(antennas=3).build(make_scene(1))
    assert 10 * np.log10(model.noise_w * 1e3) == pytest.approx(-93.99, abs=0.01)
    beta = 1e-12
    rho = 0.1 / model.noise_w
    gamma = 10 * rho * beta**2 / (10 * rho * beta + 1)
    up = (3 * gamma) ** 2 * rho / (3 * gamma * beta * rho + 3 * gamma)
    down = 2 * rho * (3 * gamma) ** 2 / (3 * gamma) / (2 * rho * beta + 1)
    rates = model.rates(channel([[beta]]), np.array([0.1]), 0.2)
    assert rates.snr_up_db[0] == pytest.approx(10 * np.log10(up))
    assert rates.rate_up_bps[0] == pytest.approx(19e6 * np.log2(1 + up))
    assert rates.rate_down_bps[0] == pytest.approx(19e6 * np.log2(1 + down))


def channel(gain: list[list[float]] | FloatArray, t_s: float = 0.0) -> Channel:
    gains = np.array(gain)
    site = np.zeros(len(gains), dtype=np.int64)
    return Channel(gains, site, np.ones((1, 1)), np.ones(1), t_s)


GAINS = np.power(10, np.random.default_rng(5).uniform(-11, -9, (6, 4)))


def built(devices: int = 6, **settings: object) -> CellFree:
    config = CellFreeConfig.model_validate({"pilot_length": 3, **settings})
    return config.build(make_scene(devices, sites_m=[(1, 1), (2, 2), (3, 3), (4, 4)]))


def test_one_device_s_power_changes_the_others_rates() -> None:
    model = built()
    here = channel(GAINS)
    before = model.rates(here, np.full(6, 0.1), 0.2)
    power_w = np.full(6, 0.1)
    power_w[2] = 0.01
    after = model.rates(here, power_w, 0.2)
    assert after.rate_up_bps[2] < before.rate_up_bps[2]
    assert np.all(np.delete(after.rate_up_bps > before.rate_up_bps, 2))
    assert after.rate_down_bps.tolist() == before.rate_down_bps.tolist()
    assert model.rates(here, power_w, 0.1).rate_down_bps.tolist() != after.rate_down_bps.tolist()


@pytest.mark.parametrize("combining", ["mr", "lp_mmse"])
def test_powers_that_are_changed_in_place_are_noticed(combining: str) -> None:
    model = built(combining=combining, lp_mmse_period_s=100.0)
    here = channel(GAINS)
    power_w = np.full(6, 0.1)
    before = model.rates(here, power_w, 0.2).rate_up_bps
    power_w[0] = 0.05
    assert model.rates(here, power_w, 0.2).rate_up_bps[0] < before[0]


def test_fading_and_serving_site_have_no_say() -> None:
    plain = built().rates(channel(GAINS), np.full(6, 0.1), 0.2)
    faded = Channel(GAINS, np.full(6, 3), np.array([[0.01], [1.99]]), np.array([0.5, 0.5]))
    assert_alike(built().rates(faded, np.full(6, 0.1), 0.2), plain)


def assert_alike(one: LinkRates, other: LinkRates) -> None:
    assert one.rate_up_bps.tolist() == other.rate_up_bps.tolist()
    assert one.rate_down_bps.tolist() == other.rate_down_bps.tolist()


def test_pilots_stay_unless_a_period_is_given() -> None:
    moved = np.roll(GAINS, 1, axis=1)[::-1]
    fresh = built().rates(channel(moved), np.full(6, 0.1), 0.2)

    def later(t_s: float, **settings: object) -> LinkRates:
        model = built(**settings)
        model.rates(channel(GAINS), np.full(6, 0.1), 0.2)
        return model.rates(channel(moved, t_s), np.full(6, 0.1), 0.2)

    kept = later(1e6)
    assert kept.rate_up_bps.tolist() != fresh.rate_up_bps.tolist()
    assert_alike(later(0.9, pilot_period_s=1.0), kept)
    assert_alike(later(1.0, pilot_period_s=1.0), fresh)


def test_local_mmse_holds_for_its_period() -> None:
    model = built(combining="lp_mmse", lp_mmse_period_s=1.0)
    powers_w = np.full(6, 0.1)
    first = model.rates(channel(GAINS), powers_w, 0.2)
    held = model.rates(channel(GAINS * 0.5, 0.9), powers_w, 0.2)
    assert held.rate_up_bps.tolist() == first.rate_up_bps.tolist()
    assert held.rate_down_bps.tolist() != first.rate_down_bps.tolist()
    renewed = model.rates(channel(GAINS * 0.5, 1.0), powers_w, 0.2)
    assert renewed.rate_up_bps.tolist() != first.rate_up_bps.tolist()


def test_directions_share_the_data_symbols() -> None:
    whole = built().rates(channel(GAINS), np.full(6, 0.1), 0.2)
    half = built(data_share=0.5).rates(channel(GAINS), np.full(6, 0.1), 0.2)
    for one, other in (
        (half.rate_up_bps, whole.rate_up_bps),
        (half.rate_down_bps, whole.rate_down_bps),
    ):
        assert one == pytest.approx(np.maximum(other / 2, MIN_RATE_BPS))
        assert np.median(one) > MIN_RATE_BPS


def test_the_floor_holds() -> None:
    model = built()
    rates = model.rates(channel(GAINS * 1e-9), np.full(6, 0.1), 0.2)
    assert rates.rate_up_bps.tolist() == [MIN_RATE_BPS] * 6
    assert rates.rate_down_bps.tolist() == [MIN_RATE_BPS] * 6


def test_rates_are_their_own_ergodic_rates_and_the_same_for_a_seed() -> None:
    rayleigh = {"kind": "rayleigh", "coherence_s": 0.02}
    config = square_kilometre(fading=rayleigh)
    tick, again = (RadioWorld(config, 15, 3).step() for _ in range(2))
    assert tick.ergodic_up_bps.tolist() == tick.rate_up_bps.tolist()
    assert tick.rate_up_bps.tolist() == again.rate_up_bps.tolist()


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("pilot_length", 200, "pilots of 200 symbols leave no room for data in a coherence block"),
        ("antennas", 0, "antennas"),
        ("antennas", 257, "antennas"),
        ("pilot_power_w", 0.0, "pilot_power_w"),
        ("data_share", 0.0, "data_share"),
        ("combining", "zf", "combining"),
        ("realisations", 1, "realisations"),
        ("pilot_period_s", 0.0, "pilot_period_s"),
    ],
)
def test_impossible_settings_are_refused(field: str, value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CellFreeConfig.model_validate({field: value})


def test_a_world_too_large_for_monte_carlo_is_refused() -> None:
    config = square_kilometre(combining="lp_mmse", realisations=100_000)
    with pytest.raises(ValueError, match="at most 16777216 are kept"):
        RadioWorld(config, 40, 1)
