"""Compiled kernels give the bytes, the values and the refusals of the numpy ones."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.proto.codec_cases import CASES, EXTREME_VECTORS, MIB, encode
from tests.proto.mutations import all_packets, long_packets, mutants
from tests.proto.test_codec_index_sets import clustered_set, index_sets, random_set

from fadelab_proto import codecs
from fadelab_proto.codecs import (
    AccelerationError,
    Chunk,
    Codec,
    CodecError,
    DenseF16,
    DenseF32,
    Groups,
    Qsgd,
    Segment,
    SignModulus,
    TopK,
    Uniform,
    accelerate,
    kernels,
    plain_kernels,
)
from fadelab_proto.codecs.base import F32, Index
from fadelab_proto.codecs.index_sets import decode_indices, encode_indices
from fadelab_proto.packet import PacketError, parse_packet

WEIGHTS = (1.0, 600, 0.3)
BLOCKS = Groups(block=100)
USERS: dict[str, Codec] = {
    "float16": DenseF16(),
    "float32": DenseF32(),
    "uniform 1": Uniform(1),
    "uniform 4": Uniform(4),
    "uniform 5, planes": Uniform(5, order="planes"),
    "uniform 8": Uniform(8),
    "uniform 8, blocks": Uniform(8, BLOCKS),
    "uniform 13": Uniform(13),
    "qsgd 12, blocks": Qsgd(12, BLOCKS),
    "signs and moduli": SignModulus(8),
    "top": TopK(1 << 20),
    "top of float16": TopK(1 << 20, DenseF16()),
    "top of 4 bits": TopK(1 << 20, Uniform(4)),
    "top of 4 bits, blocks": TopK(1 << 20, Uniform(4, BLOCKS)),
    "top of 13 bits, literal": TopK(1 << 20, Uniform(13), "paper"),
}


@pytest.fixture(autouse=True)
def _numpy_again() -> Iterator[None]:
    yield
    kernels.in_use = plain_kernels


@contextmanager
def compiled() -> Iterator[None]:
    accelerate()
    assert kernels.in_use is not plain_kernels
    try:
        yield
    finally:
        kernels.in_use = plain_kernels


def alike(act: Callable[[], object]) -> object:
    """Do something with either form; return what both of them made of it."""
    with np.errstate(all="ignore"):
        plain = act()
        with compiled():
            assert act() == plain
    return plain


def outcome(chunk: Chunk) -> object:
    """Return everything that decoding and adding give, as bytes; or the refusal's words."""
    try:
        segment = codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)
    except CodecError as error:
        return str(error)
    indices = None if segment.indices is None else segment.indices.tobytes()
    if chunk.count > MIB or segment.first > MIB:
        return segment.values.tobytes(), indices, segment.largest
    totals = [
        added(segment, chunk.first + chunk.count, weight, precision)
        for weight in WEIGHTS
        for precision in (np.float32, np.float64)
    ]
    return segment.values.tobytes(), indices, segment.largest, totals


def added(segment: Segment, dimension: int, weight: float, precision: type) -> bytes:
    total = np.linspace(-1, 1, dimension, dtype=precision)
    segment.add_to(total, weight)
    return total.tobytes()


