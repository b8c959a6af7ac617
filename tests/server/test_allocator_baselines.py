"""Dinkelbach, WMMSE, full power and coordinate descent against grids and other solvers."""

import numpy as np
import pytest
from scipy.optimize import minimize
from tests.server.cell_free_drops import (
    invented,
    model_load,
    power_grid,
    published_drop,
    uneven_load,
)

from fadelab_server.allocator.coordinate_descent import coordinate_descent
from fadelab_server.allocator.dinkelbach import dinkelbach
from fadelab_server.allocator.full_power import full_power
from fadelab_server.allocator.min_max_latency import min_max_latency
from fadelab_server.allocator.round_cost import CostWeights, RoundLoad
from fadelab_server.allocator.sqp_weighted import sqp_weighted
from fadelab_server.allocator.uplink import F64, UplinkStatistics
from fadelab_server.allocator.wmmse import wmmse


def efficiency(statistics: UplinkStatistics, power: F64, z0: float, z1: float) -> float:
    bits = np.log2(1 + statistics.sinr(power))
    return float((bits / (z0 * statistics.full_power_w * power + z1)).min())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", [(1.0, 1.0), (50.0, 1.0)])
def test_dinkelbach_against_a_grid_of_all_powers(seed: int, weights: tuple[float, float]) -> None:
    statistics = invented(2, seed)
    result = dinkelbach(
        statistics, uneven_load(2, seed), radiated_per_w=weights[0], constant=weights[1]
    )
    reached = efficiency(statistics, result.coefficient, *weights)
    known = max(efficiency(statistics, pair, *weights) for pair in power_grid(60))
    assert reached >= known * (1 - 1e-9)
    assert reached == pytest.approx(known, rel=0.1)
    assert result.residual < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_dinkelbach_against_the_convex_form_of_the_whole_problem(seed: int) -> None:
    """min t s.t. ln((z0 P e^y + z1) / log2(1 + SINR(e^y))) <= t, by a general solver."""
    statistics = invented(6, seed)

    def slack(x: F64) -> F64:
        power = np.exp(x[:-1])
        spent = 30 * 0.2 * power + 0.5
        return x[-1] - np.log(spent / np.log2(1 + statistics.sinr(power)))

    found = minimize(
        lambda x: x[-1],
        np.append(np.full(6, -1.0), 5.0),
        method="SLSQP",
        bounds=[(-20, 0)] * 6 + [(None, None)],
        constraints={"type": "ineq", "fun": slack},
        options={"maxiter": 500, "ftol": 1e-13},
    )
    result = dinkelbach(statistics, uneven_load(6, seed), radiated_per_w=30.0, constant=0.5)
    assert efficiency(statistics, result.coefficient, 30.0, 0.5) == pytest.approx(
        np.exp(-found.fun), rel=1e-6
    )


def test_dinkelbach_converges_and_ignores_what_is_to_be_sent() -> None:
    for seed in range(5):
        statistics = published_drop(40, seed)
        result = dinkelbach(statistics, model_load(40))
        uneven = dinkelbach(statistics, uneven_load(40, seed))
        assert result.residual < 1e-8
        assert result.iterations <= 400
        assert efficiency(statistics, uneven.coefficient, 1, 1) == pytest.approx(
            efficiency(statistics, result.coefficient, 1, 1), rel=1e-7
        )


def test_dinkelbach_without_a_price_of_power_evens_the_rates_out() -> None:
    statistics, load = published_drop(20, 4), RoundLoad(np.full(20, 1e6))
    result = dinkelbach(statistics, load, radiated_per_w=1e-9)
    assert result.round_s == pytest.approx(min_max_latency(statistics, load).round_s, rel=1e-6)


@pytest.mark.parametrize(("z0", "z1"), [(0.0, 1.0), (1.0, 0.0), (np.inf, 1.0)])
def test_powers_without_weight_are_refused(z0: float, z1: float) -> None:
    with pytest.raises(ValueError, match="weights of power must be positive"):
        dinkelbach(invented(2, 1), model_load(2), radiated_per_w=z0, constant=z1)


def test_full_power_is_full_power() -> None:
    result = full_power(published_drop(20, 1), model_load(20))
    assert result.coefficient.tolist() == [1.0] * 20
    assert result.round_j == pytest.approx(0.1 * result.upload_s.sum())


def sum_rate(statistics: UplinkStatistics, power: F64) -> float:
    return float(np.log2(1 + statistics.sinr(power)).sum())


