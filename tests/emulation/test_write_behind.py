import threading

import pytest

from fadelab_emulation.write_behind import WriteBehind


def test_actions_keep_their_order_and_the_caller_does_not_wait() -> None:
    gate, done = threading.Event(), []
    with WriteBehind() as behind:
        behind.submit(lambda: done.append(gate.wait(30)))
        for number in range(100):
            behind.submit(lambda number=number: done.append(number))
        assert done == []
        gate.set()
    assert done == [True, *range(100)]


def test_an_error_is_raised_in_the_end_and_stops_nothing() -> None:
    done = []

    def fail() -> None:
        raise OSError("the disk is full")

    def both() -> None:
        with WriteBehind() as behind:
            behind.submit(fail)
            behind.submit(lambda: done.append(1))

    with pytest.raises(OSError, match="disk is full"):
        both()
    assert done == [1]
