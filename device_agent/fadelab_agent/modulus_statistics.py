"""What a device tells of an update whose signs and moduli travel apart, before it sends it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Encoding
from fadelab_proto.joining import JoinedUpdate

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModulusFigures:
    """V, I and sigma^2 of SP-FL (arXiv 2603.10763, reconstructed)."""

    energy: float
    """Squared norm of the update."""
    overlap: float
    """Inner product of its moduli and of what stands in for lost ones."""
    quantiser_variance: float
    """Squared error of its coded moduli; 0 if none are sent."""


def with_signs(update: F32, generator: np.random.Generator) -> F32:
    """Return an update in which zeros have a sign, drawn at random.

    Alone, a sign says what the entry is to be moved by. An entry of 0 has none: if they all were
    plus, whatever stands in for lost moduli would add up over devices and rounds. The smallest
    normal number in the place of 0 changes nothing where moduli arrive.
    """
    zeros = np.flatnonzero(update == 0)
    if not len(zeros):
        return update
    signed = update.copy()
    tiny = np.finfo(np.float32).tiny
    signed[zeros] = np.where(generator.random(len(zeros)) < 0.5, -tiny, tiny)
    return signed


def modulus_figures(update: F32, encoding: Encoding, compensation: F32 | None) -> ModulusFigures:
    """Return an update's figures.

    Args:
        update: shape ``(n,)``.
        encoding: its code.
        compensation: what stands in for lost moduli, shape ``(n,)``; None if nothing does.

    """
    overlap = 0.0 if compensation is None else float(np.dot(np.abs(update), compensation))
    variance = 0.0
    if any(chunk.packet_class == pb.PACKET_CLASS_MODULUS for chunk in encoding.chunks):
        decoded = np.zeros_like(update)
        for segment in JoinedUpdate(lambda: encoding.chunks, len(update)):
            segment.add_to(decoded)
        error = decoded - update
        variance = float(np.dot(error, error))
    return ModulusFigures(float(np.dot(update, update)), overlap, variance)
