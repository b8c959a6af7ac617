"""What changed between two vectors turns one into the other, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Chunk, CodecError
from fadelab_proto.codecs.base import F32
from fadelab_proto.codecs.changes import changed_entries

HEAD_BYTES = 9


def applied(base: F32, chunks: tuple[Chunk, ...]) -> F32:
    vector = base.copy()
    for chunk in chunks:
        codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count).copy_to(
            vector
        )
    return vector


@given(
    dimension=st.integers(1, 3000),
    share=st.floats(0, 1),
    runs=st.booleans(),
    payload=st.sampled_from([64, 512, 16384]),
    seed=st.integers(0, 99),
)
def test_changes_lead_from_one_vector_to_the_other(
    dimension: int, share: float, runs: bool, payload: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    base = draw.standard_normal(dimension, dtype=np.float32)
    target = base.copy()
    mask = draw.random(dimension) < share
    if runs:
        mask = np.arange(dimension) < share * dimension
    target[mask] = draw.standard_normal(int(mask.sum()), dtype=np.float32)
    chunks = changed_entries(base, target, max_payload_bytes=payload)
    assert chunks is not None
    assert applied(base, chunks).tobytes() == target.tobytes()
    assert all(len(chunk.payload) <= payload for chunk in chunks)
    firsts = [chunk.first for chunk in chunks]
    assert firsts == sorted(firsts)
    assert all(chunk.codec == pb.CODEC_SPARSE for chunk in chunks)


def test_equal_vectors_take_nothing_and_opposite_zeros_differ() -> None:
    zeros = np.zeros(10, dtype=np.float32)
    assert changed_entries(zeros, zeros.copy(), max_payload_bytes=512) == ()
    chunks = changed_entries(zeros, -zeros, max_payload_bytes=512)
    assert chunks
    assert np.signbit(applied(zeros, chunks)).all()


def test_one_per_cent_takes_little_more_than_its_values() -> None:
    draw = np.random.default_rng(1)
    base = draw.standard_normal(500_000, dtype=np.float32)
    target = base.copy()
    places = draw.choice(500_000, 5_000, replace=False)
    target[places] += 1
    chunks = changed_entries(base, target, max_payload_bytes=16384)
    assert chunks is not None
    size = sum(len(chunk.payload) for chunk in chunks)
    # The entropy of the places is 8.08 bits each; their values are 32.
    assert 5_000 * 5.01 < size < 5_000 * 5.1 + HEAD_BYTES * len(chunks)


def test_changes_that_lie_together_cost_next_to_nothing_besides_their_values() -> None:
    base = np.zeros(1 << 20, dtype=np.float32)
    target = base.copy()
    target[700_000:704_000] = 1
    chunks = changed_entries(base, target, max_payload_bytes=1 << 20)
    assert chunks is not None
    assert len(chunks) == 1
    assert len(chunks[0].payload) < 4 * 4_000 + 4_000 / 8 + 20


def test_what_is_longer_than_allowed_is_not_even_begun() -> None:
    base, target = np.zeros(100, dtype=np.float32), np.ones(100, dtype=np.float32)
    assert changed_entries(base, target, max_payload_bytes=64, most_bytes=399) is None
    assert changed_entries(base, target, max_payload_bytes=64, most_bytes=400) is not None


def test_impossible_demands_are_refused() -> None:
    base, target = np.zeros(100, dtype=np.float32), np.ones(100, dtype=np.float32)
    with pytest.raises(CodecError, match=r"shapes \(100,\) and \(99,\)"):
        changed_entries(base, target[1:], max_payload_bytes=64)
    with pytest.raises(CodecError, match="max_payload_bytes is 12; one entry takes 15"):
        changed_entries(base, target, max_payload_bytes=12)
