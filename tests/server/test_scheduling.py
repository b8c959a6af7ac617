"""Servers do not interrupt themselves; who was given a class keeps it."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fadelab_server.scheduling import prefer_throughput


def class_after(given: int) -> tuple[int, int]:
    """Return the class of a thread that had another one before, and of one that it starts."""
    os.sched_setscheduler(0, given, os.sched_param(0))
    prefer_throughput()
    found: list[int] = []
    started = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
    started.start()
    started.join()
    return os.sched_getscheduler(0), found[0]


@pytest.mark.parametrize(
    ("given", "then"),
    [(os.SCHED_OTHER, os.SCHED_BATCH), (os.SCHED_IDLE, os.SCHED_IDLE)],
    ids=["other", "idle"],
)
def test_a_server_prefers_throughput_unless_it_was_told_otherwise(given: int, then: int) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(class_after, given).result() == (then, then)


def test_a_refusal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = os.sched_getscheduler(0)
    prefer_throughput()
    assert os.sched_getscheduler(0) == before
