"""R, U, X, staleness, replay and lemma 1 against runs that are simulated event by event."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.server.schedules import random_log

from fadelab_server.scheduler.event_log import (
    Abandoned,
    EventLogError,
    Received,
    TaskLog,
    Uploaded,
    mix,
    replay,
)
from fadelab_server.scheduler.model_difference import model_differences
from fadelab_server.scheduler.tensors import (
    completions,
    staleness,
    staleness_by_aggregation,
    unmatched,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), devices=st.integers(1, 5), aggregations=st.integers(1, 8))
def test_tensors_say_what_the_log_says(seed: int, devices: int, aggregations: int) -> None:
    log = random_log(np.random.default_rng(seed), devices=devices, aggregations=aggregations)
    found = completions(*log.tensors())
    expected = np.zeros((devices, aggregations, aggregations))
    for upload in log.uploads:
        expected[upload.device, upload.version, upload.aggregation] = 1
    assert np.array_equal(found, expected)
    stale = [upload.staleness for upload in log.uploads]
    assert staleness_by_aggregation(found).tolist() == stale
    assert staleness(found) == max(stale)
    assert not len(unmatched(found))


def test_the_printed_product_would_count_a_reception_twice() -> None:
    """Device 0 returns version 0 at once and version 1 as well: it completes each of them once."""
    received = uploaded = np.ones((1, 2))
    assert completions(received, uploaded)[0].tolist() == [[1, 0], [0, 1]]


def test_an_upload_without_a_reception_is_noticed() -> None:
    received, uploaded = np.array([[1.0, 1.0], [0, 0]]), np.array([[1.0, 0], [0, 1.0]])
    assert unmatched(completions(received, uploaded)).tolist() == [1]


@pytest.mark.parametrize("seed", range(3))
def test_the_log_gives_every_version_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log = random_log(rng, devices=4, aggregations=12, mixing=0.37)
    first = rng.normal(size=50).astype(np.float32)
    models, versions = {}, [first]
    for upload in log.uploads:
        models[upload.aggregation] = rng.normal(size=50).astype(np.float32)
        # What the server does, written out: (6).
        alpha = np.float32(upload.mixing)
        arrived = models[upload.aggregation]
        versions.append((np.float32(1) - alpha) * versions[-1] + alpha * arrived)
    replayed = replay(log, first, lambda w, event: mix(w, models[event.aggregation], event.mixing))
    for (number, model), version in itertools.zip_longest(replayed, versions):
        assert model.tobytes() == version.tobytes(), number
    wrong = replay(log, first, lambda w, event: mix(w, models[event.aggregation], 0.36))
    assert list(wrong)[-1][1].tobytes() != versions[-1].tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_lemma_1_against_a_simulated_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log = random_log(rng, devices=4, aggregations=9)
    gradients = np.zeros((4, 9, 6))
    versions = [rng.normal(size=6)]
    for upload in log.uploads:
        moved = rng.normal(size=6)
        gradients[upload.device, upload.version] = moved
        local = versions[upload.version] - moved
        versions.append(0.7 * versions[-1] + 0.3 * local)
    found = model_differences(completions(*log.tensors()), gradients, 0.3)
    for first, last in itertools.combinations_with_replacement(range(10), 2):
        assert found[first, last] == pytest.approx(versions[first] - versions[last], abs=1e-12)


GOOD = (Received(0, 0, 0.0), Uploaded(0, 0, 0, 0.5, 1.0), Received(0, 1, 2.0))


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((Received(2, 0, 0.0),), "no device 2"),
        ((*GOOD, Received(0, 1, 3.0)), "still has"),
        ((Received(0, 1, 0.0),), "newest is 0"),
        ((Uploaded(0, 0, 0, 0.5, 1.0),), "does not hold"),
        ((GOOD[0], replace(GOOD[1], aggregation=1)), "follows version 0"),
        ((GOOD[0], replace(GOOD[1], mixing=1.5)), "mixing"),
        ((*GOOD, Received(1, 1, 1.0)), "time goes back"),
        ((Abandoned(1, 0, 0.0),), "abandons"),
    ],
)
def test_logs_that_contradict_themselves_are_refused(events: tuple, words: str) -> None:
    with pytest.raises(EventLogError, match=words):
        TaskLog(2, events)


def test_an_abandoned_reception_completes_nothing() -> None:
    log = TaskLog(
        2,
        (
            Received(0, 0, 0.0),
            Received(1, 0, 0.0),
            Abandoned(0, 0, 1.0),
            Uploaded(1, 0, 0, 0.5, 2.0),
            Received(0, 1, 3.0),
            Uploaded(0, 1, 1, 0.5, 4.0),
        ),
    )
    found = completions(*log.tensors())
    assert found[0, 0].sum() == 0
    assert staleness(found) == 0
    assert not len(unmatched(found))
