"""Updates as SP-FL's rule gets them: encoded, some classes lost, joined again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Chunk, SignModulus
from fadelab_proto.joining import JoinedUpdate
from fadelab_server.aggregation.base import Contribution
from fadelab_server.aggregation.sp_fl import Allotment, Chances, SpFl
from fadelab_server.sp_fl_config import SpFlConfig

F32 = NDArray[np.float32]
SIGN, MODULUS = pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS
BOTH = frozenset((SIGN, MODULUS))
_SURE = Chances(1.0, 1.0)


def make_rule(dimension: int, *, seed: int = 1, **settings: Any) -> SpFl:
    return SpFl(SpFlConfig.model_validate(settings), dimension, seed)


def encoded(update: F32, *, bits: int = 16, seed: int = 0) -> tuple[Chunk, ...]:
    draw = np.random.default_rng(seed)
    return SignModulus(bits).encode(update, max_payload_bytes=4096, generator=draw).chunks


def contribution(
    rule: SpFl, device: int, chunks: tuple[Chunk, ...], newest: F32, arrived: frozenset[int] = BOTH
) -> Contribution:
    """Return what the rule is handed if these classes arrived."""
    assert rule.allotment is not None
    version = rule.allotment.version
    usable = rule.usable(device, arrived, version)
    stands_in = rule.modulus_of(device)
    joined = JoinedUpdate(
        lambda: [chunk for chunk in chunks if chunk.packet_class in usable & arrived],
        len(newest),
        lambda _: stands_in,
    )
    return Contribution(
        device=device,
        base=newest,
        segments=joined,
        base_version=version,
        staleness=0,
        samples=1,
        missing=joined.missing,
        substituted=joined.substituted,
        unused_signs=joined.unused_signs,
    )


def play_round(
    rule: SpFl,
    updates: dict[int, F32],
    arrived: dict[int, frozenset[int]],
    *,
    version: int = 0,
    chances: Chances = _SURE,
    bits: int = 16,
) -> F32:
    """Return how a round moves the model; devices that nothing arrived of are lost."""
    newest = np.zeros(len(next(iter(updates.values()))), dtype=np.float32)
    rule.allot(Allotment(version, dict.fromkeys(updates, chances)))
    for device, update in updates.items():
        if device not in arrived:
            continue
        chunks = encoded(update, bits=bits, seed=1000 * version + device)
        given = contribution(rule, device, chunks, newest, arrived[device])
        moved = rule.add(given, newest=newest, roster=frozenset(updates))
        if moved is not None:
            return moved
    return rule.end_round(newest=newest)
