"""float16 packets: the very bits of numpy's cast, and nothing beyond the range of float16."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fadelab_proto.codecs.base import F32, CodecError
from fadelab_proto.codecs.dense_f16 import LARGEST, DenseF16

DRAW = np.random.default_rng(1)
HALVES = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)


def coded(vector: F32, limit: int = 1 << 20) -> bytes:
    chunks = DenseF16().encode(vector, max_payload_bytes=limit, generator=DRAW).chunks
    assert all(len(chunk.payload) <= limit for chunk in chunks)
    return b"".join(chunk.payload for chunk in chunks)


@given(
    hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(-LARGEST, LARGEST, width=32)),
    st.integers(2, 700),
)
def test_encoding_is_numpys_cast(vector: F32, limit: int) -> None:
    assert coded(vector, limit) == vector.astype("<f2").tobytes()


def test_ties_and_their_neighbours_round_as_numpy_does() -> None:
    ties = ((HALVES[1:].astype(np.float64) + HALVES[:-1]) / 2).astype(np.float32)
    near = np.concatenate([np.nextafter(ties, np.float32(0)), ties, np.nextafter(ties, HALVES[1:])])
    for vector in (near, -near):
        assert coded(vector) == vector.astype("<f2").tobytes()


def test_every_float16_is_read_as_numpy_reads_it() -> None:
    for values in (HALVES, -HALVES):
        segment = DenseF16.decode(values.astype("<f2").tobytes(), first=7, count=len(values))
        assert segment.first == 7
        assert segment.values.tobytes() == values.tobytes()


def test_a_vector_of_several_blocks_round_trips() -> None:
    vector = np.random.default_rng(2).standard_normal(300_000).astype(np.float32)
    segment = DenseF16.decode(coded(vector), first=0, count=len(vector))
    assert np.array_equal(segment.values, vector.astype(np.float16).astype(np.float32))


@given(st.integers(0, 2000), st.integers(2, 100))
def test_the_estimate_is_exact(dimension: int, limit: int) -> None:
    vector = np.zeros(dimension, dtype=np.float32)
    estimate = DenseF16().estimate_bits(dimension, max_payload_bytes=limit)
    encoding = DenseF16().encode(vector, max_payload_bytes=limit, generator=DRAW)
    assert estimate == encoding.coded_bits == encoding.nominal_bits


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65520.0, -65505.0])
def test_what_float16_cannot_hold_is_refused_by_name(bad: float) -> None:
    vector = np.ones(5, dtype=np.float32)
    vector[3] = bad
    with pytest.raises(CodecError, match="entry 3 of the vector"):
        coded(vector)


def test_packets_have_room_for_an_entry() -> None:
    with pytest.raises(CodecError, match="max_payload_bytes is 1"):
        coded(np.ones(2, dtype=np.float32), limit=1)


@given(st.binary(max_size=60), st.integers(1, 2**32 - 1))
def test_any_bytes_give_finite_numbers_or_a_clear_refusal(payload: bytes, count: int) -> None:
    try:
        segment = DenseF16.decode(payload, first=0, count=count)
    except CodecError:
        return
    assert len(segment.values) == count
    assert np.isfinite(segment.values).all()


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E01, 0xFFFF])
def test_infinity_and_nan_in_a_payload_are_refused(bits: int) -> None:
    payload = np.array([0, bits, 1], dtype="<u2").tobytes()
    with pytest.raises(CodecError, match="not finite"):
        DenseF16.decode(payload, first=0, count=3)
