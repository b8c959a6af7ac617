"""Top-k and Top-q: what is kept, in which packets, with which values; sizes; hostile bytes."""

import tracemalloc
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.codec_cases import VECTORS, decode, encode
from tests.proto.codec_cases import rebuild as add_up

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Codec, CodecError, DenseF32, Encoding, TopK
from fadelab_proto.codecs.base import F32
from fadelab_proto.codecs.laq import Laq
from fadelab_proto.codecs.selection import largest
from fadelab_proto.codecs.top_q import TopQ
from fadelab_proto.codecs.uniform import Uniform

forms = st.sampled_from(["best", "paper"])


def sparse_like_training(n: int, seed: int = 4) -> F32:
    draw = np.random.default_rng(seed)
    layers = np.repeat(np.exp(draw.normal(0, 2, 64)), -(-n // 64))[:n]
    return np.asarray(draw.standard_normal(n) * layers, dtype=np.float32)


@given(VECTORS, st.integers(1, 500), st.integers(100, 900), forms)
def test_exactly_the_largest_are_kept(vector: F32, keep: int, limit: int, form: str) -> None:
    rebuilt = add_up(encode(TopK(keep, indices=form), vector, limit).chunks, len(vector))  # type: ignore[arg-type]
    expected = np.zeros_like(vector)
    kept = largest(vector, keep)
    expected[kept] = vector[kept]
    assert np.array_equal(rebuilt, expected)


@pytest.mark.parametrize("limit", [1 << 20, 1400])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.6, 1.0])
def test_long_vectors(share: float, limit: int) -> None:
    vector = sparse_like_training(150_000)
    keep = round(share * len(vector))
    rebuilt = add_up(encode(TopK(keep), vector, limit).chunks, len(vector))
    assert np.count_nonzero(rebuilt) == keep
    assert np.array_equal(rebuilt[rebuilt != 0], vector[rebuilt != 0])


def test_a_packet_holds_at_most_a_mebi_of_entries() -> None:
    vector = np.random.default_rng(1).standard_normal(1_100_000).astype(np.float32)
    encoding = encode(TopK(len(vector), Uniform(1)), vector)
    entries = [len(decode(chunk).values) for chunk in encoding.chunks]
    assert entries == [2**20, len(vector) - 2**20]
    many = payload_of(2**20 + 1, 2**20, pb.CODEC_UNIFORM, bytes(2**21))
    with pytest.raises(CodecError, match="cannot hold 1048577 entries"):
        TopK.decode(many, first=0, count=2**32 - 1)


