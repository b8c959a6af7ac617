"""Floating-point numbers of few bits, relative to the largest exponent: EMQ, fixed and adaptive.

Exponent/mantissa quantisation as in arXiv 2412.20785 (IEEE Transactions on Machine Learning in
Communications and Networking, 2025, doi 10.1109/TMLCN.2025.3583659). The paper gives the principle;
layout and rule for the mantissas are ours. :mod:`fadelab_proto.codecs.minifloats` says what the
codes mean.

Payload of one packet (little-endian, bits counted from the lowest)::

    u8   exponent bits b
    u8   largest number of mantissa bits m
    u8   how many of the largest exponents have all m, or 0 if all exponents have
    i16  the largest exponent

If all have (fixed), the codes follow as fields (:mod:`fadelab_proto.codecs.bit_planes`). Otherwise
(adaptive), for each run of 65 536 entries and the rest: the exponent codes as planes, the highest
first; a sign for each entry that is not zero; each mantissa bit, the highest first, of those
entries that have it. Every plane takes whole bytes.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any, ClassVar, Literal

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Encoding, Segment
from fadelab_proto.codecs.bit_planes import (
    U8,
    Codes,
    field_bytes,
    pack_fields,
    pack_planes,
    plane_bytes,
    split_fields,
    unpack_fields,
    unpack_planes,
)
from fadelab_proto.codecs.grids import MAX_COORDINATES
from fadelab_proto.codecs.minifloats import (
    Grid,
    Quantiser,
    dequantise,
    empty_codes,
    exponent_codes,
    fitting_grid,
    largest_magnitude,
)
from fadelab_proto.codecs.rounding import Dither

Rounding = Literal["nearest", "stochastic"]

_HEAD = struct.Struct("<BBBh")
_SHORTEST_RUN = 1 << 17
_SECTION = 1 << 16
"""Entries of an adaptive code whose planes are together, so that they stay in the cache."""


@dataclass(frozen=True, slots=True)
class EmqFixed:
    """The same number of mantissa bits for every entry.

    To nearest, an entry is off by at most ``2**-(m + 1)`` of itself, unless it is below 2**bottom,
    ``2**b - 2`` exponents under the largest one: then by 2**bottom / 2 at most. Stochastically, it
    may be off by twice that, but not on average.

    Args:
        exponent_bits: b, 1 to 7.
        mantissa_bits: m; ``1 + b + m`` is 16 at most.
        rounding: to the nearest code, or to either neighbour so that the expectation is right.

    """

    exponent_bits: int
    mantissa_bits: int
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        Grid(self.exponent_bits, self.mantissa_bits)
        _check_rounding(self.rounding)

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Return packets of consecutive entries, each as full as the limit allows."""
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        dithered = self.rounding == "stochastic"
        grid = fitting_grid(
            largest_magnitude(vector),
            exponent_bits=self.exponent_bits,
            mantissa_bits=self.mantissa_bits,
            adaptive=False,
            dithered=dithered,
        )
        step = _fixed_run(grid.width, max_payload_bytes)
        # Short packets share a run of the quantiser, whose every call costs some time.
        run = step * max(1, _SHORTEST_RUN // step)
        quantiser = Quantiser(
            grid,
            longest_run=min(run, len(vector)),
            dither=Dither(generator, len(vector)) if dithered else None,
        )
        chunks = tuple(
            _chunk(start + first, len(packet), _write_fixed(grid, packet))
            for start in range(0, len(vector), run)
            for first, packet in _slices(quantiser.codes(vector[start : start + run]), step)
        )
        return Encoding(chunks, self.nominal_bits(len(vector)))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits, which depend on the sizes alone."""
        width = 1 + self.exponent_bits + self.mantissa_bits
        step = _fixed_run(width, max_payload_bytes)
        packets, rest = divmod(dimension, step)
        return 8 * (packets * _fixed_bytes(width, step) + bool(rest) * _fixed_bytes(width, rest))

    def nominal_bits(self, dimension: int) -> int:
        """Return ``1 + b + m`` bits for each entry."""
        return dimension * (1 + self.exponent_bits + self.mantissa_bits)


@dataclass(frozen=True, slots=True)
class EmqAdaptive:
    """Fewer mantissa bits for smaller entries: ``max(0, m - (e_max - e))`` at exponent e.

    To nearest, an entry is off by at most ``2**(e_max - m - 1)``, as long as m exponents below the
    largest one e_max can be written (``m < 2**b - 2``). Stochastically, it may be off by twice
    that, but not on average.

    Args:
        exponent_bits: b, 1 to 7.
        top_mantissa_bits: m; ``1 + b + m`` is 16 at most.
        rounding: to the nearest code, or to either neighbour so that the expectation is right.

    """

    exponent_bits: int
    top_mantissa_bits: int
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        Grid(self.exponent_bits, self.top_mantissa_bits)
        _check_rounding(self.rounding)

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Return packets of consecutive entries, each about as full as the limit allows."""
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        dithered = self.rounding == "stochastic"
        grid = fitting_grid(
            largest_magnitude(vector),
            exponent_bits=self.exponent_bits,
            mantissa_bits=self.top_mantissa_bits,
            adaptive=True,
            dithered=dithered,
        )
        quantiser = Quantiser(
            grid,
            longest_run=len(vector),
            dither=Dither(generator, len(vector)) if dithered else None,
        )
        codes = quantiser.codes(vector)
        costs = _costs(grid)[exponent_codes(grid, codes)]
        ends = _adaptive_ends(costs, _adaptive_budget(grid, max_payload_bytes), width=grid.width)
        chunks = tuple(
            _chunk(first, end - first, _write_adaptive(grid, codes[first:end]))
            for first, end in pairwise([0, *ends])
        )
        return Encoding(chunks, int(costs.sum(dtype=np.int64)))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return about what a vector of normally distributed entries takes.

        Heavier tails, which real updates have, take less; entries of one size take the most.
        """
        grid = Grid(self.exponent_bits, self.top_mantissa_bits, full=1)
        nominal = self.nominal_bits(dimension)
        budget = _adaptive_budget(grid, max_payload_bytes)
        packets = max(-(-nominal // budget), -(-dimension // MAX_COORDINATES))
        return nominal + packets * (8 * max_payload_bytes - budget)

    def nominal_bits(self, dimension: int) -> int:
        """Return about what the formula gives for normally distributed entries.

        That is b bits for each entry and 1 + m_i for those that are not zero. The largest entry is
        taken to be rather small, which makes all others large.
        """
        if dimension == 0:
            return 0
        grid = Grid(self.exponent_bits, self.top_mantissa_bits, full=1)
        normal = NormalDist()
        largest = normal.inv_cdf((1 + 0.05 ** (1 / dimension)) / 2)
        top = int(np.floor(np.log2(largest)))
        costs = _costs(grid)
        mean = float(self.exponent_bits)
        for code in range(1, len(costs)):
            low = 2.0 ** (top - len(costs) + 1 + code)
            share = 2 * (normal.cdf(2 * low) - normal.cdf(low))
            mean += share * (int(costs[code]) - self.exponent_bits)
        return min(int(np.ceil(mean * dimension)), dimension * grid.width)


class Emq:
    """The payload format of both."""

    NUMBER: ClassVar[int] = pb.CODEC_EMQ

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Read ``count`` entries; sizes are checked before anything is allocated."""
        if len(payload) < _HEAD.size:
            raise CodecError(f"{len(payload)} payload bytes are too few for an EMQ packet")
        grid = Grid(*_HEAD.unpack_from(payload))
        body = np.frombuffer(payload, dtype=np.uint8, offset=_HEAD.size)
        codes = _read_adaptive(grid, body, count) if grid.full else _read_fixed(grid, body, count)
        return Segment(first, dequantise(grid, codes), largest=grid.largest)


def _check_rounding(rounding: str) -> None:
    if rounding not in ("nearest", "stochastic"):
        raise CodecError(f'rounding is "{rounding}"; allowed are "nearest" and "stochastic"')


def _chunk(first: int, count: int, payload: bytes) -> Chunk:
    return Chunk(first, count, payload, Emq.NUMBER)


def _head(grid: Grid) -> bytes:
    return _HEAD.pack(grid.exponent_bits, grid.mantissa_bits, grid.full, grid.top)


def _slices(codes: Codes, step: int) -> Iterator[tuple[int, Codes]]:
    return ((first, codes[first : first + step]) for first in range(0, len(codes), step))


def _fixed_run(width: int, max_payload_bytes: int) -> int:
    """Return how many entries fit into a packet, a multiple of 8."""
    room = max_payload_bytes - _HEAD.size
    entries = min(room // width * 8, MAX_COORDINATES)
    if entries < 1:
        needed = _fixed_bytes(width, 8)
        raise CodecError(f"max_payload_bytes is {max_payload_bytes}; an EMQ packet takes {needed}")
    return entries


def _fixed_bytes(width: int, count: int) -> int:
    return _HEAD.size + field_bytes(width, count)


def _write_fixed(grid: Grid, codes: Codes) -> bytes:
    if grid.width == 8:
        return b"".join((_head(grid), codes.data))
    body = np.empty(field_bytes(grid.width, len(codes)), np.uint8)
    pack_fields(codes, grid.width, split_fields(body, grid.width, len(codes)), 0)
    return b"".join((_head(grid), body.data))


def _read_fixed(grid: Grid, body: U8, count: int) -> Codes:
    if len(body) != field_bytes(grid.width, count):
        raise CodecError(f"{len(body)} bytes cannot be {count} codes of {grid.width} bits")
    codes = unpack_fields(split_fields(body, grid.width, count), grid.width, 0, count)
    if np.count_nonzero(exponent_codes(grid, codes)) != np.count_nonzero(codes):
        raise CodecError("the payload holds a zero that has a sign or a mantissa")
    return codes


def _costs(grid: Grid) -> U8:
    """Return the bits that an entry takes in an adaptive code, by its exponent code."""
    codes = range(1, grid.exponents + 1)
    bits = (grid.exponent_bits + 1 + grid.mantissa_bits_of(code) for code in codes)
    return np.array([grid.exponent_bits, *bits], dtype=np.uint8)


def _adaptive_budget(grid: Grid, max_payload_bytes: int) -> int:
    """Return the bits that a packet has for its entries, all planes being cut to whole bytes."""
    sections = 1 + 8 * max_payload_bytes // (grid.exponent_bits * _SECTION)
    budget = 8 * (max_payload_bytes - _HEAD.size - sections * grid.width)
    if budget < grid.width:
        raise CodecError(
            f"max_payload_bytes is {max_payload_bytes}; an EMQ packet takes "
            f"{_HEAD.size + grid.width + (grid.width + 7) // 8}"
        )
    return budget


def _adaptive_ends(costs: U8, budget: int, *, width: int) -> list[int]:
    """Return where packets end if their entries are to take ``budget`` bits at most.

    Args:
        costs: bits of each entry.
        budget: bits of a packet.
        width: the most that an entry takes.

    """
    # Cut between short runs of entries, so that what is added up stays small.
    run = max(1, budget // width // 16)
    starts = np.arange(0, len(costs), run)
    spent = np.cumsum(np.add.reduceat(costs, starts, dtype=np.int64)) if len(costs) else starts
    ends, done = [], 0
    while done < len(spent):
        before = int(spent[done - 1]) if done else 0
        fit = int(np.searchsorted(spent, before + budget, side="right"))
        done = min(fit, done + MAX_COORDINATES // run)
        ends.append(min(done * run, len(costs)))
    return ends


def _write_adaptive(grid: Grid, codes: Codes) -> bytes:
    sections = (_write_section(grid, section) for _, section in _slices(codes, _SECTION))
    return _head(grid) + b"".join(sections)


def _write_section(grid: Grid, codes: Codes) -> bytes:
    exponents = np.empty((grid.exponent_bits, plane_bytes(len(codes))), np.uint8)
    pack_planes(exponent_codes(grid, codes), grid.exponent_bits, exponents, 0)
    nonzero = codes[np.flatnonzero(codes)]
    planes = [exponents.tobytes(), _pack(nonzero, grid.sign)]
    having = np.bitwise_and(nonzero, codes.dtype.type(grid.sign - 1))
    for bit, smallest in _mantissa_bits(grid):
        having = having[np.flatnonzero(having >= smallest)]
        planes.append(_pack(having, bit))
    return b"".join(planes)


def _read_adaptive(grid: Grid, body: U8, count: int) -> Codes:
    # The exponents of all entries are there at least: nothing is allocated for more entries.
    if 8 * len(body) < grid.exponent_bits * count:
        raise CodecError(f"{len(body)} bytes cannot be the exponents of {count} entries")
    codes = empty_codes(grid, count)
    planes = _Planes(body)
    for _, section in _slices(codes, _SECTION):
        _read_section(grid, planes, section)
    if planes.left:
        raise CodecError(f"{planes.left} payload bytes are left over")
    return codes


def _read_section(grid: Grid, planes: "_Planes", codes: Codes) -> None:
    scale = codes.dtype.type(1 << grid.mantissa_bits)
    np.multiply(planes.numbers(grid.exponent_bits, len(codes)), scale, out=codes)
    nonzero = np.flatnonzero(codes)
    having = codes[nonzero]
    signs = planes.bits(len(nonzero), grid.sign, codes.dtype)
    codes[nonzero] |= signs
    for bit, smallest in _mantissa_bits(grid):
        chosen = np.flatnonzero(having >= smallest)
        nonzero, having = nonzero[chosen], having[chosen]
        codes[nonzero] |= planes.bits(len(nonzero), bit, codes.dtype)


def _mantissa_bits(grid: Grid) -> Iterator[tuple[int, int]]:
    """Yield each mantissa bit, highest first, with the smallest code without sign that has it."""
    bits_of = [grid.mantissa_bits_of(code) for code in range(grid.exponents + 1)]
    for done in range(grid.mantissa_bits):
        smallest = bisect_right(bits_of, done)
        yield 1 << (grid.mantissa_bits - 1 - done), smallest << grid.mantissa_bits


def _pack(codes: Codes, bit: int) -> bytes:
    """Return whether each code has the bit, the first one in the lowest bit of the first byte."""
    chosen = np.bitwise_and(codes, codes.dtype.type(bit))
    return np.packbits(chosen != 0, bitorder="little").tobytes()


class _Planes:
    """Bit planes that are taken from the front, never more than there are."""

    def __init__(self, data: U8) -> None:
        self._data = data

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._data)

    def numbers(self, bits: int, count: int) -> Codes:
        """Take ``count`` numbers of so many bits, the highest plane first."""
        return unpack_planes(self._take(bits * plane_bytes(count)).reshape(bits, -1), 0, count)

    def bits(self, count: int, bit: int, dtype: np.dtype[Any]) -> Codes:
        """Take ``count`` numbers that are either ``bit`` or 0."""
        taken = np.unpackbits(self._take(plane_bytes(count)), count=count, bitorder="little")
        numbers: Codes = np.multiply(taken, dtype.type(bit), dtype=dtype)
        return numbers

    def _take(self, size: int) -> U8:
        if size > len(self._data):
            raise CodecError("the payload ends within its planes")
        taken, self._data = self._data[:size], self._data[size:]
        return taken
