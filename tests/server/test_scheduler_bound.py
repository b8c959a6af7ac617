"""The bound (19) against its literal triple sums, and against a run whose gradients are known."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from tests.server.schedules import random_log

from fadelab_proto.period_report import DriftReport, PeriodReport
from fadelab_server.scheduler.bound import (
    CompletedPeriods,
    TaskConstants,
    bound_terms,
    sampling_noise,
)
from fadelab_server.scheduler.estimates import (
    DriftRates,
    Suprema,
    dissimilarity,
    drift_per_s,
    drift_sums,
    mean_local_gradient,
    with_gradient,
)
from fadelab_server.scheduler.tensors import completions, staleness

CONSTANTS = TaskConstants(
    smoothness=3.0,
    variability=0.7,
    proximal=1.0,
    gradient_sq=2.0,
    regularised_gradient_sq=5.0,
    mixing_min=0.12,
    mixing_max=0.12,
    staleness=5,
)


@pytest.mark.parametrize("seed", range(4))
def test_terms_equal_the_sums_of_the_paper(seed: int) -> None:
    """Loops over g', g and i with X, as printed, arrays by device and version received."""
    rng = np.random.default_rng(seed)
    devices, aggregations = 3, 7
    log = random_log(rng, devices=devices, aggregations=aggregations)
    x = completions(*log.tensors())
    shape = devices, aggregations
    eta, steps = rng.uniform(0.01, 0.1, aggregations), rng.integers(1, 9, shape).astype(float)
    samples, variance = rng.integers(20, 90, shape).astype(float), rng.uniform(1, 5, shape)
    batch = np.floor(samples / 3)
    delta, idle, active = rng.random((3, *shape))
    used = x.any(axis=2)
    reach = (steps[used].max() * eta[used.any(axis=0)].max()) ** 2
    stale, alpha = staleness(x), 0.12
    ka = stale * alpha
    b = noise = d = f = late = 0.0
    for last in range(aggregations):
        q = (ka**last - 1) / (ka - 1)
        late += np.sqrt(4 * ka * reach * 2.0 * 5.0 * q) + (3.0 + 2) * ka * reach * 5.0 * q
        for g, i in itertools.product(range(last + 1), range(devices)):
            size, of = batch[i, g], samples[i, g]
            took = x[i, g, last] * steps[i, g]
            b += eta[g] * took * delta[i, g]
            spread = (1 - size / of) * (of - 1) * 0.7**2 / (size * of) * variance[i, g]
            noise += eta[g] ** 2 * took * spread
            wander = 1.0 / 2 * eta[g] * (steps[i, g] - 1) + steps[i, g]
            d += eta[g] ** 2 * took * 5.0 * wander
            f += x[i, g, last] * (active[i, g] + idle[i, g])
    device, version, order = np.nonzero(x)
    by = np.argsort(order)
    here = device[by], version[by]
    periods = CompletedPeriods(
        eta[version[by]],
        steps[here],
        batch[here],
        samples[here],
        delta[here],
        variance[here],
        idle[here],
        active[here],
    )
    task = replace(CONSTANTS, staleness=stale)
    found = bound_terms(periods, task, loss_first=2.3, loss_last=0.4)
    scale = 1 / (aggregations * eta[version].min())
    assert found.initial_error == pytest.approx(2 * scale / alpha * 1.9)
    assert found.dissimilarity == pytest.approx(b * scale)
    assert found.minibatch_noise == pytest.approx(4 * 3.0 * noise * scale)
    assert found.local_drift == pytest.approx(2 * 1.0 * d * scale)
    assert found.staleness == pytest.approx(late * scale)
    assert found.concept_drift == pytest.approx(2 * f * scale)
    total = sum(getattr(found, name) for name in found.__slots__)
    assert found.total == pytest.approx(total)


def even(aggregations: int = 40, **changes: float) -> CompletedPeriods:
    values = {
        "learning_rate": 0.05, "steps": 4.0, "batch_size": 8.0, "samples": 64.0,
        "dissimilarity": 0.1, "data_variance": 2.0, "idle_drift": 0.0, "active_drift": 0.0,
    } | changes  # fmt: skip
    return CompletedPeriods(**{name: np.full(aggregations, v) for name, v in values.items()})


def test_staleness_term_is_continuous_at_one_and_explodes_above() -> None:
    def term(alpha: float) -> float:
        task = replace(CONSTANTS, mixing_min=alpha, mixing_max=alpha)
        return bound_terms(even(400), task, loss_first=1, loss_last=0).staleness

    assert replace(CONSTANTS, mixing_max=0.2).coupling == pytest.approx(1.0)
    assert term(0.2) == pytest.approx(term(0.2 + 1e-9), rel=1e-4)
    # Below 1 a longer run does not raise the average without limit; above it the sum overflows.
    assert term(0.1) < term(0.19) < 1e4
    assert term(0.9) > 1e100
    long = replace(CONSTANTS, mixing_max=0.9)
    assert bound_terms(even(2000), long, loss_first=1, loss_last=0).staleness == np.inf


def test_a_full_batch_has_no_noise_and_no_staleness_has_no_term() -> None:
    found = bound_terms(even(batch_size=64.0), CONSTANTS, loss_first=1, loss_last=0)
    assert found.minibatch_noise == 0
    assert bound_terms(even(), CONSTANTS, loss_first=1, loss_last=0).minibatch_noise > 0
    fresh = replace(CONSTANTS, staleness=0)
    assert bound_terms(even(), fresh, loss_first=1, loss_last=0).staleness == 0