@pytest.mark.parametrize("seed", range(4))
def test_wmmse_finds_the_best_of_all_where_interference_is_weak(seed: int) -> None:
    statistics = invented(2, seed, interference=0.1)
    result = wmmse(statistics, uneven_load(2, seed))
    known = max(sum_rate(statistics, pair) for pair in power_grid(80, 1e-4))
    assert sum_rate(statistics, result.coefficient) >= known * (1 - 1e-6)
    assert result.residual <= 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_wmmse_ends_where_a_general_solver_finds_nothing_better(seed: int) -> None:
    statistics = invented(6, seed)
    result = wmmse(statistics, uneven_load(6, seed))
    further = minimize(
        lambda power: -sum_rate(statistics, power),
        result.coefficient,
        method="SLSQP",
        bounds=[(0, 1)] * 6,
        options={"ftol": 1e-12},
    )
    assert sum_rate(statistics, result.coefficient) == pytest.approx(-further.fun, rel=1e-5)


def test_wmmse_sums_up_to_more_than_the_others_and_starves_somebody() -> None:
    for seed in range(5):
        statistics, load = published_drop(40, seed), model_load(40)
        result = wmmse(statistics, load)
        assert result.residual <= 1e-6
        assert result.iterations < 5000
        for other in (full_power(statistics, load), min_max_latency(statistics, load)):
            assert result.rate_bps.sum() > other.rate_bps.sum()
        assert result.upload_s.max() > 1.5 * min_max_latency(statistics, load).upload_s.max()


def test_wmmse_wakes_a_device_that_an_earlier_round_starved() -> None:
    statistics, load = invented(3, 1, interference=0.01), uneven_load(3, 1)
    cold = wmmse(statistics, load)
    warm = wmmse(statistics, load, start=np.array([0.0, 1.0, 1.0]))
    assert warm.coefficient == pytest.approx(cold.coefficient, abs=1e-4)


def smoothed(
    statistics: UplinkStatistics, load: RoundLoad, power: F64, weights: CostWeights
) -> float:
    upload_s = load.bits / statistics.rate_bps(power)
    energy_j = statistics.full_power_w * power @ upload_s
    return float(weights.per_j * energy_j + weights.per_s * (upload_s**8).sum() ** (1 / 8))


@pytest.mark.parametrize("per_j", [1.0, 20.0])
def test_coordinate_descent_against_a_general_solver(per_j: float) -> None:
    statistics, load, weights = invented(4, 2), uneven_load(4, 2), CostWeights(per_j, 1.0)
    result = coordinate_descent(statistics, load, weights=weights, order=8)
    reference = minimize(
        lambda y: np.log(smoothed(statistics, load, np.exp(y), weights)),
        np.full(4, -1.0),
        method="L-BFGS-B",
        bounds=[(-20, 0)] * 4,
        options={"ftol": 1e-14, "gtol": 1e-10},
    )
    reached = smoothed(statistics, load, result.coefficient, weights)
    assert reached == pytest.approx(np.exp(reference.fun), rel=2e-3)
    assert reached >= np.exp(reference.fun) * (1 - 1e-8)


def test_coordinate_descent_ends_where_nobody_alone_improves_anything() -> None:
    statistics, load, weights = invented(5, 3), uneven_load(5, 3), CostWeights(2.0, 1.0)
    result = coordinate_descent(statistics, load, weights=weights, order=8)
    least = smoothed(statistics, load, result.coefficient, weights)
    for device in range(5):
        for power in np.geomspace(1e-6, 1, 100):
            other = result.coefficient.copy()
            other[device] = power
            assert smoothed(statistics, load, other, weights) > least * (1 - 1e-3)


def test_coordinate_descent_comes_near_sequential_quadratic_programming_only() -> None:
    def cost(statistics: UplinkStatistics, per_j: float, order: float) -> tuple[float, float]:
        weights = CostWeights(per_j, 1.0)
        sqp = sqp_weighted(statistics, load, weights=weights)
        turns = coordinate_descent(statistics, load, weights=weights, order=order)
        return (
            per_j * turns.round_j + turns.round_s,
            per_j * sqp.round_j + sqp.round_s,
        )

    load = RoundLoad(np.full(20, 1e6))
    for seed in range(3):
        statistics = published_drop(20, seed)
        for per_j in (1.0, 10.0):
            turns, least = cost(statistics, per_j, 32.0)
            assert least <= turns <= 1.08 * least
        # The maximum itself has kinks where every turn ends at once: nothing is gained.
        stuck, least = cost(statistics, 1.0, np.inf)
        assert stuck == pytest.approx(
            min_max_latency(statistics, load).round_s + min_max_latency(statistics, load).round_j,
            rel=1e-3,
        )


def test_no_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="order of the norm must be at least 1"):
        coordinate_descent(invented(2, 1), model_load(2), weights=CostWeights(1.0, 1.0), order=0.5)
