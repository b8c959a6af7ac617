"""Some of a vector's entries, as a set of indices and their values in another format.

Payload of one packet (little-endian)::

    u32  entries m
    u32  bytes of the indices
    u8   format of the values, by its number in federation.proto's Codec
    the indices, relative to the packet's first coordinate (fadelab_proto.codecs.index_sets)
    the values of these m entries in index order, as a payload of that format

Entries are grouped by magnitude, largest first, so that an update that is cut off is the best
approximation that its bytes allow. Every packet decodes alone.
"""

import struct
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

# The registry of formats holds this one too; both are complete when anything is decoded.
from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import (
    F32,
    Chunk,
    Codec,
    CodecError,
    Encoding,
    Index,
    Part,
    Segment,
)
from fadelab_proto.codecs.dense_f32 import DenseF32
from fadelab_proto.codecs.index_sets import (
    decode_indices,
    encode_indices,
    encode_literally,
    expected_bits,
    literal_bits,
)
from fadelab_proto.codecs.selection import by_magnitude, largest

_HEAD = struct.Struct("<IIB")
_VALUES = frozenset({pb.CODEC_DENSE_F32, pb.CODEC_DENSE_F16, pb.CODEC_UNIFORM, pb.CODEC_EMQ})
"""Formats of consecutive entries, which hold no other format: a payload nests once."""
_MOST_ENTRIES = 1 << 20
"""Of one packet: what every codec of values writes as one, and what bounds a decoder's memory."""
_ANY_SIZE = 1 << 31
_FULL = 0.98
"""How full packets are aimed to be, since the next one's indices may take a little more."""


