"""Packets of every codec, and damage to them that a checksum may or may not reveal."""

import random
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from tests.proto.codec_cases import CASES, MIB, Case, encode

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import (
    Codec,
    DenseF16,
    EmqAdaptive,
    Groups,
    Lossless,
    MixedResolution,
    SignModulus,
    TopK,
    Uniform,
)
from fadelab_proto.codecs.base import F32
from fadelab_proto.packet import Packet

# Numbers of each size at which arithmetic turns, 1, 2, 4 and 8 bytes long.
_AWKWARD = [
    *(bytes([byte]) for byte in (0, 1, 2, 7, 8, 16, 17, 0x7F, 0x80, 0xFE, 0xFF)),
    *(struct.pack("<H", number) for number in (0, 1, 255, 256, 0x7FFF, 0x8000, 0xFFFF)),
    *(struct.pack("<I", n) for n in (0, 1, 7, 8, 255, 2**20, 2**20 + 1, 2**31, 2**32 - 1)),
    *(struct.pack("<f", x) for x in (float("nan"), float("inf"), -float("inf"), -0.0, -1.0)),
    *(struct.pack("<f", x) for x in (3.4e38, -3.4e38, 1e-45, 1e-39)),
    bytes(8),
    b"\xff" * 8,
]
_COUNTS = (0, 1, 2, 7, 8, 9, 300, 2**20, 2**20 + 1, 2**23, 2**31, 2**32 - 1)
_STAGE = struct.Struct("<BBBI")


def example_vectors() -> Iterator[F32]:
    """Yield a few short vectors of different kinds."""
    draw = np.random.default_rng(1)
    yield draw.standard_normal(300).astype(np.float32)
    yield np.zeros(70, dtype=np.float32)
    yield np.where(draw.random(2500) < 0.02, draw.standard_normal(2500), 0).astype(np.float32)
    yield (draw.standard_normal(90) * 1e-42).astype(np.float32)
    yield np.ones(1, dtype=np.float32)


def example_packets(case: Case) -> list[Packet]:
    """Return whole updates of one codec, long packets and short ones."""
    vectors = list(example_vectors())
    if not isinstance(case.codec, DenseF16):
        vectors.append(np.array([3e38 if case.largest > 3e38 else 1e35, -1e30, 0, 1], np.float32))
    return [
        packet
        for vector in vectors
        for limit in (4000, 200)
        for packet in _packets(case.codec, vector, limit)
    ]


def long_packets() -> list[Packet]:
    """Return packets of more entries than decoders work on at a time."""
    draw = np.random.default_rng(2)
    vector = draw.standard_cauchy(150_000).astype(np.float32)
    codecs = (
        Uniform(3, Groups(block=4096)),
        SignModulus(2),
        EmqAdaptive(5, 6),
        MixedResolution(0.01, 4),
        TopK(30_000, Uniform(4)),
        Lossless(Uniform(6)),
    )
    return [packet for codec in codecs for packet in _packets(codec, vector, MIB)]


def all_packets() -> list[Packet]:
    """Return packets of every codec."""
    return [packet for case in CASES.values() for packet in example_packets(case)]


def _packets(codec: Codec, vector: F32, limit: int) -> list[Packet]:
    chunks = encode(codec, vector, limit).chunks
    return [
        Packet(
            packet_class=chunk.packet_class,
            codec=chunk.codec,
            task_index=0,
            device=0,
            run_id=1,
            update_id=1,
            base_version=0,
            first=chunk.first,
            count=chunk.count,
            sequence=sequence,
            packets=len(chunks),
            payload=chunk.payload,
        )
        for sequence, chunk in enumerate(chunks[:6])
    ]


@dataclass(frozen=True)
class Mutator:
    """Damages packets; the same seed gives the same damage.

    Args:
        draw: where chance comes from.
        others: packets whose parts are spliced in.

    """

    draw: random.Random
    others: list[Packet]

    def damaged(self, packet: Packet) -> bytes:
        """Return a packet with one to three injuries; most have a checksum that fits again."""
        if self.draw.random() < 0.1:
            return self.injured(packet.encode())
        for _ in range(self.draw.choice((1, 1, 1, 2, 3))):
            injure: Callable[[Packet], Packet] = self.draw.choice(
                (
                    self._payload,
                    self._payload,
                    self._payload,
                    self._fields,
                    self._splice,
                    self._wrap,
                )
            )
            packet = injure(packet)
        return packet.encode()

    def injured(self, data: bytes) -> bytes:
        """Return bytes with bits flipped, numbers overwritten, ends cut off or added."""
        result = bytearray(data)
        kind = self.draw.randrange(5)
        if kind == 0 or not result:
            result += self.draw.randbytes(self.draw.randint(1, 9))
        elif kind == 1:
            for _ in range(self.draw.randint(1, 8)):
                result[self.draw.randrange(len(result))] ^= 1 << self.draw.randrange(8)
        elif kind == 2:
            # Near the beginning, where the sizes are.
            at = min(self.draw.randrange(len(result)), self.draw.randrange(len(result)))
            number = self.draw.choice(_AWKWARD)
            result[at : at + len(number)] = number
        elif kind == 3:
            del result[self.draw.randrange(len(result)) :]
        else:
            at = self.draw.randrange(len(result))
            result[at : at + self.draw.randint(0, 4)] = self.draw.randbytes(self.draw.randint(0, 4))
        return bytes(result)

    def _payload(self, packet: Packet) -> Packet:
        return replace(packet, payload=self.injured(bytes(packet.payload)))

    def _fields(self, packet: Packet) -> Packet:
        """Let the header say something else about the payload."""
        near = min(2**32 - 1, max(0, packet.count + self.draw.randint(-9, 9)))
        sequence = self.draw.choice((packet.sequence, 0, 5, 0xFFFF))
        return replace(
            packet,
            packet_class=self.draw.choice((packet.packet_class, *pb.PacketClass.values())),
            codec=self.draw.choice((packet.codec, packet.codec, *pb.Codec.values(), 99)),
            first=self.draw.choice((packet.first, 0, 7, 2**32 - 1)),
            count=self.draw.choice((packet.count, near, near, *_COUNTS)),
            sequence=sequence,
            packets=self.draw.choice((packet.packets, 0, 1, 0xFFFF)),
        )

    def _splice(self, packet: Packet) -> Packet:
        """Let the payload go on as another one."""
        other = bytes(self.draw.choice(self.others).payload)
        head = bytes(packet.payload)[: self.draw.randint(0, len(packet.payload))]
        return replace(packet, payload=head + other[self.draw.randint(0, len(other)) :])

    def _wrap(self, packet: Packet) -> Packet:
        """Put the payload behind the head of a lossless stage that stores it as it is."""
        payload = bytes(packet.payload)
        rearranged = self.draw.choice((0, 0, 0, 1))
        head = _STAGE.pack(packet.codec % 256, 0, rearranged, len(payload))
        return replace(packet, codec=pb.CODEC_LOSSLESS, payload=head + payload)


def mutants(seed: int, packets: Iterable[Packet], number: int) -> Iterator[bytes]:
    """Yield that many damaged packets."""
    draw = random.Random(seed)
    originals = list(packets)
    mutator = Mutator(draw, originals)
    for _ in range(number):
        yield mutator.damaged(draw.choice(originals))
