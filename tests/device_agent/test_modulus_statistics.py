"""What a device tells of its update before it sends it."""

import numpy as np
import pytest

from fadelab_agent.modulus_statistics import modulus_figures, with_signs
from fadelab_proto.codecs import SignModulus, SignOnly


def test_figures_are_those_of_the_update_and_its_code() -> None:
    draw = np.random.default_rng(1)
    update = draw.laplace(size=20_000).astype(np.float32)
    compensation = np.abs(draw.laplace(size=20_000)).astype(np.float32)
    codec = SignModulus(3)
    encoding = codec.encode(update, max_payload_bytes=4096, generator=draw)
    found = modulus_figures(update, encoding, compensation)
    assert found.energy == pytest.approx(float(update @ update), rel=1e-6)
    assert found.overlap == pytest.approx(float(np.abs(update) @ compensation), rel=1e-6)
    # Stochastic rounding to a step D has the variance D^2 f (1 - f) for a fraction f.
    moduli = np.abs(update).astype(np.float64)
    step = (moduli.max() - moduli.min()) / 7
    fraction = (moduli - moduli.min()) / step % 1
    exact = float(np.sum(step**2 * fraction * (1 - fraction)))
    assert found.quantiser_variance == pytest.approx(exact, rel=0.05)


def test_signs_alone_have_no_coded_moduli_and_nothing_stands_in_without_compensation() -> None:
    update = np.array([1.0, -2.0], dtype=np.float32)
    encoding = SignOnly().encode(update, max_payload_bytes=512, generator=np.random.default_rng(1))
    found = modulus_figures(update, encoding, None)
    assert (found.energy, found.overlap, found.quantiser_variance) == (5.0, 0.0, 0.0)


def test_zeros_get_signs_that_cancel_and_nothing_else_changes() -> None:
    update = np.zeros(10_000, dtype=np.float32)
    update[::4] = np.random.default_rng(2).normal(size=2500)
    signed = with_signs(update, np.random.default_rng(1))
    np.testing.assert_array_equal(signed[::4], update[::4])
    np.testing.assert_allclose(signed, update, atol=1e-37)
    rest = np.delete(signed, np.s_[::4])
    assert (rest != 0).all()
    # 7500 fair coins: six standard deviations.
    assert abs(np.sign(rest).sum()) < 6 * 7500**0.5
    assert not (update[1::4]).any()
