"""Codecs turn vectors into packet payloads, payload formats turn these back; one file each.

``FORMATS`` is checked against the enum of federation.proto when this package is imported: a format
without a number, or a number without a format, cannot go unnoticed.
"""

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import (
    Chunk,
    Codec,
    CodecError,
    Encoding,
    Part,
    PayloadFormat,
    Segment,
)
from fadelab_proto.codecs.dense_f16 import DenseF16
from fadelab_proto.codecs.dense_f32 import DenseF32
from fadelab_proto.codecs.emq import Emq, EmqAdaptive, EmqFixed
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.kernels import AccelerationError, accelerate
from fadelab_proto.codecs.laq import Aquila, Laq
from fadelab_proto.codecs.lossless import Lossless
from fadelab_proto.codecs.mixed_resolution import MixedResolution
from fadelab_proto.codecs.qsgd import Qsgd
from fadelab_proto.codecs.sign_modulus import Moduli, SignModulus, SignOnly, Signs
from fadelab_proto.codecs.sparse import TopK
from fadelab_proto.codecs.top_q import TopQ
from fadelab_proto.codecs.uniform import Uniform

__all__ = [
    "FORMATS",
    "AccelerationError",
    "Aquila",
    "Chunk",
    "Codec",
    "CodecError",
    "DenseF16",
    "DenseF32",
    "EmqAdaptive",
    "EmqFixed",
    "Encoding",
    "Groups",
    "Laq",
    "Lossless",
    "MixedResolution",
    "Part",
    "PayloadFormat",
    "Qsgd",
    "Segment",
    "SignModulus",
    "SignOnly",
    "TopK",
    "TopQ",
    "Uniform",
    "accelerate",
    "decode",
]

FORMATS: dict[int, type[PayloadFormat]] = {
    pb.CODEC_DENSE_F32: DenseF32,
    pb.CODEC_DENSE_F16: DenseF16,
    pb.CODEC_SPARSE: TopK,
    pb.CODEC_UNIFORM: Uniform,
    pb.CODEC_SIGN: Signs,
    pb.CODEC_MODULUS: Moduli,
    pb.CODEC_EMQ: Emq,
    pb.CODEC_MIXED: MixedResolution,
    pb.CODEC_LOSSLESS: Lossless,
}

if set(FORMATS) != set(pb.Codec.values()) - {pb.CODEC_UNSPECIFIED}:
    raise ImportError("fadelab_proto.codecs.FORMATS does not match the Codec enum")


def decode(codec: int, payload: bytes | memoryview, *, first: int, count: int) -> Segment:
    """Decode a payload of the format of that number.

    Args:
        codec: number in federation.proto's ``Codec``.
        payload: the packet's payload.
        first: first coordinate that the packet covers.
        count: number of coordinates that it covers.

    Raises:
        CodecError: if the format is unknown or the payload is not of that format.

    """
    if codec not in FORMATS:
        raise CodecError(f"codec {codec} is unknown")
    return FORMATS[codec].decode(payload, first=first, count=count)
