"""Any packets of an update, in any order, give the entries that are told, and no others."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import (
    Chunk,
    Codec,
    CodecError,
    DenseF32,
    Groups,
    Lossless,
    SignModulus,
    SignOnly,
    Signs,
    TopK,
    Uniform,
)
from fadelab_proto.joining import JoinedUpdate, stand_in
from fadelab_proto.runs import complement, union
from fadelab_proto.substitutes import ConstantModulus, LastStep, MeanModulus, SubstituteConfig

F32 = NDArray[np.float32]
N = 5000
SPLIT = SignModulus(4, Groups(block=700))


def vector(seed: int = 1, n: int = N) -> F32:
    return np.random.default_rng(seed).standard_normal(n, dtype=np.float32)


def chunks_of(codec: Codec, values: F32, limit: int = 100) -> tuple[Chunk, ...]:
    draw = np.random.default_rng(2)
    return codec.encode(values, max_payload_bytes=limit, generator=draw).chunks


def join(
    chunks: tuple[Chunk, ...] | list[Chunk],
    substitute: SubstituteConfig | None = None,
    *,
    last_step: F32 | None = None,
    n: int = N,
) -> tuple[F32, JoinedUpdate]:
    step = None if last_step is None else (lambda first, last: last_step[first:last])
    joined = JoinedUpdate(lambda: chunks, n, stand_in(substitute, step))
    result = np.zeros(n, dtype=np.float32)
    for segment in joined:
        assert segment.part is codecs.Part.VALUES
        segment.add_to(result)
    return result, joined


def mask(chunks: list[Chunk]) -> NDArray[np.bool_]:
    covered = np.zeros(N, dtype=np.bool_)
    for chunk in chunks:
        covered[chunk.first : chunk.first + chunk.count] = True
    return covered


def lacking(joined: JoinedUpdate) -> NDArray[np.bool_]:
    missing = np.zeros(N, dtype=np.bool_)
    for first, last in joined.missing:
        missing[first:last] = True
    return missing


subsets = st.lists(st.integers(0, 10_000), max_size=40)


def some(chunks: tuple[Chunk, ...], picks: list[int]) -> list[Chunk]:
    """Return different ones of the chunks, in an arbitrary order."""
    return [chunks[number] for number in dict.fromkeys(pick % len(chunks) for pick in picks)]


def reference(chunks: list[Chunk]) -> F32:
    """Join whole vectors, the obvious way."""
    signs, moduli = np.zeros(N, np.float32), np.zeros(N, np.float32)
    for chunk in chunks:
        segment = codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)
        segment.copy_to(signs if chunk.packet_class == pb.PACKET_CLASS_SIGN else moduli)
    product: F32 = signs * moduli
    return product


@given(subsets)
def test_signs_and_moduli_of_any_subset_are_multiplied_exactly(picks: list[int]) -> None:
    held = some(chunks_of(SPLIT, vector()), picks)
    result, joined = join(held)
    np.testing.assert_array_equal(result, reference(held))
    signs = mask([own for own in held if own.packet_class == pb.PACKET_CLASS_SIGN])
    moduli = mask([own for own in held if own.packet_class == pb.PACKET_CLASS_MODULUS])
    np.testing.assert_array_equal(lacking(joined), ~(signs & moduli))
    assert np.abs(result).max(initial=0) <= joined.largest


def test_the_products_are_those_of_the_codec_itself() -> None:
    chunks = chunks_of(SPLIT, vector(), limit=3000)
    signs, moduli = chunks[0], chunks[-1]
    assert signs.count == N
    segment = codecs.decode(moduli.codec, moduli.payload, first=moduli.first, count=moduli.count)
    values = segment.values.copy()
    Signs.join(signs.payload, values, count=signs.count, skip=moduli.first)
    result, _ = join([signs, moduli])
    np.testing.assert_array_equal(result[moduli.first :], values)
    assert not result[: moduli.first].any()


@given(subsets)
def test_a_constant_stands_in_where_only_the_sign_arrived(picks: list[int]) -> None:
    held = some(chunks_of(SPLIT, vector()), picks)
    result, joined = join(held, ConstantModulus(modulus=0.5))
    exact = reference(held)
    signs = mask([own for own in held if own.packet_class == pb.PACKET_CLASS_SIGN])
    moduli = mask([own for own in held if own.packet_class == pb.PACKET_CLASS_MODULUS])
    lone = signs & ~moduli
    np.testing.assert_array_equal(result[~lone], exact[~lone])
    np.testing.assert_array_equal(result[lone], np.where(vector()[lone] < 0, -0.5, 0.5))
    np.testing.assert_array_equal(lacking(joined), ~signs)


def test_the_mean_is_over_the_moduli_of_this_update_that_arrived() -> None:
    chunks = chunks_of(SPLIT, vector())
    signs = [own for own in chunks if own.packet_class == pb.PACKET_CLASS_SIGN]
    moduli = [own for own in chunks if own.packet_class == pb.PACKET_CLASS_MODULUS]
    result, joined = join(signs + moduli[3:5], MeanModulus())
    there = mask(moduli[3:5])
    mean = np.float32(np.abs(result[there]).astype(np.float64).mean())
    np.testing.assert_allclose(np.abs(result[~there]), mean, rtol=1e-6)
    assert len(joined.missing) == 0
    alone, joined = join(signs, MeanModulus())
    assert not alone.any()
    np.testing.assert_array_equal(joined.missing, [[0, N]])


def test_the_last_step_stands_in_by_coordinate() -> None:
    signs = chunks_of(SignOnly(), vector())
    step = np.abs(vector(9))
    result, joined = join(signs, LastStep(), last_step=step)
    np.testing.assert_array_equal(result, np.where(vector() < 0, -step, step))
    assert len(joined.missing) == 0
    before, joined = join(signs, LastStep(), last_step=None)
    assert not before.any()
    np.testing.assert_array_equal(joined.missing, [[0, N]])


@pytest.mark.parametrize(
    "codec", [DenseF32(), Uniform(6), TopK(600, Uniform(4)), Lossless(SPLIT), Lossless(DenseF32())]
)
def test_a_whole_update_is_what_its_packets_hold(codec: Codec) -> None:
    chunks = chunks_of(codec, vector(), limit=400)
    result, joined = join(chunks)
    assert len(joined.missing) == 0
    if isinstance(codec, Lossless) and codec.inner is SPLIT:
        np.testing.assert_array_equal(result, join(chunks_of(SPLIT, vector(), limit=400))[0])
        return
    plain = np.zeros(N, np.float32)
    for chunk in chunks:
        codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count).add_to(
            plain
        )
    np.testing.assert_array_equal(result, plain)


@given(subsets)
def test_low_planes_count_only_where_the_high_one_arrived(picks: list[int]) -> None:
    chunks = chunks_of(Uniform(4, Groups(block=640), order="planes"), vector())
    held = some(chunks, picks)
    tops = mask([own for own in held if not _refines(own)])
    result, joined = join(held)
    np.testing.assert_array_equal(lacking(joined), ~tops)
    plain = np.zeros(N, np.float32)
    for chunk in held:
        codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count).add_to(
            plain
        )
    np.testing.assert_array_equal(result, np.where(tops, plain, 0))


def _refines(chunk: Chunk) -> bool:
    return codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count).refines


def test_it_can_be_decoded_again_and_again() -> None:
    chunks = chunks_of(SPLIT, vector())[:-3]
    _, joined = join(chunks, MeanModulus())
    twice = [np.concatenate([own.values for own in joined]) for _ in range(2)]
    np.testing.assert_array_equal(*twice)


@pytest.mark.parametrize(("position", "what"), [(0, "signs"), (-1, "moduli")])
def test_parts_that_come_twice_are_refused(position: int, what: str) -> None:
    chunks = chunks_of(SPLIT, vector())
    with pytest.raises(CodecError, match=f"the {what} of some coordinates came twice"):
        join([*chunks, chunks[position]])


def test_a_damaged_packet_is_refused_before_anything_is_used() -> None:
    chunks = chunks_of(SPLIT, vector())
    with pytest.raises(CodecError):
        JoinedUpdate(lambda: [*chunks[:-1], replace(chunks[-1], payload=b"x")], N)


def test_memory_is_in_proportion_to_a_packet() -> None:
    n = 1_000_000
    chunks = chunks_of(SignModulus(8), vector(n=n), limit=16384)
    target = np.zeros(n, np.float32)
    tracemalloc.start()
    for segment in JoinedUpdate(lambda: chunks, n):
        segment.add_to(target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The signs take n / 8 bytes; a decoded packet of signs 4 bytes for 131 072 entries, and a few
    # copies of that while it is packed. Two decoded vectors would be 8 MB.
    assert peak < 3_000_000


def test_runs_of_the_joined_update_partition_the_model() -> None:
    _, joined = join(chunks_of(SPLIT, vector())[:3], ConstantModulus(modulus=1))
    whole = np.concatenate((joined.missing, complement(joined.missing, N)))
    np.testing.assert_array_equal(union(whole), [[0, N]])
