"""Codes as planes around a middle one: what is written is read, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto.codecs.base import CodecError
from fadelab_proto.codecs.bit_planes import Codes, code_type
from fadelab_proto.codecs.code_planes import arrange, restore


def restored(sets: bytes, bitmaps: bytes, count: int, bits: int, middle: int) -> Codes:
    return restore(
        np.frombuffer(sets, np.uint8), np.frombuffer(bitmaps, np.uint8), count, bits, middle=middle
    )


@given(
    bits=st.integers(1, 16),
    count=st.integers(0, 3000),
    spread=st.sampled_from([0.0, 0.1, 1.0, 30.0, 1e9]),
    moduli=st.booleans(),
)
def test_what_is_written_is_read(bits: int, count: int, spread: float, moduli: bool) -> None:
    middle = 0 if moduli else 2 ** (bits - 1) - 1
    near = np.rint(middle + spread * np.random.default_rng(count).standard_normal(count))
    codes = np.clip(near, 0, 2**bits - 1).astype(code_type(bits))
    sets, bitmaps = arrange(codes, bits, middle=middle)
    again = restored(sets, b"".join(bitmaps), count, bits, middle)
    assert again.dtype == codes.dtype
    assert np.array_equal(again, codes)
    assert sum(map(len, bitmaps)) <= (bits + 1) * ((count + 7) // 8)


def test_codes_far_from_the_middle_are_written_too() -> None:
    codes = np.arange(256, dtype=np.uint8)
    for middle in (0, 127, 255):
        sets, bitmaps = arrange(codes, 8, middle=middle)
        assert np.array_equal(restored(sets, b"".join(bitmaps), 256, 8, middle), codes)


@given(
    sets=st.binary(max_size=60),
    bitmaps=st.binary(max_size=60),
    count=st.integers(1, 300),
    bits=st.integers(1, 16),
)
def test_any_bytes_are_codes_or_refused(sets: bytes, bitmaps: bytes, count: int, bits: int) -> None:
    for middle in (0, 2 ** (bits - 1) - 1):
        try:
            codes = restored(sets, bitmaps, count, bits, middle)
        except CodecError:
            continue
        assert len(codes) == count
        assert codes.max() < 2**bits


def test_bytes_that_are_missing_or_too_many_are_refused() -> None:
    codes = np.random.default_rng(1).integers(0, 16, 100).astype(np.uint8)
    sets, parts = arrange(codes, 4, middle=7)
    bitmaps = b"".join(parts)
    for wrong in ((sets[:-1], bitmaps), (sets, bitmaps[:-1]), (sets + b"x", bitmaps)):
        with pytest.raises(CodecError):
            restored(*wrong, 100, 4, 7)
    with pytest.raises(CodecError, match="more bytes"):
        restored(sets, bitmaps + b"x", 100, 4, 7)
    with pytest.raises(CodecError, match="names"):
        restored(bytes([101, 0, 0, 0]) + sets[4:], bitmaps, 100, 4, 7)
