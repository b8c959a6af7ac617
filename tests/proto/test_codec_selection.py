"""Exact top-k selection, against a stable sort of the whole vector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fadelab_proto.codecs import selection
from fadelab_proto.codecs.base import F32, Index
from fadelab_proto.codecs.selection import by_magnitude, largest

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e-45, -3e38])


def reference(vector: F32, keep: int) -> Index:
    return np.sort(np.argsort(-np.abs(vector), kind="stable")[:keep])


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=finite | few), st.integers(1, 400))
def test_short_vectors_with_all_kinds_of_values(vector: F32, keep: int) -> None:
    assert np.array_equal(largest(vector, keep), reference(vector, keep))


def long_vectors() -> dict[str, F32]:
    draw = np.random.default_rng(7)
    n = 60_013
    normal = draw.standard_normal(n).astype(np.float32)
    one_hot = np.zeros(n, dtype=np.float32)
    one_hot[n // 2] = -5
    return {
        "normal": normal,
        "heavy tail": normal**9,
        "mostly zeros": np.where(draw.random(n) < 0.9, 0, normal).astype(np.float32),
        "ties": np.round(normal * 2).astype(np.float32),
        "constant": np.full(n, -2.5, dtype=np.float32),
        "zeros": np.zeros(n, dtype=np.float32),
        "one-hot": one_hot,
        "denormal": (normal * 1e-41).astype(np.float32),
        "huge": (normal / np.abs(normal).max() * 3e38).astype(np.float32),
        "one layer far above": np.where(np.arange(n) // 3000 == 7, normal * 1000, normal),
        "periodic": (np.arange(n) % 512).astype(np.float32),
    }


@pytest.mark.parametrize("share", [1e-4, 0.01, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("kind", long_vectors())
def test_long_vectors(kind: str, share: float) -> None:
    vector = long_vectors()[kind]
    keep = max(1, round(share * len(vector)))
    chosen = largest(vector, keep)
    assert chosen.dtype == np.int64
    assert np.array_equal(chosen, reference(vector, keep))


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (1e-3, 1e-2), (5.0, 9.0), (0.5, 0.5)])
@pytest.mark.parametrize("share", [0.01, 0.4])
def test_bounds_that_miss_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, low: float, high: float, share: float
) -> None:
    vector = np.random.default_rng(2).standard_normal(50_000).astype(np.float32)
    bounds = (np.float32(low), np.float32(high))
    monkeypatch.setattr(selection, "_bracket", lambda vector, keep: bounds)
    keep = round(share * len(vector))
    assert np.array_equal(largest(vector, keep), reference(vector, keep))


@given(hnp.arrays(np.float32, st.integers(0, 300), elements=finite | few))
def test_order_of_magnitude_is_that_of_a_stable_sort(values: F32) -> None:
    assert np.array_equal(by_magnitude(values), np.argsort(-np.abs(values), kind="stable"))
