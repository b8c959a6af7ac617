"""Another codec's payloads, compressed without loss.

Payload of one packet (little-endian)::

    u8   number of the inner payload's format
    u8   stage: 0 stored, 1 zlib (RFC 1950), 2 Zstandard (RFC 8878)
    u8   1 if the codes of the inner payload are rearranged, otherwise 0
    u32  bytes of the inner payload
    only if they are not: the inner payload, compressed by that stage
    only if they are:
    u32  bytes of the next field
    the inner payload up to its codes, then the sets of these (:mod:`fadelab_proto.codecs.code_planes`)
    u32  bytes of the bitmaps
    the bitmaps, compressed by that stage

Codes of uniform grids and of magnitudes are rearranged: the higher of their bits are hardly ever set,
which a compressor of bytes does not see. A payload that does not get shorter is stored. zlib is part
of Python; Zstandard is an extra, by far the faster and mostly the shorter one.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import ClassVar, Literal

import numpy as np

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, Codec, CodecError, Encoding, Segment
from fadelab_proto.codecs.bit_planes import (
    MAX_BITS,
    field_bytes,
    pack_fields,
    plane_bytes,
    split_fields,
    unpack_fields,
)
from fadelab_proto.codecs.code_planes import arrange, restore
from fadelab_proto.packet import MAX_PAYLOAD_BYTES

StageName = Literal["zlib", "zstd"]

_HEAD = struct.Struct("<BBBI")
_SIZE = struct.Struct("<I")
_OWN_BLOCK = 1 << 12
"""Bitmaps of so many bytes get statistics of their own, which take some bytes too."""
Compress = Callable[[Sequence[bytes]], bytes]
"""Makes one stream of parts that differ in their statistics."""


class Stage(IntEnum):
    """The second byte of a payload."""

    STORED = 0
    ZLIB = 1
    ZSTD = 2


@dataclass(frozen=True, slots=True)
class Lossless:
    """Compress what ``inner`` writes.

    Args:
        inner: any codec but this one.
        stage: which compressor.

    Raises:
        CodecError: if the compressor is unknown or not installed, or ``inner`` compresses already.

    """

    NUMBER: ClassVar[int] = pb.CODEC_LOSSLESS

    inner: Codec
    stage: StageName = "zlib"

    def __post_init__(self) -> None:
        if isinstance(self.inner, Lossless):
            raise CodecError("a lossless stage cannot be applied to another one")
        if self.stage not in ("zlib", "zstd"):
            raise CodecError(f'stage is "{self.stage}"; allowed are "zlib" and "zstd"')
        _compressor(Stage[self.stage.upper()])

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Return the packets of the inner codec, each compressed."""
        inner = self.inner.encode(
            vector, max_payload_bytes=self._inner_limit(max_payload_bytes), generator=generator
        )
        stage = Stage[self.stage.upper()]
        compress = _compressor(stage)
        chunks = (_wrap(chunk, stage, compress) for chunk in inner.chunks)
        return Encoding(tuple(chunks), inner.nominal_bits)

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Decompress and decode; nothing longer than a packet's limit is ever allocated."""
        if len(payload) < _HEAD.size:
            raise CodecError(f"{len(payload)} payload bytes are too few for a lossless stage")
        number, stage, rearranged, size = _HEAD.unpack_from(payload)
        if number == Lossless.NUMBER:
            raise CodecError("a lossless stage cannot hold another one")
        if size > MAX_PAYLOAD_BYTES:
            raise CodecError(f"a payload of {size} bytes exceeds the limit of {MAX_PAYLOAD_BYTES}")
        body = memoryview(payload)[_HEAD.size :]
        if rearranged > 1:
            raise CodecError(f"arrangement {rearranged} of a lossless stage is unknown")
        inner = (
            _restored(body, number, stage, size=size, count=count)
            if rearranged
            else _decompressed(body, stage, size)
        )
        return codecs.decode(number, inner, first=first, count=count)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return what is needed if nothing gets shorter, as if all packets but one were full."""
        limit = self._inner_limit(max_payload_bytes)
        bits = self.inner.estimate_bits(dimension, max_payload_bytes=limit)
        return bits + -(-bits // (8 * limit)) * 8 * _HEAD.size

    def nominal_bits(self, dimension: int) -> int:
        """Return those of the inner codec."""
        return self.inner.nominal_bits(dimension)

    @staticmethod
    def _inner_limit(max_payload_bytes: int) -> int:
        if max_payload_bytes <= _HEAD.size:
            raise CodecError(
                f"max_payload_bytes is {max_payload_bytes}; a lossless stage alone takes "
                f"{_HEAD.size}"
            )
        return min(max_payload_bytes - _HEAD.size, MAX_PAYLOAD_BYTES)


def _wrap(chunk: Chunk, stage: Stage, compress: Compress) -> Chunk:
    bits = _rearrangeable(chunk.codec, chunk.payload)
    body = compress([chunk.payload]) if bits is None else _arranged(chunk, bits, compress)
    if len(body) >= len(chunk.payload):
        stage, bits, body = Stage.STORED, None, chunk.payload
    head = _HEAD.pack(chunk.codec, stage, bits is not None, len(chunk.payload))
    return Chunk(chunk.first, chunk.count, head + body, Lossless.NUMBER, chunk.packet_class)


def _rearrangeable(number: int, payload: bytes | memoryview) -> int | None:
    """Return the bits of the codes that end a payload of that format, None if none do."""
    if number == pb.CODEC_MODULUS and payload:
        bits = payload[0]
    elif number == pb.CODEC_UNIFORM and len(payload) > 2:
        bits, highest, lowest = payload[:3]
        if (highest, lowest) != (bits - 1, 0):
            return None
    else:
        return None
    return bits if 1 <= bits <= MAX_BITS else None


def _middle(number: int, bits: int) -> int:
    """Return the code of entries near 0."""
    return 0 if number == pb.CODEC_MODULUS else (1 << bits - 1) - 1


def _arranged(chunk: Chunk, bits: int, compress: Compress) -> bytes:
    begin = len(chunk.payload) - field_bytes(bits, chunk.count)
    fields = np.frombuffer(chunk.payload, dtype=np.uint8, offset=begin)
    codes = unpack_fields(split_fields(fields, bits, chunk.count), bits, 0, chunk.count)
    sets, bitmaps = arrange(codes, bits, middle=_middle(chunk.codec, bits))
    bitmap_bytes = sum(len(bitmap) for bitmap in bitmaps)
    parts = (_SIZE.pack(begin + len(sets)), chunk.payload[:begin], sets, _SIZE.pack(bitmap_bytes))
    return b"".join((*parts, compress(bitmaps)))


def _restored(body: memoryview, number: int, stage: int, *, size: int, count: int) -> bytes:
    """Return the inner payload whose codes were rearranged."""
    plain, rest = _sized(body)
    bits = _rearrangeable(number, plain)
    if bits is None:
        raise CodecError(f"payloads of format {number} hold no codes to be rearranged")
    begin = size - field_bytes(bits, count)
    if not 0 < begin <= len(plain):
        raise CodecError(f"{count} codes of {bits} bits do not end a payload of {size} bytes")
    if len(rest) < _SIZE.size:
        raise CodecError("the payload ends before its bitmaps")
    (bitmap_bytes,) = _SIZE.unpack_from(rest)
    if bitmap_bytes > (bits + 1) * plane_bytes(count):
        raise CodecError(f"{count} codes of {bits} bits have no bitmaps of {bitmap_bytes} bytes")
    bitmaps = _decompressed(rest[_SIZE.size :], stage, bitmap_bytes)
    codes = restore(
        np.frombuffer(plain[begin:], dtype=np.uint8),
        np.frombuffer(bitmaps, dtype=np.uint8),
        count,
        bits,
        middle=_middle(number, bits),
    )
    fields = np.empty(size - begin, dtype=np.uint8)
    pack_fields(codes, bits, split_fields(fields, bits, count), 0)
    return b"".join((plain[:begin], fields.data))


def _sized(data: memoryview) -> tuple[memoryview, memoryview]:
    """Return what follows a size, as much as it says, and the rest."""
    size = _SIZE.unpack_from(data)[0] if len(data) >= _SIZE.size else 0
    end = _SIZE.size + size
    if not _SIZE.size < end <= len(data):
        raise CodecError("the payload ends before its codes")
    return data[_SIZE.size : end], data[end:]


def _decompressed(data: memoryview, stage: int, size: int) -> bytes:
    if stage not in _DECOMPRESS:
        raise CodecError(f"lossless stage {stage} is unknown")
    plain = _DECOMPRESS[Stage(stage)](bytes(data), size)
    if len(plain) != size:
        raise CodecError(f"{len(plain)} bytes were compressed where {size} were declared")
    return plain


def _compressor(stage: Stage) -> Compress:
    """Return what compresses, loading it if need be."""
    if stage is Stage.ZLIB:
        return _zlib_compress
    return partial(_zstd_compress, _load("zstandard"))


def _zlib_compress(parts: Sequence[bytes]) -> bytes:
    # Runs and single bytes only: planes hold no longer repetitions that are worth the search.
    stream = zlib.compressobj(level=1, memLevel=9, strategy=zlib.Z_RLE)
    return b"".join((*map(stream.compress, parts), stream.flush()))


def _zstd_compress(zstandard: ModuleType, parts: Sequence[bytes]) -> bytes:
    stream = zstandard.ZstdCompressor(level=1).compressobj(size=sum(map(len, parts)))
    coded = []
    for part in parts:
        coded.append(stream.compress(part))
        if len(part) >= _OWN_BLOCK:
            coded.append(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join((*coded, stream.flush()))


def _load(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise CodecError(
            f"the package {name} is not installed; the lossless stage needs it "
            "(pip install 'fadelab[compression]')"
        ) from None


def _stored(data: bytes, size: int) -> bytes:  # noqa: ARG001
    return data


def _zlib_decompress(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        # One byte more, so that the end of the stream is read too.
        payload = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise CodecError(f"the payload is not a zlib stream: {error}") from None
    if not stream.eof or stream.unused_data:
        raise CodecError(f"the payload is not one zlib stream of {size} bytes")
    return payload


def _zstd_decompress(data: bytes, size: int) -> bytes:
    zstandard = _load("zstandard")
    try:
        # The library allocates what the frame declares, whatever its caller allows.
        if zstandard.frame_content_size(data) != size:
            raise CodecError(f"the payload is not a Zstandard frame of {size} bytes")
        payload: bytes = zstandard.ZstdDecompressor(max_window_size=1 << 21).decompress(
            data, max_output_size=size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise CodecError(f"the payload is not a Zstandard frame: {error}") from None
    return payload


_DECOMPRESS: dict[Stage, Callable[[bytes, int], bytes]] = {
    Stage.STORED: _stored,
    Stage.ZLIB: _zlib_decompress,
    Stage.ZSTD: _zstd_decompress,
}
