"""A device settles its memory by what the server made of signs without moduli."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fadelab_agent.error_memory import ErrorMemory
from fadelab_agent.settling import settled
from fadelab_proto.codecs import Chunk, SignModulus, SignOnly
from fadelab_proto.joining import JoinedUpdate, stand_in
from fadelab_proto.substitutes import ConstantModulus, LastStep, MeanModulus, SubstituteConfig

F32 = NDArray[np.float32]
N = 1000


def waiting() -> F32:
    return np.random.default_rng(1).standard_normal(N, dtype=np.float32)


def arrived() -> tuple[list[Chunk], int]:
    """Return all signs and some moduli, and the number of the latter."""
    draw = np.random.default_rng(2)
    chunks = SignModulus(16).encode(waiting(), max_payload_bytes=300, generator=draw).chunks
    signs = [own for own in chunks if own.count > 200]
    moduli = [own for own in chunks if own.count <= 200][:2]
    return signs + moduli, sum(own.count for own in moduli)


def test_entries_whose_modulus_is_missing_stay_if_nothing_stands_in() -> None:
    chunks, known = arrived()
    sent = settled(chunks, waiting(), None)
    np.testing.assert_allclose(sent[:known], waiting()[:known], atol=1e-4)
    assert not sent[known:].any()


@pytest.mark.parametrize("substitute", [MeanModulus(), ConstantModulus(modulus=0.3)])
def test_device_and_server_agree_to_the_bit(substitute: SubstituteConfig) -> None:
    chunks, known = arrived()
    server = np.zeros(N, np.float32)
    for segment in JoinedUpdate(lambda: chunks, N, stand_in(substitute, None)):
        segment.add_to(server)
    assert server[known:].all()
    np.testing.assert_array_equal(settled(chunks, waiting(), substitute), server)


def test_what_the_models_last_step_stood_in_for_is_settled_as_a_whole() -> None:
    chunks, known = arrived()
    memory = ErrorMemory(N)
    memory.settle(settled(chunks, memory.add(waiting()), LastStep()))
    assert not memory.memory[known:].any()
    np.testing.assert_allclose(memory.memory[:known], 0, atol=1e-4)


def test_without_moduli_the_memory_of_a_step_does_not_wind_up() -> None:
    memory, draw = ErrorMemory(N), np.random.default_rng(3)
    for _ in range(20):
        vector = memory.add(waiting())
        chunks = SignOnly().encode(vector, max_payload_bytes=300, generator=draw).chunks
        memory.settle(settled(chunks, vector, LastStep()))
    assert not memory.memory.any()
