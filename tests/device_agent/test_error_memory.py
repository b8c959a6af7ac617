"""Error memory: nothing of an update is lost, whatever part of it is sent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_agent.error_memory import ErrorMemory, NoMemory

# Small whole numbers add up exactly in float32, so equality can be asked for.
VECTOR = st.lists(st.integers(-1000, 1000), min_size=4, max_size=4)
ROUNDS = st.lists(
    st.tuples(VECTOR, st.lists(st.booleans(), min_size=4, max_size=4)), min_size=1, max_size=20
)


def f32(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@settings(deadline=None)
@given(ROUNDS)
def test_sent_and_memory_add_up_to_all_updates(rounds: list[tuple[list[int], list[bool]]]) -> None:
    memory = ErrorMemory(4)
    updates, arrived = np.zeros(4, np.float32), np.zeros(4, np.float32)
    for update, passed in rounds:
        updates += f32(update)
        sent = memory.add(f32(update)) * np.array(passed, dtype=np.float32)
        memory.settle(sent)
        arrived += sent
    assert np.array_equal(arrived + memory.memory, updates)


def test_an_update_that_never_arrived_is_sent_with_the_next() -> None:
    memory = ErrorMemory(2)
    memory.add(f32([1, 2]))
    assert memory.add(f32([10, 20])).tolist() == [11.0, 22.0]


def test_callers_cannot_reach_into_the_memory() -> None:
    memory = ErrorMemory(2)
    memory.add(f32([1, 2]))[:] = 99.0
    memory.memory[:] = 99.0
    assert memory.memory.tolist() == [1.0, 2.0]


def test_no_memory_forgets() -> None:
    memory = NoMemory(2)
    assert memory.add(f32([1, 2])).tolist() == [1.0, 2.0]
    memory.settle(f32([0, 0]))
    assert memory.add(f32([3, 4])).tolist() == [3.0, 4.0]


@pytest.mark.parametrize("memory", [ErrorMemory(2), NoMemory(2)])
def test_wrong_shapes_are_refused(memory: ErrorMemory | NoMemory) -> None:
    with pytest.raises(ValueError, match="shape"):
        memory.add(f32([1, 2, 3]))
    with pytest.raises(ValueError, match="shape"):
        memory.settle(f32([1]))
