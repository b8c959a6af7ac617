"""Another codec's payloads, compressed without loss.

Payload of one packet (little-endian)::

    u8   number of the inner payload's format
    u8   stage: 0 stored, 1 zlib (RFC 1950), 2 Zstandard (RFC 8878)
    u32  bytes of the inner payload
    the inner payload, compressed by that stage

A payload that does not get shorter is stored. zlib is part of Python; Zstandard is an extra, by far the
faster and mostly the shorter one. What codecs write are bit planes, or bytes that hold one or two codes
each, so a compressor that rearranges bits first brings nothing.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from types import ModuleType
from typing import ClassVar, Literal

import numpy as np

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, Codec, CodecError, Encoding, Segment
from fadelab_proto.packet import MAX_PAYLOAD_BYTES

StageName = Literal["zlib", "zstd"]

_HEAD = struct.Struct("<BBI")


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
        chunks = (_wrap(chunk, stage, compress(chunk.payload)) for chunk in inner.chunks)
        return Encoding(tuple(chunks), inner.nominal_bits)

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Decompress and decode; nothing longer than a packet's limit is ever allocated."""
        if len(payload) < _HEAD.size:
            raise CodecError(f"{len(payload)} payload bytes are too few for a lossless stage")
        number, stage, size = _HEAD.unpack_from(payload)
        if number == Lossless.NUMBER:
            raise CodecError("a lossless stage cannot hold another one")
        if size > MAX_PAYLOAD_BYTES:
            raise CodecError(f"a payload of {size} bytes exceeds the limit of {MAX_PAYLOAD_BYTES}")
        if stage not in _DECOMPRESS:
            raise CodecError(f"lossless stage {stage} is unknown")
        inner = _DECOMPRESS[Stage(stage)](bytes(memoryview(payload)[_HEAD.size :]), size)
        if len(inner) != size:
            raise CodecError(f"{len(inner)} bytes were compressed where {size} were declared")
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


def _wrap(chunk: Chunk, stage: Stage, compressed: bytes) -> Chunk:
    if len(compressed) >= len(chunk.payload):
        stage, compressed = Stage.STORED, chunk.payload
    head = _HEAD.pack(chunk.codec, stage, len(chunk.payload))
    return Chunk(chunk.first, chunk.count, head + compressed, Lossless.NUMBER, chunk.packet_class)


def _compressor(stage: Stage) -> Callable[[bytes], bytes]:
    """Return what compresses, loading it if need be."""
    if stage is Stage.ZLIB:
        return _zlib_compress
    compress: Callable[[bytes], bytes] = _load("zstandard").ZstdCompressor(level=1).compress
    return compress


def _zlib_compress(payload: bytes) -> bytes:
    # Runs and single bytes only: planes hold no longer repetitions that are worth the search.
    stream = zlib.compressobj(level=1, memLevel=9, strategy=zlib.Z_RLE)
    return stream.compress(payload) + stream.flush()


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
