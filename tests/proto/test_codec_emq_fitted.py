"""EMQ codes that fit a vector: within an error, within a number of bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fadelab_proto.codecs import Codec, CodecError, Encoding, decode
from fadelab_proto.codecs.emq_fitted import EmqWithinBits, EmqWithinError

F32 = NDArray[np.float32]


def encoded(codec: Codec, vector: F32) -> Encoding:
    return codec.encode(vector, max_payload_bytes=1024, generator=np.random.default_rng(1))


def nmse(codec: Codec, vector: F32) -> float:
    result = np.zeros_like(vector)
    for chunk in encoded(codec, vector).chunks:
        decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count).add_to(result)
    return float(((result - vector) ** 2).sum() / (vector**2).sum())


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bound", [1e-1, 1e-2, 1e-4])
def test_the_code_is_as_exact_as_asked_for(bound: float, adaptive: bool) -> None:
    vector = np.random.default_rng(2).laplace(size=40_000).astype(np.float32)
    # The bits are chosen by a tenth of the entries.
    assert nmse(EmqWithinError(bound, adaptive), vector) <= 1.1 * bound
    coarser = encoded(EmqWithinError(10 * bound, adaptive), vector).nominal_bits
    assert coarser < encoded(EmqWithinError(bound, adaptive), vector).nominal_bits


def test_what_no_code_can_do_is_done_as_well_as_possible() -> None:
    vector = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    assert nmse(EmqWithinError(1e-12), vector) < 1e-4
    # More mantissa bits leave too few exponents for entries that differ so much.
    assert encoded(EmqWithinError(1e-12), vector).nominal_bits <= 16 * len(vector)


@settings(max_examples=20, deadline=None)
@given(bits=st.floats(2, 16), adaptive=st.booleans(), seed=st.integers(0, 99))
def test_a_code_never_takes_more_bits_than_allowed(bits: float, adaptive: bool, seed: int) -> None:
    vector = np.random.default_rng(seed).standard_t(3, size=5000).astype(np.float32)
    codec = EmqWithinBits(bits, adaptive)
    written = encoded(codec, vector)
    # An adaptive code's bits are estimated by a part of the entries, a fixed code's are exact.
    assert written.nominal_bits <= (1.05 if adaptive else 1) * bits * len(vector)
    assert codec.nominal_bits(len(vector)) <= bits * len(vector)
    if not adaptive:
        estimate = codec.estimate_bits(len(vector), max_payload_bytes=1024)
        assert written.coded_bits <= estimate


def test_fewer_bits_than_the_shortest_code_has_are_refused() -> None:
    with pytest.raises(CodecError, match="shortest code takes 2"):
        EmqWithinBits(1.5)
