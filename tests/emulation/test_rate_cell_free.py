"""The closed forms of cell-free links against Monte Carlo of the estimator and the papers."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.cell_free.downlink import conjugate_beamforming_sinr, full_power
from fadelab_emulation.rate.cell_free.estimation import ChannelEstimate, estimate_channels
from fadelab_emulation.rate.cell_free.local_mmse import LocalMmse
from fadelab_emulation.rate.cell_free.pilots import Pilots, assign_pilots
from fadelab_emulation.rate.cell_free.uplink import maximum_ratio_sinr, uplink_statistics

PILOT_LENGTH = 2
PILOT_SNR = 3.0
# Four devices, two pilots: 0 and 2 disturb each other, 1 and 3 do.
GAIN = np.array([[1.2, 0.3, 0.1], [0.2, 0.9, 0.4], [0.5, 0.1, 1.5], [0.05, 0.6, 0.7]])
NUMBER = np.array([0, 1, 0, 1])
POWER_SNR = np.array([2.0, 0.7, 1.1, 4.0])


def estimate_of(
    gain: FloatArray = GAIN, number: np.ndarray = NUMBER, antennas: int = 2, snr: float = PILOT_SNR
) -> ChannelEstimate:
    pilots = Pilots.of(number)
    return estimate_channels(
        gain, pilots, antennas=antennas, pilot_length=PILOT_LENGTH, pilot_snr=snr
    )


@dataclass(frozen=True)
class Drawn:
    """Channels and their estimates, shape ``(draws, devices, sites, antennas)``."""

    channel: np.ndarray
    estimate: np.ndarray


def draw(draws: int, antennas: int = 2) -> Drawn:
    """Send pilots through random channels and estimate from what arrives, as access points do."""
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * np.sqrt(0.5)

    channel = np.sqrt(GAIN)[..., None] * normal(draws, *GAIN.shape, antennas)
    books = np.array([[1, 1], [1, -1]]) / np.sqrt(PILOT_LENGTH)
    sent = np.sqrt(PILOT_LENGTH * PILOT_SNR) * books[NUMBER]
    received = np.einsum("rkln,kt->rlnt", channel, sent) + normal(
        draws, GAIN.shape[1], antennas, PILOT_LENGTH
    )
    heard = np.einsum("rlnt,kt->rkln", received, books[NUMBER])
    together = (NUMBER[:, None] == NUMBER) @ GAIN
    energy = PILOT_LENGTH * PILOT_SNR
    scale = np.sqrt(energy) * GAIN / (energy * together + 1)
    return Drawn(channel, scale[..., None] * heard)


def test_the_quality_of_estimates_is_their_mean_square() -> None:
    drawn = draw(100_000)
    square = np.square(np.abs(drawn.estimate)).mean(axis=(0, 3))
    assert estimate_of().quality == pytest.approx(square, rel=0.02)
    assert np.all(estimate_of().quality < GAIN)


def test_uplink_terms_against_monte_carlo() -> None:
    drawn = draw(200_000)
    gain = np.einsum("rkln,riln->rki", drawn.estimate.conj(), drawn.channel)
    mean = np.diagonal(gain.mean(axis=0))
    square = np.square(np.abs(gain)).mean(axis=0)
    own = np.diagonal(square) - np.square(np.abs(mean))
    cross = square - np.diag(np.diagonal(square))
    noise = np.square(np.abs(drawn.estimate)).sum(axis=(2, 3)).mean(axis=0)

    full_power_snr = 5.0
    terms = uplink_statistics(estimate_of(), full_power_snr)
    assert terms.coherent_gain == pytest.approx(np.square(np.abs(mean)), rel=0.01)
    assert terms.own_interference == pytest.approx(own, rel=0.02)
    assert terms.cross_interference == pytest.approx(cross, rel=0.02, abs=1e-12)
    assert terms.noise == pytest.approx(noise / full_power_snr, rel=0.01)
    sinr = np.square(np.abs(mean)) * POWER_SNR / (own * POWER_SNR + cross @ POWER_SNR + noise)
    assert terms.sinr(POWER_SNR / full_power_snr) == pytest.approx(sinr, rel=0.02)
    assert maximum_ratio_sinr(estimate_of(), POWER_SNR) == pytest.approx(sinr, rel=0.02)


def test_downlink_against_monte_carlo() -> None:
    drawn = draw(200_000)
    power_snr = 6.0
    # Unequal coefficients, so that a transposed index shows.
    coefficient = full_power(estimate_of()) * np.array([[0.4], [1.0], [0.7], [0.2]])
    sent = np.sqrt(coefficient)[..., None] * drawn.estimate.conj()
    gain = np.einsum("rkln,riln->rki", drawn.channel, sent)
    square = np.square(np.abs(gain)).mean(axis=0)
    desired = np.square(np.abs(np.diagonal(gain.mean(axis=0))))
    expected = power_snr * desired / (power_snr * (square.sum(axis=1) - desired) + 1)
    sinr = conjugate_beamforming_sinr(estimate_of(), power_snr, coefficient)
    assert sinr == pytest.approx(expected, rel=0.02)


def test_full_power_is_all_that_an_access_point_has() -> None:
    estimate = estimate_of(antennas=3)
    spent = 3 * (full_power(estimate) * estimate.quality).sum(axis=0)
    assert spent == pytest.approx(np.ones(3))


def test_one_antenna_is_the_formula_of_ngo_2017() -> None:
    """The estimates and equations (24) and (27) term by term, for every pair of devices and access points."""
    devices, sites = GAIN.shape
    rho, energy = 5.0, PILOT_LENGTH * PILOT_SNR
    gamma = np.empty_like(GAIN)
    for k in range(devices):
        for m in range(sites):
            shared = sum(GAIN[i, m] for i in range(devices) if NUMBER[i] == NUMBER[k])
            gamma[k, m] = energy * GAIN[k, m] ** 2 / (energy * shared + 1)
    up, down = np.empty(devices), np.empty(devices)
    eta = [1 / sum(gamma[k, m] for k in range(devices)) for m in range(sites)]
    for k in range(devices):
        noise = sum(gamma[k, m] for m in range(sites))
        loud = sum(gamma[k, m] * GAIN[i, m] for m in range(sites) for i in range(devices))
        quiet = sum(GAIN[k, m] for m in range(sites))
        pairs = [i for i in range(devices) if i != k and NUMBER[i] == NUMBER[k]]
        up_pilots = sum(
            sum(gamma[k, m] * GAIN[i, m] / GAIN[k, m] for m in range(sites)) ** 2 for i in pairs
        )
        down_pilots = sum(
            sum(eta[m] ** 0.5 * gamma[i, m] * GAIN[k, m] / GAIN[i, m] for m in range(sites)) ** 2
            for i in pairs
        )
        wanted = sum(eta[m] ** 0.5 * gamma[k, m] for m in range(sites)) ** 2
        up[k] = rho * noise**2 / (noise + rho * loud + rho * up_pilots)
        down[k] = rho * wanted / (1 + rho * quiet + rho * down_pilots)

    estimate = estimate_of(antennas=1)
    assert maximum_ratio_sinr(estimate, np.full(devices, rho)) == pytest.approx(up, rel=1e-12)
    sinr = conjugate_beamforming_sinr(estimate, rho, full_power(estimate))
    assert sinr == pytest.approx(down, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
def test_the_fast_path_is_the_explicit_one_and_power_helps_oneself_alone(
    devices: int, sites: int, pilot_length: int, antennas: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gain = np.power(10, rng.uniform(-13, -6, (devices, sites)))
    pilots = assign_pilots(gain, pilot_length)
    estimate = estimate_channels(
        gain, pilots, antennas=antennas, pilot_length=pilot_length, pilot_snr=2.5e11
    )
    coefficient = rng.uniform(0.01, 1, devices)
    before = maximum_ratio_sinr(estimate, 1e11 * coefficient)
    explicit = uplink_statistics(estimate, 1e11).sinr(coefficient)
    assert before == pytest.approx(explicit, rel=1e-9)

    louder = int(rng.integers(devices))
    coefficient[louder] *= 1.5
    change = maximum_ratio_sinr(estimate, 1e11 * coefficient) / before - 1
    assert change[louder] > 0
    assert np.all(np.delete(change, louder) <= 1e-12)


def test_the_first_devices_get_pilots_of_their_own_and_the_next_the_least_disturbed() -> None:
    gain = np.array([[9.0, 1.0], [1.0, 9.0], [5.0, 2.0], [0.1, 8.0], [3.0, 4.0]])
    pilots = assign_pilots(gain, 3)
    # Device 3 hears site 1 best, where pilots arrive with 1, 9 and 2: it takes pilot 0. Device 4
    # then finds 9, 9 and 2 there.
    assert pilots.number.tolist() == [0, 1, 2, 0, 2]
    assert [shared.tolist() for shared in pilots.members] == [[0, 3], [1], [2, 4]]


def test_unused_pilots_are_no_trouble_and_gaps_are_refused() -> None:
    assert assign_pilots(np.ones((2, 3)), 10).number.tolist() == [0, 1]
    with pytest.raises(ValueError, match="the 3 pilots are not all in use"):
        Pilots.of(np.array([0, 2]))


def test_a_device_s_pilot_does_not_depend_on_those_after_it() -> None:
    gain = np.random.default_rng(3).exponential(size=(50, 9))
    assert (
        assign_pilots(gain[:30], 7).number.tolist() == assign_pilots(gain, 7).number[:30].tolist()
    )


def monte_carlo_local_mmse(drawn: Drawn, error: FloatArray) -> FloatArray:
    """Evaluate the definition: combine, average, then the best weights, with no shortcut."""
    estimate, channel = drawn.estimate, drawn.channel
    covariance = np.einsum("k,rkln,rklm->rlnm", POWER_SNR, estimate, estimate.conj())
    scattered = (POWER_SNR[:, None] * error).sum(axis=0) + 1
    covariance += scattered[:, None, None] * np.eye(estimate.shape[-1])
    combiner = np.linalg.solve(covariance, estimate.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    sinr = np.empty(len(POWER_SNR))
    for k, power in enumerate(POWER_SNR):
        gain = np.einsum("rln,riln->ril", combiner[:, k].conj(), channel)
        second = np.einsum("i,ril,rim->lm", POWER_SNR, gain, gain.conj()) / len(gain)
        mean = gain[:, k].mean(axis=0)
        noise = np.square(np.abs(combiner[:, k])).sum(axis=2).mean(axis=0)
        matrix = second - power * np.outer(mean, mean.conj()) + np.diag(noise)
        sinr[k] = power * (mean.conj() @ np.linalg.solve(matrix, mean)).real
    return sinr


def test_local_mmse_against_monte_carlo_of_its_definition() -> None:
    estimate = estimate_of()
    expected = monte_carlo_local_mmse(draw(100_000), estimate.gain - estimate.quality)
    receiver = LocalMmse(sites=3, antennas=2, pilots=2, realisations=30_000, seed=1)
    assert receiver.sinr(estimate, POWER_SNR) == pytest.approx(expected, rel=0.02)


def test_local_mmse_is_seeded_and_converges() -> None:
    estimate = estimate_of()

    def sinr(realisations: int, seed: int) -> FloatArray:
        receiver = LocalMmse(sites=3, antennas=2, pilots=2, realisations=realisations, seed=seed)
        return receiver.sinr(estimate, POWER_SNR)

    assert sinr(100, 1).tolist() == sinr(100, 1).tolist()
    assert sinr(100, 1).tolist() != sinr(100, 2).tolist()
    reference = sinr(50_000, 3)
    spread = [np.std([sinr(n, seed) / reference for seed in range(8)]) for n in (50, 5000)]
    assert spread[1] < spread[0] / 4


def test_draws_beyond_memory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 16777216 are kept, so 655 realisations"):
        LocalMmse(sites=64, antennas=4, pilots=100, realisations=1000, seed=1)
