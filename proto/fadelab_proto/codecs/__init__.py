"""Codecs turn vectors into packet payloads and back; one file each.

``CODECS`` is checked against the enum of federation.proto when this package is imported: a codec
without a number, or a number without a codec, cannot go unnoticed.
"""

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import Chunk, Codec, CodecError, Segment
from fadelab_proto.codecs.dense_f32 import DenseF32
from fadelab_proto.codecs.topk import TopK

__all__ = ["CODECS", "Chunk", "Codec", "CodecError", "DenseF32", "Segment", "TopK", "decode"]

CODECS: dict[int, type[Codec]] = {
    pb.CODEC_DENSE_F32: DenseF32,
    pb.CODEC_TOPK: TopK,
}

if set(CODECS) != set(pb.Codec.values()) - {pb.CODEC_UNSPECIFIED}:
    raise ImportError("fadelab_proto.codecs.CODECS does not match the Codec enum")


def decode(codec: int, payload: bytes | memoryview, *, first: int, count: int) -> Segment:
    """Decode a payload with the codec of that number.

    Args:
        codec: number in federation.proto's ``Codec``.
        payload: the packet's payload.
        first: first coordinate that the packet covers.
        count: number of coordinates that it covers.

    Raises:
        CodecError: if the codec is unknown or the payload is not one of its making.

    """
    if codec not in CODECS:
        raise CodecError(f"codec {codec} is unknown")
    return CODECS[codec].decode(payload, first=first, count=count)