def test_records_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        even(batch_size=65.0)
    with pytest.raises(ValueError, match="one entry"):
        replace(even(), steps=np.ones(3))
    with pytest.raises(ValueError, match="mixing"):
        replace(CONSTANTS, mixing_min=0.5)


def test_sampling_noise_bounds_the_variance_of_minibatch_gradients() -> None:
    """Least squares, where gradients are known: Monte Carlo of batches without replacement."""
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(40, 3)), rng.normal(size=3)
    gradients = (x @ w)[:, None] * x
    spread = np.linalg.norm(gradients[:, None] - gradients[None], axis=2)
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    theta = float((spread[apart > 0] / apart[apart > 0]).max())
    variance = ((x - x.mean(axis=0)) ** 2).sum() / 39
    means = np.array([gradients[rng.permutation(40)[:8]].mean(axis=0) for _ in range(4000)])
    seen = ((means - gradients.mean(axis=0)) ** 2).sum(axis=1).mean()
    exact = (1 - 8 / 40) / 8 * ((gradients - gradients.mean(axis=0)) ** 2).sum() / 39
    assert seen == pytest.approx(exact, rel=0.1)
    bound = sampling_noise(
        batch_size=np.array([8.0]),
        samples=np.array([40.0]),
        variability=theta,
        data_variance=np.array([variance]),
    )
    assert seen <= bound[0]


def test_the_bound_holds_for_quadratic_losses() -> None:
    """Full batches, exact constants over the run: the measured average gradient is below (19)."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(4, 3))
    log = random_log(rng, devices=4, aggregations=30, mixing=0.1)
    eta, steps, rho, w = 0.05, 3, 1.0, [np.full(3, 3.0)]
    squares, lengths, gaps = [], [], []
    for upload in log.uploads:
        local = start = w[upload.version]
        for _ in range(steps):
            gradient = local - centres[upload.device]
            gaps.append(((centres.mean(axis=0) - centres[upload.device]) ** 2).sum())
            lengths.append((gradient**2).sum())
            squares.append(((gradient + rho * (local - start)) ** 2).sum())
            local = local - eta * (gradient + rho * (local - start))
        w.append(0.9 * w[-1] + 0.1 * local)
    loss = [((v - centres) ** 2).sum() / 8 for v in w]
    average = np.mean([((w[u.version] - centres.mean(axis=0)) ** 2).sum() for u in log.uploads])
    task = TaskConstants(
        1.0, 1.0, rho, max(lengths), max(squares), 0.1, 0.1, max(u.staleness for u in log.uploads)
    )
    periods = replace(
        even(30, learning_rate=eta, steps=steps, batch_size=64.0),
        dissimilarity=np.array(gaps[::steps]),
    )
    found = bound_terms(periods, task, loss_first=loss[0], loss_last=loss[-1])
    assert average <= found.total
    # It says something: (a) counts one step where there were three, and is halved in the proof.
    assert found.initial_error < 2 * steps * average


def test_dissimilarity_from_inner_products() -> None:
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 20))
    products = gradients @ gradients.T
    expected = ((gradients - gradients.mean(axis=0)) ** 2).sum(axis=1)
    assert dissimilarity(products) == pytest.approx(expected)
    gradients[3] = rng.normal(size=20)
    updated = with_gradient(products, gradients, 3)
    assert updated == pytest.approx(gradients @ gradients.T)
    assert dissimilarity(np.ones((4, 4))) == pytest.approx(np.zeros(4))


def test_mean_gradient_of_an_update() -> None:
    delta = -0.1 * (np.array([1.0, 2.0]) + np.array([3.0, 4.0]))
    assert mean_local_gradient(delta, learning_rate=0.1, steps=2) == pytest.approx([2.0, 3.0])


def test_suprema_keep_the_largest_of_each() -> None:
    seen = Suprema()
    for report in (PeriodReport(1, 2, 3, 4, 5), PeriodReport(2, 1, 2, 5, 4)):
        seen = seen.with_report(report)
    assert seen == Suprema(
        variability=2, gradient_sq=3, regularised_gradient_sq=5, smoothness=5, reports=2
    )
    with pytest.raises(ValueError, match="finite"):
        PeriodReport(1, 2, np.inf, 4, 5)


def test_drift_is_loss_per_second_shared_among_devices() -> None:
    report = DriftReport(loss_before=1.0, loss_after=1.6, elapsed_s=2.0, active=True)
    assert drift_per_s(report, devices=3) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="time"):
        replace(report, elapsed_s=0.0)
    with pytest.raises(ValueError, match="finite"):
        replace(report, loss_after=np.nan)
    rates = DriftRates().with_report(replace(report, loss_after=3.4), devices=3)
    assert rates.active_per_s == pytest.approx(0.4)
    # A smaller one is believed by and by.
    assert rates.with_report(report, devices=3).active_per_s == pytest.approx(0.2)
    better = replace(report, loss_after=0.0, active=False)
    assert rates.with_report(better, devices=3).idle_per_s == 0.0
    assert drift_sums(
        [report, report, better, replace(better, loss_after=1.9)], devices=3
    ) == pytest.approx((0.3, 0.4))


def test_drifts_of_all_seconds_add_up_to_that_of_the_period() -> None:
    """(13): one second after the other, while the loss only rises."""
    losses = [1.0, 1.1, 1.4, 1.5, 2.1]
    reports = [
        DriftReport(before, after, 1.0, active=second >= 2)
        for second, (before, after) in enumerate(itertools.pairwise(losses))
    ]
    assert sum(drift_sums(reports, devices=4)) == pytest.approx((2.1 - 1.0) / 4)
