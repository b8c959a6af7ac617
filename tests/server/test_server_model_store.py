import numpy as np
import pytest

from fadelab_server.model_store import ModelStore, Version


def store(history_bytes: int) -> ModelStore:
    return ModelStore([Version(0, np.zeros(100, dtype=np.float32), 0.0)], history_bytes)


def publish(models: ModelStore, count: int) -> None:
    for number in range(1, count + 1):
        models.show(models.publish(np.full(100, number, dtype=np.float32), float(number)))


@pytest.mark.parametrize(("budget", "kept"), [(0, 2), (799, 2), (1199, 2), (1200, 3), (2000, 5)])
def test_as_many_versions_are_kept_as_fit_and_at_least_two(budget: int, kept: int) -> None:
    models = store(budget)
    publish(models, 9)
    assert [v.number for v in models.after(-1)] == list(range(10 - kept, 10))
    assert models.get(9 - kept) is None
    assert models.get(10 - kept) is not None


def test_versions_count_up_and_hold_what_was_published() -> None:
    models = store(10_000)
    publish(models, 3)
    assert models.newest.number == 3
    version = models.get(2)
    assert version is not None
    assert (version.vector == 2).all()
    assert version.published_mono_s == 2.0
    assert [v.number for v in models.after(1)] == [2, 3]
    assert models.after(3) == []


def test_published_vectors_cannot_be_changed() -> None:
    models = store(0)
    publish(models, 1)
    with pytest.raises(ValueError, match="read-only"):
        models.newest.vector[0] = 1


def test_a_version_is_seen_only_when_it_is_shown() -> None:
    models = store(10_000)
    publish(models, 1)
    second, third = (models.publish(np.zeros(100, dtype=np.float32), 0.0) for _ in range(2))
    assert models.newest is third
    assert models.shown.number == 1
    assert models.get(2) is None
    assert models.after(0) == [models.shown]
    models.show(third)
    models.show(second)
    assert models.shown is third
    assert models.after(1) == [second, third]
    assert [version.number for version in models.held()] == [0, 1, 2, 3]
