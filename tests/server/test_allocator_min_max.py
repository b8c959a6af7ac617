"""Min-max latency: all uploads end together, and nothing ends sooner."""

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

from fadelab_server.allocator.min_max_latency import min_max_latency
from fadelab_server.allocator.round_cost import RoundLoad


@pytest.mark.parametrize("devices", [2, 5, 20, 40])
def test_all_uploads_take_equally_long_and_somebody_has_full_power(devices: int) -> None:
    for seed in range(4):
        result = min_max_latency(published_drop(devices, seed), uneven_load(devices, seed))
        # The bisection is far finer than the 1 % that an experiment could see.
        assert result.upload_s.max() < result.upload_s.min() * (1 + 1e-6)
        assert result.coefficient.max() == pytest.approx(1, abs=1e-5)
        assert result.residual < 1e-8


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_faster_on_a_grid_of_all_powers(seed: int) -> None:
    statistics, load = invented(2, seed), uneven_load(2, seed)
    result = min_max_latency(statistics, load)
    longest_s = [(load.bits / statistics.rate_bps(pair)).max() for pair in power_grid(80)]
    assert result.round_s <= min(longest_s) * (1 + 1e-9)
    assert result.round_s == pytest.approx(min(longest_s), rel=0.05)


def test_nothing_is_faster_for_a_general_solver() -> None:
    """SLSQP over the coefficients themselves, from several starts."""
    statistics, load = invented(5, 2), uneven_load(5, 2)
    result = min_max_latency(statistics, load)
    rng = np.random.default_rng(1)
    found = [
        minimize(
            lambda x: x[-1],
            np.append(rng.uniform(0.05, 1, 5), 10.0),
            method="SLSQP",
            bounds=[(1e-4, 1)] * 5 + [(0, None)],
            constraints={
                "type": "ineq",
                "fun": lambda x: x[-1] - load.bits / statistics.rate_bps(x[:-1]),
            },
            options={"maxiter": 500, "ftol": 1e-12},
        )
        for _ in range(6)
    ]
    best_s = min(one.fun for one in found if one.success)
    assert result.round_s == pytest.approx(best_s, rel=1e-5)


def test_one_device_gets_full_power() -> None:
    result = min_max_latency(invented(1, 3), RoundLoad(np.array([1e6])))
    assert result.coefficient == pytest.approx([1.0], abs=1e-6)


def test_without_interference_the_weakest_alone_has_full_power() -> None:
    statistics = invented(4, 5, interference=0.0)
    load = RoundLoad(np.full(4, 1e6))
    result = min_max_latency(statistics, load)
    alone_s = load.bits / statistics.rate_bps(np.ones(4))
    assert result.round_s == pytest.approx(alone_s.max(), rel=1e-6)
    assert result.coefficient.argmax() == alone_s.argmax()


def test_a_hopeless_device_slows_everybody_but_breaks_nothing() -> None:
    statistics = invented(4, 6)
    statistics.coherent_gain[2] = 1e-9
    result = min_max_latency(statistics, RoundLoad(np.full(4, 1e6)))
    # What it would need alone: the others, at the same rate, hardly send.
    sinr = 1e-9 / (1 + statistics.own_interference[2])
    assert result.upload_s == pytest.approx(np.full(4, np.log(2) / (0.9 * sinr)), rel=1e-5)
    assert result.coefficient[2] == pytest.approx(1, abs=1e-5)


def test_a_warm_start_tries_fewer_latencies() -> None:
    load = model_load(40)
    before = min_max_latency(published_drop(40, 1), load)
    again = min_max_latency(published_drop(40, 1), load, start=before.coefficient)
    assert again.round_s == pytest.approx(before.round_s, rel=1e-8)
    assert again.iterations < 0.8 * before.iterations
    assert before.iterations <= 50
