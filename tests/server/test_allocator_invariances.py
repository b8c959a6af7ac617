"""What no power control may depend on: units, order, and who is silent."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.server.cell_free_drops import invented, uneven_load

from fadelab_server.allocator.coordinate_descent import coordinate_descent
from fadelab_server.allocator.dinkelbach import dinkelbach
from fadelab_server.allocator.full_power import full_power
from fadelab_server.allocator.min_max_latency import min_max_latency
from fadelab_server.allocator.round_cost import Allocation, CostWeights, RoundLoad
from fadelab_server.allocator.sqp_budget import sqp_budget
from fadelab_server.allocator.sqp_weighted import sqp_weighted
from fadelab_server.allocator.uplink import UplinkStatistics
from fadelab_server.allocator.wmmse import wmmse

WEIGHTS = CostWeights(2.0, 1.0)
METHODS: dict[str, Callable[[UplinkStatistics, RoundLoad], Allocation]] = {
    "full_power": full_power,
    "min_max_latency": min_max_latency,
    "dinkelbach": dinkelbach,
    "wmmse": wmmse,
    "sqp_weighted": lambda uplink, load: sqp_weighted(uplink, load, weights=WEIGHTS),
    "sqp_budget": lambda uplink, load: sqp_budget(uplink, load, energy_j=1.0, latency_s=10.0),
    "coordinate_descent": lambda uplink, load: coordinate_descent(uplink, load, weights=WEIGHTS),
}
# Where the order of devices or a coarse tolerance is part of the method, results differ more.
CLOSENESS = {"coordinate_descent": 0.05, "wmmse": 1e-3}


def assert_alike(name: str, one: Allocation, other: Allocation) -> None:
    close = CLOSENESS.get(name, 1e-5)
    assert other.round_s == pytest.approx(one.round_s, rel=close)
    assert other.round_j == pytest.approx(one.round_j, rel=10 * close)


cases = settings(max_examples=15, deadline=None)
drops = st.tuples(st.integers(1, 6), st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("name", METHODS)
@cases
@given(drops, st.lists(st.floats(1e-12, 1e12), min_size=6, max_size=6))
def test_the_unit_of_a_device_s_terms_does_not_matter(
    name: str, drop: tuple[int, int], units: list[float]
) -> None:
    uplink, load = invented(*drop), uneven_load(*drop)
    unit = np.array(units)[: drop[0]]
    scaled = replace(
        uplink,
        coherent_gain=uplink.coherent_gain * unit,
        own_interference=uplink.own_interference * unit,
        cross_interference=uplink.cross_interference * unit[:, None],
        noise=uplink.noise * unit,
    )
    assert_alike(name, METHODS[name](uplink, load), METHODS[name](scaled, load))


@pytest.mark.parametrize("name", METHODS)
@cases
@given(drops, st.randoms(use_true_random=False))
def test_the_order_of_devices_does_not_matter(
    name: str, drop: tuple[int, int], order: object
) -> None:
    uplink, load = invented(*drop), uneven_load(*drop)
    shuffled = np.random.default_rng(order.getrandbits(32)).permutation(drop[0])  # type: ignore[attr-defined]
    plain = METHODS[name](uplink, load)
    mixed = METHODS[name](uplink.of(shuffled), RoundLoad(load.bits[shuffled]))
    assert_alike(name, plain, mixed)


@pytest.mark.parametrize("name", METHODS)
@cases
@given(drops, st.floats(1e-3, 1e3))
def test_twice_the_bits_in_twice_the_band_are_the_same(
    name: str, drop: tuple[int, int], factor: float
) -> None:
    uplink, load = invented(*drop), uneven_load(*drop)
    wider = replace(uplink, bandwidth_hz=uplink.bandwidth_hz * factor)
    plain = METHODS[name](uplink, load)
    assert_alike(name, plain, METHODS[name](wider, RoundLoad(load.bits * factor)))


@pytest.mark.parametrize("name", METHODS)
@cases
@given(drops)
def test_results_are_powers_and_their_predictions(name: str, drop: tuple[int, int]) -> None:
    uplink, load = invented(*drop), uneven_load(*drop)
    result = METHODS[name](uplink, load)
    assert np.all((result.coefficient >= 0) & (result.coefficient <= 1))
    assert result.rate_bps == pytest.approx(uplink.rate_bps(result.coefficient))
    # Only the largest sum rate may leave somebody with nothing at all.
    sends = result.coefficient > 0
    assert sends.all() or name == "wmmse"
    upload_s = load.bits[sends] / result.rate_bps[sends]
    assert result.upload_s[sends] == pytest.approx(upload_s)
    assert np.all(result.upload_s[~sends] == np.inf)
    radiated_w = uplink.full_power_w * result.coefficient[sends]
    assert result.upload_j[sends] == pytest.approx(radiated_w * upload_s)
    assert np.all(result.upload_j[~sends] == 0)
    assert result.residual >= 0


@pytest.mark.parametrize("name", METHODS)
def test_a_device_that_nobody_hears_gets_no_power_and_changes_nothing(name: str) -> None:
    uplink, load = invented(4, 9), uneven_load(4, 9)
    uplink.coherent_gain[1] = 0.0
    rest = np.array([0, 2, 3])
    among = METHODS[name](uplink, load)
    apart = METHODS[name](uplink.of(rest), RoundLoad(load.bits[rest]))
    assert among.coefficient[1] == 0
    assert among.round_s == np.inf
    assert among.coefficient[rest] == pytest.approx(apart.coefficient, rel=1e-9)
    assert among.round_j == pytest.approx(apart.round_j)


@pytest.mark.parametrize("name", METHODS)
def test_hopeless_devices_and_extreme_ranges_stay_finite(name: str) -> None:
    uplink, load = invented(5, 8), uneven_load(5, 8)
    uplink.coherent_gain[0] = 1e-12
    uplink.cross_interference[2, 3] = 1e9
    result = METHODS[name](uplink, load)
    assert np.all(np.isfinite(result.coefficient))
    assert np.isfinite(result.residual)
    assert not np.any(np.isnan(result.upload_s) | np.isnan(result.upload_j))
