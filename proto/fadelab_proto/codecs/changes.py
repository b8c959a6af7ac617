"""What differs between two vectors, exactly: the entries that changed, with their new values.

A packet is a sparse one (:mod:`fadelab_proto.codecs.sparse`) with float32 values that *replace* the
entries it names (:meth:`Segment.copy_to`). Packets come in coordinate order, and each counts its
indices from its own first coordinate, so that wherever changes lie together their indices are short.
"""

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Index
from fadelab_proto.codecs.index_sets import encode_indices
from fadelab_proto.codecs.sparse import sparse_payload

_FIRST_TRY_BYTES = 5
"""Of an entry and its index, where nothing is known yet."""
_FULL = 0.98
"""How full packets are aimed to be, since the next one's indices may take a little more."""
_MOST_ENTRIES = 1 << 20
"""Of one packet, as decoders allow."""


def changed_entries(
    base: F32, target: F32, *, max_payload_bytes: int, most_bytes: int | None = None
) -> tuple[Chunk, ...] | None:
    """Return packets that turn ``base`` into ``target``, bit for bit; none if they are equal.

    Args:
        base: finite values, shape ``(n,)``.
        target: finite values, shape ``(n,)``.
        max_payload_bytes: upper bound of each payload.
        most_bytes: return None, before anything is coded, if the new values alone take more.

    Raises:
        CodecError: if the shapes differ, or not even one entry fits into a payload.

    """
    if base.shape != target.shape:
        raise CodecError(f"the vectors have shapes {base.shape} and {target.shape}")
    target = np.ascontiguousarray(target, dtype="<f4")
    # Bits, not numbers: 0 and -0 are equal numbers of different bits.
    bits = np.ascontiguousarray(base, dtype="<f4").view(np.uint32)
    changed = np.flatnonzero(bits != target.view(np.uint32)).astype(np.int64, copy=False)
    if most_bytes is not None and 4 * len(changed) > most_bytes:
        return None
    chunks: list[Chunk] = []
    start, size = 0, max(1, max_payload_bytes // _FIRST_TRY_BYTES)
    while start < len(changed):
        size = min(size, _MOST_ENTRIES)
        group = changed[start : start + size]
        chunk = _packet(target, group)
        if len(chunk.payload) <= max_payload_bytes:
            chunks.append(chunk)
            start += len(group)
        elif len(group) == 1:
            raise CodecError(
                f"max_payload_bytes is {max_payload_bytes}; one entry takes {len(chunk.payload)}"
            )
        share = _FULL * max_payload_bytes / len(chunk.payload)
        size = max(1, int(share * len(group)))
    return tuple(chunks)


def _packet(vector: F32, indices: Index) -> Chunk:
    first = int(indices[0])
    count = int(indices[-1]) + 1 - first
    payload = sparse_payload(
        encode_indices(indices - first, count),
        vector[indices].tobytes(),
        entries=len(indices),
        number=pb.CODEC_DENSE_F32,
    )
    return Chunk(first, count, payload, pb.CODEC_SPARSE)
