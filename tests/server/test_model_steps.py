"""Quantised steps from version to version: whoever adds them holds what is published."""

import numpy as np
import pytest
from tests.server.harness import DIMENSION, F32, initial_vector

from fadelab_proto import codecs
from fadelab_proto.codecs import Codec, DenseF16, Laq, SignOnly, TopK, Uniform
from fadelab_proto.seeds import Stream, generator
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.model_steps import ModelSteps
from fadelab_server.model_store import ModelStore, Version


def make_steps(codec: Codec, *, seed: int = 1, memory_bytes: int = 1 << 20) -> ModelSteps:
    return ModelSteps(
        codec,
        dimension=DIMENSION,
        max_payload_bytes=512,
        memory_bytes=memory_bytes,
        draw=lambda version: generator(seed, Stream.DOWNLINK, 0, version),
    )


def make_store() -> ModelStore:
    return ModelStore([Version(0, initial_vector(), 0.0)], 1 << 20)


def walk(steps: ModelSteps, store: ModelStore, length: int) -> list[F32]:
    """Publish a random walk; return the models that would be published without quantising."""
    draw = np.random.default_rng(3)
    ideal = [store.newest.vector]
    for _ in range(length):
        move = draw.standard_normal(DIMENSION, dtype=np.float32)
        ideal.append(ideal[-1] + move)
        steps.publish(store.newest.vector + move, store, 0.0)
    return ideal


CODECS = [
    Laq(6),
    Uniform(8),
    Uniform(6, order="planes"),
    TopK(30),
    TopK(60, Laq(4)),
    DenseF16(),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_whoever_adds_the_steps_holds_the_published_vector(codec: Codec) -> None:
    steps, store = make_steps(codec), make_store()
    walk(steps, store, 8)
    for held in range(8):
        for target in range(held + 1, 9):
            chunks = steps.between(held, target)
            version, base = store.held()[target], store.held()[held]
            assert chunks is not None
            vector = base.vector.copy()
            for chunk in chunks:
                codecs.decode(
                    chunk.codec, chunk.payload, first=chunk.first, count=chunk.count
                ).add_to(vector)
            assert vector.tobytes() == version.vector.tobytes()


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_what_steps_lose_is_made_up_for(codec: Codec) -> None:
    steps, store = make_steps(codec), make_store()
    ideal = walk(steps, store, 40)
    np.testing.assert_allclose(store.newest.vector + steps.residual, ideal[-1], atol=1e-4)
    # Then the rule is content: everything that is owed comes.
    for _ in range(40):
        steps.publish(store.newest.vector, store, 0.0)
    np.testing.assert_allclose(store.newest.vector, ideal[-1], atol=2e-3)


def test_steps_hang_on_seed_and_version_alone() -> None:
    def final(seed: int) -> bytes:
        steps, store = make_steps(Uniform(6), seed=seed), make_store()
        walk(steps, store, 5)
        return store.newest.vector.tobytes()

    assert final(1) == final(1)
    assert final(1) != final(2)


def test_what_a_codec_cannot_write_is_published_as_it_is() -> None:
    steps, store = make_steps(DenseF16()), make_store()
    huge = store.newest.vector + np.float32(1e6)
    steps.publish(huge, store, 0.0)
    np.testing.assert_array_equal(store.newest.vector, huge)
    assert not steps.residual.any()
    assert steps.between(0, 1) is None
    steps.publish(huge + 1, store, 0.0)
    assert steps.between(1, 2) is not None
    assert steps.between(0, 2) is None


def test_signs_alone_are_no_step() -> None:
    steps, store = make_steps(SignOnly()), make_store()
    moved = store.newest.vector + 1
    steps.publish(moved, store, 0.0)
    np.testing.assert_array_equal(store.newest.vector, moved)


def test_rounding_that_loses_more_than_it_keeps_does_not_add_up() -> None:
    steps, store = make_steps(Uniform(1)), make_store()
    ideal = walk(steps, store, 60)
    # With feedback alone, errors of this codec would grow without bound.
    assert np.abs(steps.residual).max() < 10
    np.testing.assert_allclose(store.newest.vector + steps.residual, ideal[-1], atol=1e-3)


def test_the_oldest_steps_go_first() -> None:
    steps, store = make_steps(Laq(6), memory_bytes=1500), make_store()
    walk(steps, store, 10)
    kept = [held for held in range(10) if steps.between(held, 10) is not None]
    assert kept
    assert kept == list(range(kept[0], 10))
    assert kept[0] > 0
    assert steps.between(10, 10) is None
    assert steps.between(10, 9) is None
    assert steps.between(-5, 10) is None


def test_a_residual_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"residual has shape \(7,\), not \(300,\)"):
        make_steps(Laq(6)).restore(np.zeros(7, dtype=np.float32))
