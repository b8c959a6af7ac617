import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import CodecError, DenseF32, TopK
from fadelab_proto.codecs.base import F32
from fadelab_proto.codecs.index_sets import coded_bytes, decode_indices, encode_indices

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, st.integers(1, 400), elements=finite)


def rebuild(codec: codecs.Codec, vector: F32, limit: int) -> F32:
    out = np.zeros_like(vector)
    for chunk in codec.encode(vector, max_payload_bytes=limit):
        assert len(chunk.payload) <= limit
        segment = codecs.decode(codec.NUMBER, chunk.payload, first=chunk.first, count=chunk.count)
        segment.add_to(out)
    return out


@given(vectors, st.integers(4, 700))
def test_dense_is_lossless(vector: F32, limit: int) -> None:
    assert np.array_equal(rebuild(DenseF32(), vector, limit), vector)


@given(vectors, st.integers(1, 500), st.integers(80, 900))
def test_topk_keeps_exactly_the_largest(vector: F32, keep: int, limit: int) -> None:
    rebuilt = rebuild(TopK(keep), vector, limit)
    kept = np.sort(np.abs(vector))[::-1][: min(keep, len(vector))]
    assert np.array_equal(np.sort(np.abs(rebuilt[rebuilt != 0])), np.sort(kept[kept != 0]))
    assert np.array_equal(rebuilt[rebuilt != 0], vector[rebuilt != 0])


@given(vectors, st.integers(1, 500), st.integers(80, 900))
def test_estimates_are_exact(vector: F32, keep: int, limit: int) -> None:
    for codec in (DenseF32(), TopK(keep)):
        chunks = codec.encode(vector, max_payload_bytes=limit)
        bits = 8 * sum(len(chunk.payload) for chunk in chunks)
        assert codec.estimate_bits(len(vector), max_payload_bytes=limit) == bits


def test_packets_come_in_order_of_magnitude() -> None:
    vector = np.random.default_rng(3).standard_normal(5000).astype(np.float32)
    chunks = TopK(2000).encode(vector, max_payload_bytes=1000)
    assert len(chunks) > 5
    smallest_so_far = np.inf
    for chunk in chunks:
        values = np.abs(TopK.decode(chunk.payload, first=chunk.first, count=chunk.count).values)
        assert values.max() <= smallest_so_far
        smallest_so_far = values.min()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", [DenseF32(), TopK(2)])
def test_values_that_are_not_finite_are_refused(codec: codecs.Codec, bad: float) -> None:
    vector = np.ones(5, dtype=np.float32)
    vector[3] = bad
    with pytest.raises(CodecError, match="entry 3 of the vector"):
        codec.encode(vector, max_payload_bytes=1000)


@given(st.data())
def test_index_sets_round_trip_at_the_promised_size(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 5000))
    k = data.draw(st.integers(1, n))
    seed = data.draw(st.integers(0, 99))
    indices = np.sort(np.random.default_rng(seed).choice(n, k, replace=False)).astype(np.int64)
    coded = encode_indices(indices, n)
    assert len(coded) == coded_bytes(k, n)
    assert np.array_equal(decode_indices(coded, k=k, n=n), indices)


def test_index_code_is_close_to_the_entropy_of_a_random_set() -> None:
    n, k = 466_122, 4661
    entropy_bits = k * (np.log2(n / k) + np.log2(np.e))
    assert 8 * coded_bytes(k, n) < 1.08 * entropy_bits


@settings(max_examples=300)
@given(
    number=st.sampled_from([pb.CODEC_DENSE_F32, pb.CODEC_TOPK]),
    payload=st.binary(max_size=120),
    first=st.integers(0, 2**32 - 1),
    count=st.integers(1, 2**32 - 1),
)
def test_hostile_payloads_are_refused_or_give_entries_in_range(
    number: int, payload: bytes, first: int, count: int
) -> None:
    try:
        segment = codecs.decode(number, payload, first=first, count=count)
    except CodecError:
        return
    assert len(segment.values) <= count
    assert segment.indices is None or (segment.indices >= 0).all()
    assert segment.indices is None or (segment.indices < count).all()


@given(vectors, st.data())
def test_a_damaged_topk_payload_never_escapes_its_range(vector: F32, data: st.DataObject) -> None:
    (chunk, *_) = TopK(10).encode(vector, max_payload_bytes=1000)
    damaged = bytearray(chunk.payload)
    position = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[position // 8] ^= 1 << position % 8
    try:
        segment = TopK.decode(bytes(damaged), first=0, count=len(vector))
    except CodecError:
        return
    assert segment.indices is not None
    assert segment.indices.max() < len(vector)


def test_unknown_codec_is_refused() -> None:
    with pytest.raises(CodecError, match="codec 77"):
        codecs.decode(77, b"", first=0, count=1)
