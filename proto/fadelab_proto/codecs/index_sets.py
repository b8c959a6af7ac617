"""Compact codes for a sorted set of k indices out of n whose size follows from k and n alone.

Two codes, and the smaller one is used: a bitmap of n bits, and Elias-Fano (P. Elias 1974,
R. Fano 1971), which stores the low ``l = floor(log2(n / k))`` bits of each index as they are and
the high parts in unary: at most 2 + log2(n / k) bits for each index, within 6 % of the entropy of
a uniformly random set at the densities of sparsified gradients. Because the size does not depend
on which indices are chosen, a device can tell exactly how many entries fit into a contact window.
"""

import numpy as np

from fadelab_proto.codecs.base import CodecError, Index


def coded_bytes(k: int, n: int) -> int:
    """Return the bytes that ``encode_indices`` needs for any ``k`` indices below ``n``."""
    return min(_bitmap_bytes(n), _elias_fano_bytes(k, n))


def encode_indices(indices: Index, n: int) -> bytes:
    """Encode strictly increasing ``indices`` (shape ``(k,)``, k >= 1), all in ``0..n-1``."""
    k = len(indices)
    if _bitmap_bytes(n) <= _elias_fano_bytes(k, n):
        bitmap = np.zeros(n, dtype=np.bool_)
        bitmap[indices] = True
        return np.packbits(bitmap, bitorder="little").tobytes()
    low_bits = _low_bits(k, n)
    unary = np.zeros(_upper_bits(k, n, low_bits), dtype=np.bool_)
    unary[(indices >> low_bits) + np.arange(k)] = True
    low = (indices[:, None] >> np.arange(low_bits)) & 1
    return (
        np.packbits(unary, bitorder="little").tobytes()
        + np.packbits(low.astype(np.bool_), bitorder="little").tobytes()
    )


def decode_indices(data: bytes | memoryview, *, k: int, n: int) -> Index:
    """Decode ``k`` indices below ``n``; the inverse of :func:`encode_indices`.

    Raises:
        CodecError: if ``data`` has another size than the code of k and n, or does not hold k
            strictly increasing indices below n.

    """
    if not 1 <= k <= n:
        raise CodecError(f"{k} indices cannot be chosen out of {n}")
    if len(data) != coded_bytes(k, n):
        raise CodecError(f"{len(data)} bytes cannot code {k} indices out of {n}")
    raw = np.frombuffer(data, dtype=np.uint8)
    if _bitmap_bytes(n) <= _elias_fano_bytes(k, n):
        indices = np.flatnonzero(np.unpackbits(raw, bitorder="little", count=n))
    else:
        indices = _decode_elias_fano(raw, k, n)
    if len(indices) != k or indices[-1] >= n or (np.diff(indices) <= 0).any():
        raise CodecError(f"the payload does not hold {k} increasing indices below {n}")
    return indices.astype(np.int64, copy=False)


def _decode_elias_fano(raw: np.ndarray[tuple[int], np.dtype[np.uint8]], k: int, n: int) -> Index:
    low_bits = _low_bits(k, n)
    upper_bits = _upper_bits(k, n, low_bits)
    upper_bytes = (upper_bits + 7) // 8
    ones = np.flatnonzero(np.unpackbits(raw[:upper_bytes], bitorder="little", count=upper_bits))
    if len(ones) != k:
        raise CodecError(f"the payload holds {len(ones)} indices where {k} were declared")
    bits = np.unpackbits(raw[upper_bytes:], bitorder="little", count=k * low_bits)
    weights = np.left_shift(1, np.arange(low_bits), dtype=np.int64)
    low = bits.reshape(k, low_bits).astype(np.int64) @ weights
    indices: Index = ((ones - np.arange(k)) << low_bits) | low
    return indices


def _bitmap_bytes(n: int) -> int:
    return (n + 7) // 8


def _elias_fano_bytes(k: int, n: int) -> int:
    low_bits = _low_bits(k, n)
    return (_upper_bits(k, n, low_bits) + 7) // 8 + (k * low_bits + 7) // 8


def _low_bits(k: int, n: int) -> int:
    return max(0, (n // k).bit_length() - 1)


def _upper_bits(k: int, n: int, low_bits: int) -> int:
    return k + ((n - 1) >> low_bits)