@given(VECTORS, st.integers(1, 500), st.integers(150, 900), st.randoms(use_true_random=False))
def test_packets_are_disjoint_and_come_in_any_order(
    vector: F32, keep: int, limit: int, order: object
) -> None:
    chunks = list(encode(TopK(keep), vector, limit).chunks)
    segments = [decode(chunk) for chunk in chunks]
    for earlier, later in pairwise(segments):
        assert np.abs(later.values).max() <= np.abs(earlier.values).min()
    indices = np.concatenate(
        [segment.indices for segment in segments if segment.indices is not None]
    )
    assert len(np.unique(indices)) == min(keep, len(vector))
    order.shuffle(segments)  # type: ignore[attr-defined]
    out = np.zeros_like(vector)
    for segment in segments[: len(segments) // 2]:
        segment.add_to(out)
        assert np.array_equal(out[segment.indices], segment.values)


@given(VECTORS, st.integers(1, 500), st.integers(1, 16), st.integers(200, 900))
def test_values_of_few_bits(vector: F32, keep: int, bits: int, limit: int) -> None:
    vector = vector / np.float32(4)
    chunks = encode(TopK(keep, Laq(bits)), vector, limit).chunks
    assert sum(len(decode(chunk).values) for chunk in chunks) == min(keep, len(vector))
    for chunk in chunks:
        segment = decode(chunk)
        assert segment.indices is not None
        original = vector[segment.indices].astype(np.float64)
        half_step = np.abs(original).max() / (2**bits - 1)
        rounding = np.abs(original).max() * 2.0**-22 + 1e-38
        assert np.abs(segment.values - original).max() <= half_step + rounding


def test_dithered_values_are_right_on_average() -> None:
    vector = sparse_like_training(3000)
    codec = TopK(300, Uniform(3))
    generator = np.random.default_rng(5)
    runs = 400
    total = np.zeros(len(vector))
    for _ in range(runs):
        encoding = codec.encode(vector, max_payload_bytes=1 << 20, generator=generator)
        total += add_up(encoding.chunks, len(vector))
    kept = largest(vector, 300)
    step = np.abs(vector).max() / 3
    error = total[kept] / runs - vector[kept]
    assert np.abs(error).max() < 5 * step / 2 / np.sqrt(runs)
    assert abs(error.mean()) < 3 * step / 2 / np.sqrt(runs * len(kept))


def test_huge_values_are_finite() -> None:
    vector = np.full(100, 3e38, dtype=np.float32)
    assert np.array_equal(add_up(encode(TopK(100), vector).chunks, 100), vector)


def test_an_empty_vector_takes_nothing() -> None:
    assert encode(TopK(5), np.zeros(0, dtype=np.float32)) == Encoding((), 0)
    assert TopK(5).estimate_bits(0, max_payload_bytes=100) == 0


def test_parameters_that_make_no_sense_are_refused() -> None:
    with pytest.raises(CodecError, match="k_keep is 0"):
        TopK(0)
    with pytest.raises(CodecError, match='indices is "none"; allowed are "best" and "paper"'):
        TopK(1, indices="none")  # type: ignore[arg-type]
    vector = np.ones(1000, dtype=np.float32)
    with pytest.raises(CodecError, match="max_payload_bytes is 10; one of 1000 entries takes"):
        encode(TopK(3), vector, 10)
    for values in (Uniform(4, order="planes"), TopK(2)):
        with pytest.raises(CodecError, match="cannot write the values"):
            encode(TopK(30, values), vector)


@dataclass(frozen=True)
class Unforeseen:
    """Values that take more bytes than was estimated."""

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        return DenseF32().encode(vector, max_payload_bytes=max_payload_bytes, generator=generator)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        return 8 * dimension

    def nominal_bits(self, dimension: int) -> int:
        return 8 * dimension


def test_packets_shrink_if_the_estimate_was_too_low() -> None:
    vector = sparse_like_training(20_000)
    for keep in (400, 4000):
        encoding = encode(TopK(keep, Unforeseen()), vector, 2500)
        assert np.count_nonzero(add_up(encoding.chunks, len(vector))) == keep
        assert encoding.nominal_bits == keep * (15 + 32)
    with pytest.raises(CodecError, match="max_payload_bytes is 15"):
        encode(TopK(40, Unforeseen()), vector, 15)


@given(st.integers(1, 3000), st.integers(1, 4000), st.integers(60, 5000))
def test_the_papers_form_has_the_estimated_size(n: int, keep: int, limit: int) -> None:
    codec = TopK(keep, indices="paper")
    vector = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    estimate = codec.estimate_bits(n, max_payload_bytes=1 << 20)
    assert encode(codec, vector).coded_bits == estimate
    assert codec.nominal_bits(n) == min(keep, n) * (32 + (n - 1).bit_length())
    assert encode(codec, vector, limit).nominal_bits == codec.nominal_bits(n)


@pytest.mark.parametrize("values", [DenseF32(), Uniform(4)])
@pytest.mark.parametrize("limit", [1 << 20, 1400])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_random_vectors_take_what_is_estimated(values: Codec, limit: int, share: float) -> None:
    n = 60_000
    vector = np.random.default_rng(1).standard_normal(n).astype(np.float32)
    codec = TopK(round(share * n), values)
    estimate = codec.estimate_bits(n, max_payload_bytes=limit)
    assert encode(codec, vector, limit).coded_bits == pytest.approx(estimate, rel=0.01)


def test_vectors_with_structure_take_less() -> None:
    vector = sparse_like_training(400_000)
    codec = TopK(4000, Uniform(4))
    estimate = codec.estimate_bits(len(vector), max_payload_bytes=1 << 20)
    assert encode(codec, vector).coded_bits < 0.9 * estimate


@given(
    n=st.integers(1, 2**32 - 1),
    bits=st.integers(0, 10**8),
    packet_bits=st.sampled_from([0, 320, 800]),
    limit=st.sampled_from([300, 1400, 1 << 20]),
    values=st.sampled_from([DenseF32(), Uniform(2), Uniform(8)]),
)
def test_the_largest_k_is_where_the_estimate_ends(
    n: int, bits: int, packet_bits: int, limit: int, values: Codec
) -> None:
    codec = TopK(1, values)
    k = codec.largest_k(n, bits, max_payload_bytes=limit, packet_bits=packet_bits)
    assert 0 <= k <= n
    if packet_bits == 0:
        for more in (0, 1, 2, 1000):
            inside, outside = max(1, k - more), k + 1 + more
            estimate = replace(codec, k_keep=inside).estimate_bits(n, max_payload_bytes=limit)
            assert estimate <= bits or k == 0
            estimate = replace(codec, k_keep=outside).estimate_bits(n, max_payload_bytes=limit)
            assert estimate > bits or k == n


def test_overhead_of_packets_counts_against_what_fits() -> None:
    codec = TopK(1)
    options = {"max_payload_bytes": 1400}
    free = codec.largest_k(100_000, 10**6, **options)
    assert codec.largest_k(100_000, 10**6, **options, packet_bits=800) < 0.95 * free
    assert codec.largest_k(100_000, 100, **options) == 0


def payload_of(entries: int, index_bytes: int, number: int, rest: bytes) -> bytes:
    return (
        entries.to_bytes(4, "little") + index_bytes.to_bytes(4, "little") + bytes([number]) + rest
    )


def test_payloads_nest_once_and_hold_only_values() -> None:
    (inner,) = encode(TopK(3), np.arange(1, 10, dtype=np.float32)).chunks
    for number in set(pb.Codec.values()) - {pb.CODEC_DENSE_F32}:
        with pytest.raises(CodecError):
            TopK.decode(payload_of(3, 2, number, b"\x02\x00" + inner.payload), first=0, count=9)
    with pytest.raises(CodecError, match="cannot be in format 2"):
        TopK.decode(payload_of(3, 2, pb.CODEC_SPARSE, inner.payload), first=0, count=9)


def test_refining_planes_are_no_values() -> None:
    vector = np.arange(1, 9, dtype=np.float32)
    _, low = encode(Uniform(2, order="planes"), vector).chunks
    payload = payload_of(8, 2, pb.CODEC_UNIFORM, bytes([1, 255]) + low.payload)
    with pytest.raises(CodecError, match="does not hold the values"):
        TopK.decode(payload, first=0, count=8)


@pytest.mark.parametrize("number", [pb.CODEC_DENSE_F32, pb.CODEC_UNIFORM])
def test_declared_sizes_allocate_nothing(number: int) -> None:
    tracemalloc.start()
    try:
        for entries in (0, 1, 2**20, 2**32 - 1):
            for index_bytes in (0, 5, 2**32 - 1):
                payload = payload_of(entries, index_bytes, number, bytes(range(11)))
                assert len(payload) == 20
                with pytest.raises(CodecError):
                    TopK.decode(payload, first=0, count=2**32 - 1)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


@given(VECTORS, st.sampled_from([0.01, 0.3, 1.0]), st.integers(1, 16))
def test_top_q_rounds_to_levels_of_the_largest_magnitude(
    vector: F32, fraction: float, bits: int
) -> None:
    vector = vector / np.float32(4)
    codec = TopQ(fraction, bits)
    encoding = encode(codec, vector)
    keep = int(np.ceil(fraction * len(vector)))
    (segment,) = [decode(chunk) for chunk in encoding.chunks]
    assert segment.indices is not None
    assert np.array_equal(segment.indices, largest(vector, keep))
    assert encoding.nominal_bits == codec.nominal_bits(len(vector))
    assert codec.nominal_bits(len(vector)) == 32 + keep * (bits + (len(vector) - 1).bit_length())
    reach = float(np.abs(vector).max())
    half_step = reach / (2**bits - 1)
    kept = vector[segment.indices].astype(np.float64)
    rounding = reach * 2.0**-22 + 1e-38
    assert np.abs(segment.values - kept).max() <= half_step + rounding


def test_top_q_refuses_shares_and_bits_that_do_not_exist() -> None:
    for fraction in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(CodecError, match="fraction is"):
            TopQ(fraction, 4)
    for bits in (0, 17):
        with pytest.raises(CodecError, match=f"bits is {bits}"):
            TopQ(0.1, bits)
    assert TopQ(0.1, 4).estimate_bits(1000, max_payload_bytes=9999) == TopK(
        100, Laq(4)
    ).estimate_bits(1000, max_payload_bytes=9999)
