"""SP-FL's allocation: success and error against Monte Carlo, optima against other solvers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from fadelab_server.allocator.sp_fl import SpFlAllocation, equal_shares, predict, sp_fl
from fadelab_server.allocator.sp_fl_bandwidth import better_band, least_band
from fadelab_server.allocator.sp_fl_error import (
    GradientStatistics,
    bias_bound,
    error_parts,
    variance,
)
from fadelab_server.allocator.sp_fl_link import (
    PacketLinks,
    Shares,
    losses,
    outage,
    success,
)
from fadelab_server.allocator.sp_fl_newton import LEAST_SHARE, best_power
from fadelab_server.allocator.sp_fl_objective import by_losses, objective
from fadelab_server.allocator.uplink import F64

ACCESSES = ("fdm", "tdm", "parallel")
FADINGS = ("independent", "common")


def cell(devices: int, deadline_s: float, seed: int = 1, **more: Any) -> PacketLinks:
    """Return a street canyon without sight, 50 to 500 m, 23 dBm, 1e5 entries of 1 and 3 bit."""
    distance_m = np.random.default_rng(seed).uniform(50, 500, devices)
    loss_db = 22.4 + 35.3 * np.log10(distance_m) + 21.3 * np.log10(2.4)
    noise_per_hz = 10 ** ((-174 - 23 + loss_db) / 10)
    band_hz = 10e6 * devices / 20
    return PacketLinks(noise_per_hz, band_hz, deadline_s, 1e5, 3e5 + 64, **more)


def gradients(devices: int, seed: int = 1) -> GradientStatistics:
    """Return gradients of different norms, a substitute with a correlation of 0.8."""
    energy = np.random.default_rng(seed).uniform(0.5, 2, devices)
    return GradientStatistics(
        energy, np.ones(devices), 0.8 * np.sqrt(energy), 0.15 * energy, kappa=devices**-0.5
    )


def uneven(devices: int, seed: int = 1) -> Shares:
    rng = np.random.default_rng(seed)
    band = rng.uniform(0.5, 1.5, devices)
    return Shares(rng.uniform(0.2, 0.8, devices), band / band.sum(), rng.uniform(0.2, 0.8, devices))


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("fading", FADINGS)
def test_success_against_monte_carlo_of_fades(access: Any, fading: Any) -> None:
    links, shares, draws = cell(4, 0.15, access=access, fading=fading), uneven(4), 200_000
    rng = np.random.default_rng(5)
    sign_fade = rng.exponential(size=(draws, 4))
    modulus_fade = sign_fade if fading == "common" else rng.exponential(size=(draws, 4))
    band_hz = links.bandwidth_hz * shares.band
    part = {"sign": shares.sign, "modulus": 1 - shares.sign}

    def arrives(packet: str, bits: float, power: F64, fade: F64) -> np.ndarray:
        width_hz = band_hz * (part[packet] if access == "fdm" else 1.0)
        time_s = 0.15 * (part[packet] if access == "tdm" else 1.0)
        snr = power * fade / (width_hz * links.noise_per_hz)
        return width_hz * np.log2(1 + snr) * time_s >= bits

    signs = arrives("sign", links.sign_bits, shares.power, sign_fade)
    both = signs & arrives("modulus", links.modulus_bits, 1 - shares.power, modulus_fade)
    sign, modulus = success(links, shares)
    # Five standard errors.
    assert signs.mean(axis=0) == pytest.approx(sign, abs=5 * 0.5 / draws**0.5)
    assert both.mean(axis=0) == pytest.approx(sign * modulus, abs=5 * 0.5 / draws**0.5)


def test_outage_is_convex_and_its_derivatives_are_right() -> None:
    links = cell(1, 0.2)
    width_hz = np.geomspace(1e4, 1e7, 40)[:, None]
    here = outage(links, 1e5, width_hz, 0.2)
    step = width_hz * 1e-4
    above, below = (outage(links, 1e5, width_hz + sign * step, 0.2) for sign in (1, -1))
    assert (above.cost - below.cost) / (2 * step) == pytest.approx(here.slope, rel=1e-3)
    assert (above.slope - below.slope) / (2 * step) == pytest.approx(here.curvature, rel=1e-3)
    assert np.all(here.slope < 0)
    assert np.all(here.curvature > 0)


def test_error_against_monte_carlo_of_the_aggregate() -> None:
    """Six devices, 40 entries, a common part in all; moduli rounded at random to two levels."""
    rng = np.random.default_rng(3)
    devices, draws = 6, 60_000
    gradient = rng.standard_normal((devices, 40)) + rng.standard_normal(40)
    signs, moduli = np.sign(gradient), np.abs(gradient)
    substitute = moduli.mean(axis=0) * rng.uniform(0.7, 1.3, 40)
    top = moduli.max(axis=1, keepdims=True)
    sign, modulus = rng.uniform(0.5, 1, devices), rng.uniform(0, 1, devices)
    statistics = GradientStatistics(
        (moduli**2).sum(axis=1),
        np.full(devices, substitute @ substitute),
        moduli @ substitute,
        (moduli * (top - moduli)).sum(axis=1),
        kappa=1.0,
    )
    error = 0.0
    for _ in range(draws // 2000):
        size = (2000, devices, 1)
        quantised = top * (rng.random((2000, devices, 40)) < moduli / top)
        kept = np.where(rng.random(size) < modulus[:, None], quantised, substitute)
        received = (rng.random(size) < sign[:, None]) * signs * kept / sign[:, None]
        aggregate = received.mean(axis=1)
        error += np.square(aggregate - gradient.mean(axis=0)).sum(axis=1).mean() / (draws // 2000)
    off = ((1 - modulus)[:, None] * (signs * substitute - gradient)).mean(axis=0)
    exact_bias = off @ off
    assert error == pytest.approx(exact_bias + variance(statistics, sign, modulus), rel=0.01)
    assert exact_bias <= bias_bound(statistics, modulus)
    total = error_parts(statistics, 1 / sign, modulus).value.sum()
    assert total == pytest.approx(
        (bias_bound(statistics, modulus) + variance(statistics, sign, modulus)) / 2
    )


def test_kappa_of_errors_that_are_orthogonal() -> None:
    """Each device has its own entry: compensation errors add up in squares, kappa is 1 / K."""
    moduli, modulus = np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.5, 0.9])
    # The substitute is zero.
    statistics = GradientStatistics(moduli**2, np.zeros(3), np.zeros(3), np.zeros(3), kappa=1 / 3)
    exact = np.square((1 - modulus) * moduli / 3).sum()
    assert bias_bound(statistics, modulus) == pytest.approx(exact)


@pytest.mark.parametrize("fading", FADINGS)
def test_derivatives_by_losses_are_those_of_the_objective(fading: Any) -> None:
    links, statistics = cell(5, 0.15, fading=fading), gradients(5)
    sign_loss, modulus_loss = np.random.default_rng(2).uniform(0.01, 2, (2, 5))
    here = by_losses(links, statistics, sign_loss, modulus_loss)
    step = 1e-6
    up, down = (by_losses(links, statistics, sign_loss + s, modulus_loss) for s in (step, -step))
    assert (up.value - down.value) / (2 * step) == pytest.approx(here.by_sign_loss, rel=1e-4)
    up, down = (by_losses(links, statistics, sign_loss, modulus_loss + s) for s in (step, -step))
    assert (up.value - down.value) / (2 * step) == pytest.approx(
        here.by_modulus_loss, rel=1e-4, abs=1e-12
    )


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("fading", FADINGS)
@pytest.mark.parametrize("deadline_s", [0.4, 0.15, 0.06])
def test_power_split_against_a_fine_grid(access: Any, fading: Any, deadline_s: float) -> None:
    links, statistics = cell(6, deadline_s, access=access, fading=fading), gradients(6)
    shares = uneven(6)
    found = best_power(links, statistics, shares)
    part = by_losses(links, statistics, *losses(links, found)).value
    grid = np.linspace(LEAST_SHARE, 1 - LEAST_SHARE, 4001)[:, None] * np.ones(6)
    tried = by_losses(links, statistics, *losses(links, replace(shares, power=grid)))
    known = tried.value.min(axis=0)
    assert np.all(part <= known + 1e-9 * np.abs(known))
    assert part == pytest.approx(known, rel=1e-4)


def reference(links: PacketLinks, statistics: GradientStatistics, start: Shares) -> float:
    """Return the least objective that SLSQP finds over all shares at once."""
    devices = len(start.band)
    fdm = links.access == "fdm"

    def shares(x: F64) -> Shares:
        power, one, other = x.reshape(3, devices)
        return Shares(power, one + other, one / (one + other)) if fdm else Shares(power, one, other)

    first = (
        (start.band * start.sign, start.band * (1 - start.sign))
        if fdm
        else (start.band, start.sign)
    )
    split, width = (LEAST_SHARE, 1 - LEAST_SHARE), (least_band(devices), 1.0)
    found = minimize(
        lambda x: np.log(objective(links, statistics, shares(x))),
        np.concatenate([start.power, *first]),
        method="SLSQP",
        bounds=[split] * devices + [width] * devices + [width if fdm else split] * devices,
        constraints={
            "type": "ineq",
            "fun": lambda x: 1 - (x[devices:].sum() if fdm else x[devices : 2 * devices].sum()),
        },
        options={"maxiter": 400, "ftol": 1e-12},
    )
    return float(np.exp(found.fun))


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("fading", FADINGS)
@pytest.mark.parametrize("deadline_s", [0.3, 0.14])
def test_optimum_against_a_general_solver(access: Any, fading: Any, deadline_s: float) -> None:
    links, statistics = cell(5, deadline_s, access=access, fading=fading), gradients(5)
    result = sp_fl(links, statistics)
    starts = [result.shares, equal_shares(links), uneven(5)]
    known = min(reference(links, statistics, start) for start in starts)
    assert result.objective <= known * (1 + 1e-4)
    assert result.residual < 1e-6


@pytest.mark.parametrize("deadline_s", [0.14, 0.06])
def test_twenty_devices_converge_near_a_stationary_point(deadline_s: float) -> None:
    links, statistics = cell(20, deadline_s), gradients(20)
    result = sp_fl(links, statistics)
    assert result.iterations <= 60
    assert result.residual < 1e-6
    assert result.shares.band.sum() == pytest.approx(1)
    further = reference(links, statistics, result.shares)
    assert result.objective <= further * (1 + 1e-4)


@pytest.mark.parametrize("fading", FADINGS)
@pytest.mark.parametrize("free_class", [True, False])
def test_a_convex_approximation_never_makes_it_worse(fading: Any, free_class: bool) -> None:
    for seed in range(5):
        links, statistics = cell(8, 0.13, seed, fading=fading), gradients(8, seed)
        before = uneven(8, seed)
        after = better_band(links, statistics, before, free_class=free_class)
        assert objective(links, statistics, after) < objective(links, statistics, before)
        assert after.band.sum() == pytest.approx(1)
        if not free_class:
            assert after.sign.tolist() == before.sign.tolist()


def joint_share(result: SpFlAllocation) -> float:
    return float(np.median(result.modulus_success))


def test_with_ample_resources_nothing_is_gained() -> None:
    links, statistics = cell(10, 5.0), gradients(10)
    result = sp_fl(links, statistics)
    equal = predict(links, statistics, equal_shares(links))
    assert equal.objective < result.objective * 1.01
    assert joint_share(result) > 0.99


def test_scarcity_is_where_unequal_shares_pay() -> None:
    gain = []
    for deadline_s in (0.4, 0.2, 0.14):
        links, statistics = cell(20, deadline_s), gradients(20)
        equal = predict(links, statistics, equal_shares(links))
        gain.append(equal.objective / sp_fl(links, statistics).objective)
    assert gain[0] < 1.2
    assert gain[0] < gain[1] < gain[2]
    assert gain[2] > 2


def test_hopeless_moduli_leave_signs_only() -> None:
    links, statistics = replace(cell(10, 0.06), modulus_bits=1e7), gradients(10)
    result = sp_fl(links, statistics)
    assert np.all(result.modulus_success < 1e-3)
    assert np.all(result.sign_success > 0.7)
    assert np.all(result.shares.power > 0.98)
    assert np.all(result.shares.sign > 0.9)
    # As good as if there were no modulus packets: their bits no longer matter.
    longer = sp_fl(replace(links, modulus_bits=1e8), statistics)
    assert longer.objective == pytest.approx(result.objective, rel=1e-4)


def test_one_device_has_the_whole_band() -> None:
    result = sp_fl(cell(1, 0.2), gradients(1))
    assert result.shares.band == pytest.approx([1.0])


def test_parallel_access_is_better_since_it_has_spectrum_for_nothing() -> None:
    statistics = gradients(10)
    ends = {access: sp_fl(cell(10, 0.15, access=access), statistics) for access in ACCESSES}
    assert ends["parallel"].objective < ends["fdm"].objective < ends["tdm"].objective


def test_a_start_is_not_made_worse() -> None:
    links, statistics = cell(20, 0.14), gradients(20)
    first = sp_fl(links, statistics)
    again = sp_fl(links, statistics, start=first.shares)
    assert again.objective <= first.objective * (1 + 1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_neither_unit_nor_order_of_gradients_matters(devices: int, seed: int, unit: float) -> None:
    links, statistics = cell(devices, 0.15, seed), gradients(devices, seed)
    plain = sp_fl(links, statistics)
    order = np.random.default_rng(seed).permutation(devices)
    mixed = GradientStatistics(
        unit * statistics.modulus_energy[order],
        unit * statistics.compensation_energy[order],
        unit * statistics.overlap[order],
        unit * statistics.quantiser_variance[order],
        kappa=statistics.kappa,
    )
    other = sp_fl(replace(links, noise_per_hz=links.noise_per_hz[order]), mixed)
    assert other.objective == pytest.approx(unit * plain.objective, rel=1e-5)
    assert other.sign_success == pytest.approx(plain.sign_success[order], abs=1e-2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"noise_per_hz": np.array([1.0, -1.0])}, "noise_per_hz must be positive"),
        ({"deadline_s": 0.0}, "bandwidth, deadline and packet sizes"),
        ({"sign_bits": np.inf}, "bandwidth, deadline and packet sizes"),
    ],
)
def test_impossible_links_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(cell(2, 0.2), **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kappa": 0.0}, "kappa and step"),
        ({"step": 1.5}, "kappa and step"),
        ({"overlap": np.array([3.0, 0.0])}, "larger than the norms allow"),
    ],
)
def test_impossible_gradients_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(gradients(2), **changes)