@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", CASES)
@given(vector=EXTREME_VECTORS, limit=st.sampled_from([600, MIB]))
def test_every_codec_gives_the_same(name: str, vector: F32, limit: int) -> None:
    try:
        chunks = encode(CASES[name].codec, vector, limit).chunks
    except CodecError:
        return
    with compiled():
        assert encode(CASES[name].codec, vector, limit).chunks == chunks
    for chunk in chunks:
        alike(lambda chunk=chunk: outcome(chunk))


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 63, 127, 129, 1000, 4097, 262_145, 1_000_000])
def test_every_length_gives_the_same(size: int) -> None:
    draw = np.random.default_rng(size)
    vector = draw.standard_normal(size).astype(np.float32)
    vector[draw.random(size) < 0.5] = 0
    for codec in USERS.values():
        own = replace(codec, k_keep=max(1, size // 50)) if isinstance(codec, TopK) else codec
        for chunk in encode(own, vector).chunks[:1]:
            assert not isinstance(alike(lambda chunk=chunk: outcome(chunk)), str)


@settings(max_examples=100, deadline=None)
@given(index_sets())
def test_sets_of_indices_are_the_same(pair: tuple[Index, int]) -> None:
    indices, n = pair
    same_set(indices, n)


@pytest.mark.parametrize("make", [random_set, clustered_set])
@pytest.mark.parametrize(("k", "n"), [(300, 100_000), (1000, 2000), (20_000, 1_000_000)])
def test_large_sets_are_the_same(make: Callable[..., Index], k: int, n: int) -> None:
    for seed, size in enumerate((k, k + 1, k + 77)):
        same_set(make(size, n, seed), n)


def same_set(indices: Index, n: int) -> None:
    coded = encode_indices(indices, n)
    assert alike(lambda: indices_in(coded, len(indices), n)) == indices.tobytes()
    for k in (len(indices) - 1, len(indices) + 1):
        alike(lambda k=k: indices_in(coded, k, n))


@pytest.mark.parametrize("make", [random_set, clustered_set])
@pytest.mark.parametrize(
    ("k", "n"),
    [(1, 1), (1, 2**31), (5, 2**31), (100, 500), (128, 10**9), (1500, 10**8), (1500, 10**5)],
)
def test_sets_are_read_by_the_kernel(make: Callable[..., Index], k: int, n: int) -> None:
    """What the compiled form leaves to numpy's would pass every other test here."""
    indices = make(k, min(n, 10**6), 3) * (n // min(n, 10**6))
    coded = encode_indices(indices, n)
    with compiled():
        found = kernels.in_use.indices(np.frombuffer(coded, dtype=np.uint8), k, n)
    assert found is not None
    assert np.array_equal(found, indices)
    assert found.dtype == np.int64


def test_every_step_of_divisors_is_read_by_the_kernel() -> None:
    draw = np.random.default_rng(8)
    gaps = np.concatenate([draw.integers(0, 1 + 2 ** (i / 2), 128) for i in range(52)])
    for runs in (gaps, gaps[::-1], draw.permutation(gaps.reshape(-1, 128)).ravel()[:-9]):
        indices = np.cumsum(runs + 1) - 1
        n = int(indices[-1]) + 1
        same_set(indices, n)
        coded = np.frombuffer(encode_indices(indices, n), dtype=np.uint8)
        with compiled():
            assert kernels.in_use.indices(coded, len(indices), n) is not None
            assert kernels.in_use.indices(coded, len(indices), n - 1) is None


def test_damaged_sets_end_alike() -> None:
    """In particular, nothing is read or written out of place, wherever fields seem to begin."""
    draw = np.random.default_rng(5)
    ends = set()
    for make, k, n in ((random_set, 300, 9000), (clustered_set, 700, 9000), (random_set, 40, 90)):
        coded = np.frombuffer(encode_indices(make(k, n, 1), n), dtype=np.uint8)
        for turn in range(700):
            data = np.append(coded, draw.integers(0, 256, turn % 3, dtype=np.uint8))
            data = data[: max(1, len(data) - int(draw.integers(0, 20)) * (turn % 4 == 0))]
            spots = draw.integers(0, min(len(data), 8 ** (1 + turn % 4)), turn % 3)
            data[spots] = draw.integers(0, 256, len(spots))
            data[0] = 1 + turn % 3 if turn % 5 == 0 else data[0]
            end = alike(lambda data=data, k=k, n=n: indices_in(data.tobytes(), k, n))
            ends.add(end if isinstance(end, str) else "read")
    assert len(ends) > 5


def indices_in(coded: bytes, k: int, n: int) -> object:
    try:
        return decode_indices(coded, k=k, n=n).tobytes()
    except CodecError as error:
        return str(error)


def test_damaged_packets_end_alike() -> None:
    refused = decoded = 0
    for packets, number in ((all_packets(), 6000), (long_packets(), 150)):
        for data in mutants(31, packets, number):
            try:
                packet = parse_packet(data)
            except PacketError:
                continue
            chunk = Chunk(packet.first, packet.count, bytes(packet.payload), packet.codec)
            end = alike(lambda chunk=chunk: outcome(chunk))
            refused += isinstance(end, str)
            decoded += not isinstance(end, str)
    assert min(refused, decoded) > 500


def straddling(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.frombuffer(b"x" + values.tobytes(), dtype=np.uint8)[1:].view(values.dtype)


def test_values_may_lie_anywhere() -> None:
    draw = np.random.default_rng(4)
    values = draw.standard_normal(500).astype(np.float32)
    halves = draw.integers(0, 0x7C00, 500, dtype=np.uint16)
    indices = np.arange(500) + 400

    def ends() -> object:
        every_other = np.ones(2000, dtype=np.float32)[::2]
        kernels.in_use.add(every_other[:500], straddling(values), 3.0)
        kernels.in_use.add_at(every_other, indices, straddling(values), 3.0)
        packed = straddling(halves)
        segment = codecs.decode(DenseF16.NUMBER, packed.tobytes(), first=0, count=500)
        anywhere = kernels.in_use.float16(packed)
        assert anywhere is not None
        for own in (segment, Segment(0, anywhere), Segment(3, anywhere, indices)):
            own.add_to(every_other[: 500 if own.indices is None else 1000], 0.7)
        return (
            every_other.tobytes(),
            segment.values.tobytes(),
            Segment(0, anywhere).values.tobytes(),
        )

    alike(ends)


@pytest.mark.parametrize("indices", [[0, 1, 10], [2**40], [-(2**40)]])
def test_nothing_is_written_beyond_a_vector(indices: list[int]) -> None:
    values = np.ones(len(indices), dtype=np.float32)
    with compiled(), pytest.raises(IndexError):
        Segment(0, values, np.array(indices)).add_to(np.zeros(10, dtype=np.float32))
    with compiled(), pytest.raises(ValueError, match="shape"):
        Segment(5, np.ones(6, dtype=np.float32)).add_to(np.zeros(10, dtype=np.float32), 2.0)
    for codec in (Uniform(4), Uniform(13), DenseF16()):
        chunk = encode(codec, np.ones(len(indices), dtype=np.float32)).chunks[0]
        with compiled():
            content = codecs.decode(chunk.codec, chunk.payload, first=0, count=len(indices)).content
            with pytest.raises(IndexError):
                Segment(0, content, np.array(indices)).add_to(np.zeros(10, dtype=np.float32))
    chunk = encode(Uniform(8), np.ones(6, dtype=np.float32)).chunks[0]
    with compiled(), pytest.raises(ValueError, match="shape"):
        codecs.decode(chunk.codec, chunk.payload, first=5, count=6).add_to(np.zeros(10), 2.0)


def test_numba_is_loaded_on_request_alone() -> None:
    program = (
        "import sys; from fadelab_proto import codecs; assert 'numba' not in sys.modules;"
        "codecs.accelerate(); assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_numba_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [own for own in sys.modules if own.startswith("fadelab_proto.codecs.acc")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(codecs, "accelerated_kernels", raising=False)
    monkeypatch.delitem(sys.modules, "fadelab_proto.codecs.compiling", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(AccelerationError, match=r"numba.*pip install 'fadelab\[accelerate\]'"):
        accelerate()
    assert kernels.in_use is plain_kernels
