import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import CodecError, DenseF32, TopK
from fadelab_proto.codecs.base import F32

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
DRAW = np.random.default_rng(1)
vectors = hnp.arrays(np.float32, st.integers(1, 400), elements=finite)


def rebuild(codec: codecs.Codec, vector: F32, limit: int) -> F32:
    out = np.zeros_like(vector)
    encoding = codec.encode(vector, max_payload_bytes=limit, generator=np.random.default_rng(1))
    for chunk in encoding.chunks:
        assert len(chunk.payload) <= limit
        segment = codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)
        segment.add_to(out)
    return out


@given(vectors, st.integers(4, 700))
def test_dense_is_lossless(vector: F32, limit: int) -> None:
    assert np.array_equal(rebuild(DenseF32(), vector, limit), vector)


@given(vectors, st.integers(4, 700))
def test_the_estimate_is_exact(vector: F32, limit: int) -> None:
    encoding = DenseF32().encode(vector, max_payload_bytes=limit, generator=DRAW)
    estimate = DenseF32().estimate_bits(len(vector), max_payload_bytes=limit)
    assert estimate == encoding.coded_bits


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", [DenseF32(), TopK(2)])
def test_values_that_are_not_finite_are_refused(codec: codecs.Codec, bad: float) -> None:
    vector = np.ones(5, dtype=np.float32)
    vector[3] = bad
    with pytest.raises(CodecError, match="entry 3 of the vector"):
        codec.encode(vector, max_payload_bytes=1000, generator=DRAW)


@settings(max_examples=300)
@given(
    number=st.sampled_from([pb.CODEC_DENSE_F32, pb.CODEC_SPARSE]),
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


def test_unknown_codec_is_refused() -> None:
    with pytest.raises(CodecError, match="codec 77"):
        codecs.decode(77, b"", first=0, count=1)