@dataclass(frozen=True, slots=True)
class TopK:
    """Keep the entries of largest magnitude.

    Args:
        k_keep: how many, at least 1; a larger value is less compression.
        values: how the kept values are written; a codec that gives one packet, whatever the size.
        indices: ``best`` for the smallest code, ``paper`` for ``ceil(log2 n)`` bits for each.

    """

    NUMBER: ClassVar[int] = pb.CODEC_SPARSE

    k_keep: int
    values: Codec = field(default_factory=DenseF32)
    indices: Literal["best", "paper"] = "best"

    def __post_init__(self) -> None:
        if self.k_keep < 1:
            raise CodecError(f"k_keep is {self.k_keep}; at least one entry must be kept")
        if self.indices not in ("best", "paper"):
            raise CodecError(f'indices is "{self.indices}"; allowed are "best" and "paper"')

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Return the packets of the ``min(k_keep, n)`` largest entries, largest first."""
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        n = len(vector)
        if n == 0:
            return Encoding((), 0)
        chosen = largest(vector, min(self.k_keep, n))
        if self._fits(len(chosen), n, max_payload_bytes):
            chunk, unforeseen_bits = self._packet(vector, chosen, generator)
            if len(chunk.payload) <= max_payload_bytes:
                return Encoding((chunk,), self.nominal_bits(n) + unforeseen_bits)
        return self._fill_packets(vector, chosen, max_payload_bytes, generator)

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Read the entries of one packet; sizes are checked before anything is allocated."""
        if len(payload) < _HEAD.size:
            raise CodecError(f"{len(payload)} payload bytes are too few for a sparse packet")
        entries, index_bytes, number = _HEAD.unpack_from(payload)
        value_bytes = len(payload) - _HEAD.size - index_bytes
        if number not in _VALUES:
            raise CodecError(f"the values of a sparse packet cannot be in format {number}")
        if entries > min(8 * value_bytes, _MOST_ENTRIES):
            raise CodecError(f"{len(payload)} payload bytes cannot hold {entries} entries")
        rest = memoryview(payload)[_HEAD.size :]
        indices = decode_indices(rest[:index_bytes], k=entries, n=count)
        inner = codecs.decode(number, rest[index_bytes:], first=0, count=entries)
        content = inner.content
        if inner.part is not Part.VALUES or inner.refines or len(content) != entries:
            raise CodecError(f"the payload does not hold the values of {entries} entries")
        if isinstance(content, np.ndarray) and not content.flags.aligned:
            # Adding at indices takes ten times as long if the values straddle words.
            content = content.copy()
        return Segment(first, content, indices, largest=inner.largest)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the payload bits if every set of indices is equally likely; it grows with k.

        With ``indices="paper"`` this is exact (if it is for the values). Otherwise real vectors
        take less, since their large entries lie together, and random ones take this within 1 %.
        """
        keep = min(self.k_keep, dimension)
        if keep == 0:
            return 0
        if self._fits(keep, dimension, max_payload_bytes):
            return self._packet_bits(keep, dimension)
        size = self._capacity(dimension, max_payload_bytes)
        full, rest = divmod(keep, size)
        bits = full * self._packet_bits(size, dimension)
        return bits + (self._packet_bits(rest, dimension) if rest else 0)

    def largest_k(
        self, dimension: int, bits: int, *, max_payload_bytes: int, packet_bits: int = 0
    ) -> int:
        """Return the most entries whose packets take no more than ``bits``, by estimate.

        The codec's own ``k_keep`` does not matter.

        Args:
            dimension: entries of the vector.
            bits: what may be sent.
            max_payload_bytes: upper bound of each payload.
            packet_bits: what each packet takes besides its payload, header and framing.

        """

        def fits(size: int) -> bool:
            return packet_bits + self._packet_bits(size, dimension) <= rest

        size = self._capacity(dimension, max_payload_bytes)
        full, rest = divmod(bits, packet_bits + self._packet_bits(size, dimension))
        return min(dimension, full * size + _last(fits, size))

    def nominal_bits(self, dimension: int) -> int:
        """Return ``ceil(log2 dimension)`` and the bits of a value, for each entry kept."""
        keep = min(self.k_keep, dimension)
        return keep * (dimension - 1).bit_length() + self.values.nominal_bits(keep)

    def _packet(
        self, vector: F32, indices: Index, generator: np.random.Generator
    ) -> tuple[Chunk, int]:
        """Return the packet of these entries, and their nominal bits that were not foreseen."""
        n = len(vector)
        encoding = self.values.encode(
            vector[indices], max_payload_bytes=_ANY_SIZE, generator=generator
        )
        numbers = [chunk.codec for chunk in encoding.chunks]
        if len(numbers) != 1 or numbers[0] not in _VALUES:
            raise CodecError(f"{self.values} cannot write the values of a sparse packet")
        values = encoding.chunks[0].payload
        paper = self.indices == "paper"
        coded = encode_literally(indices, n) if paper else encode_indices(indices, n)
        payload = sparse_payload(coded, values, entries=len(indices), number=numbers[0])
        unforeseen_bits = encoding.nominal_bits - self.values.nominal_bits(len(indices))
        return Chunk(0, n, payload, self.NUMBER), unforeseen_bits

    def _fill_packets(
        self, vector: F32, chosen: Index, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Cut the entries into packets, each as large as the one before lets expect."""
        n = len(vector)
        order = by_magnitude(vector[chosen])
        size = self._capacity(n, max_payload_bytes)
        nominal_bits = self.nominal_bits(n)
        chunks: list[Chunk] = []
        start = 0
        while start < len(order):
            group = chosen[_ascending(order[start : start + size], len(order))]
            chunk, unforeseen_bits = self._packet(vector, group, generator)
            if len(chunk.payload) <= max_payload_bytes:
                chunks.append(chunk)
                nominal_bits += unforeseen_bits
                start += len(group)
            elif len(group) == 1:
                raise _too_small(max_payload_bytes, n, len(chunk.payload))
            share = _FULL * max_payload_bytes / len(chunk.payload)
            size = max(1, min(_MOST_ENTRIES, int(share * len(group))))
        return Encoding(tuple(chunks), nominal_bits)

    def _capacity(self, n: int, max_payload_bytes: int) -> int:
        """Return how many of ``n`` entries a packet will hold."""
        size = _last(lambda size: self._fits(size, n, max_payload_bytes), min(n, _MOST_ENTRIES))
        if size == 0:
            raise _too_small(max_payload_bytes, n, self._packet_bits(1, n) // 8)
        return size

    def _fits(self, entries: int, n: int, max_payload_bytes: int) -> bool:
        if entries > _MOST_ENTRIES:
            return False
        return self._packet_bits(entries, n) <= 8 * max_payload_bytes

    def _packet_bits(self, entries: int, n: int) -> int:
        paper = self.indices == "paper"
        index_bits = literal_bits(entries, n) if paper else expected_bits(entries, n)
        value_bits = self.values.estimate_bits(entries, max_payload_bytes=_ANY_SIZE)
        return 8 * _HEAD.size + index_bits + value_bits


def sparse_payload(indices: bytes, values: bytes, *, entries: int, number: int) -> bytes:
    """Return the payload of coded ``indices`` and their values, coded in the format ``number``."""
    return b"".join((_HEAD.pack(entries, len(indices), number), indices, values))


def _ascending(numbers: Index, limit: int) -> Index:
    """Sort distinct numbers below ``limit``; where they are dense, by marking instead."""
    if 32 * len(numbers) < limit:
        return np.sort(numbers)
    marks = np.zeros(limit, dtype=np.bool_)
    marks[numbers] = True
    return np.flatnonzero(marks)


def _last(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest size up to ``most`` that fits, 0 if none does; larger ones fit less."""
    return bisect_left(range(1, most + 1), 1, key=lambda size: not fits(size))


def _too_small(max_payload_bytes: int, n: int, needed_bytes: int) -> CodecError:
    return CodecError(
        f"max_payload_bytes is {max_payload_bytes}; one of {n} entries takes {needed_bytes}"
    )
