"""The k entries of largest magnitude, as indices and float32 values.

Payload of one packet (little-endian): ``u32`` number of entries m, then m indices relative to the
packet's first coordinate (:mod:`fadelab_proto.codecs.index_sets`), then m float32 values in index
order. Entries are grouped by magnitude, largest first, so that an update that is cut off is the
best approximation that its bytes allow.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Index, Segment, check_finite
from fadelab_proto.codecs.index_sets import coded_bytes, decode_indices, encode_indices

_COUNT = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class TopK:
    """Keep ``k_keep`` entries, at least 1; a larger value is less compression."""

    NUMBER: ClassVar[int] = pb.CODEC_TOPK

    k_keep: int

    def __post_init__(self) -> None:
        if self.k_keep < 1:
            raise CodecError(f"k_keep is {self.k_keep}; at least one entry must be kept")

    def encode(self, vector: F32, *, max_payload_bytes: int) -> list[Chunk]:
        """Return the packets of the ``min(k_keep, n)`` largest entries, largest first."""
        check_finite(vector)
        n = len(vector)
        if n == 0:
            return []
        keep = min(self.k_keep, n)
        chosen = largest(vector, keep)
        by_magnitude = chosen[np.argsort(-np.abs(vector[chosen]), kind="stable")]
        chunks = []
        start = 0
        for size in _group_sizes(keep, n, max_payload_bytes):
            indices = np.sort(by_magnitude[start : start + size])
            values = vector[indices].astype("<f4")
            payload = _COUNT.pack(size) + encode_indices(indices, n) + values.tobytes()
            chunks.append(Chunk(0, n, payload))
            start += size
        return chunks

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Read the entries of one packet; sizes are checked before anything is allocated."""
        if len(payload) < _COUNT.size:
            raise CodecError(f"{len(payload)} payload bytes are too few for a top-k packet")
        (kept,) = _COUNT.unpack_from(payload)
        if not 1 <= kept <= count:
            raise CodecError(f"{kept} entries cannot be kept out of {count}")
        index_bytes = coded_bytes(kept, count)
        if len(payload) != _COUNT.size + index_bytes + 4 * kept:
            raise CodecError(f"{len(payload)} payload bytes cannot hold {kept} of {count} entries")
        view = memoryview(payload)
        values_at = _COUNT.size + index_bytes
        indices = decode_indices(view[_COUNT.size : values_at], k=kept, n=count)
        values = np.frombuffer(view[values_at:], dtype="<f4")
        if not np.isfinite(values).all():
            raise CodecError("the payload holds a value that is not finite")
        return Segment(first, values, indices)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits, which depend on the sizes alone."""
        keep = min(self.k_keep, dimension)
        sizes = _group_sizes(keep, dimension, max_payload_bytes)
        return 8 * sum(_payload_bytes(size, dimension) for size in sizes)


def largest(vector: F32, keep: int) -> Index:
    """Return the indices of the ``keep`` largest magnitudes, in no particular order."""
    if keep >= len(vector):
        return np.arange(len(vector), dtype=np.int64)
    cut = len(vector) - keep
    return np.argpartition(np.abs(vector), cut)[cut:].astype(np.int64, copy=False)


def _group_sizes(keep: int, n: int, max_payload_bytes: int) -> list[int]:
    """Split ``keep`` entries into packets that are as full as the limit allows."""
    if keep == 0:
        return []
    if _payload_bytes(1, n) > max_payload_bytes:
        raise CodecError(
            f"max_payload_bytes is {max_payload_bytes}; one of {n} entries takes "
            f"{_payload_bytes(1, n)}"
        )
    fits, too_many = 1, keep + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _payload_bytes(middle, n) <= max_payload_bytes:
            fits = middle
        else:
            too_many = middle
    full, rest = divmod(keep, fits)
    return [fits] * full + ([rest] if rest else [])


def _payload_bytes(entries: int, n: int) -> int:
    return _COUNT.size + coded_bytes(entries, n) + 4 * entries
