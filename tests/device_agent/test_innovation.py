"""Innovations and the rules that decide whether they are sent, against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_agent.innovation import (
    AlwaysUpload,
    AquilaRule,
    InnovationMemory,
    InnovationRound,
    LaqRule,
    squared_norm,
)

VECTOR = st.lists(st.integers(-1000, 1000), min_size=4, max_size=4)
ROUNDS = st.lists(
    st.tuples(VECTOR, st.lists(st.booleans(), min_size=4, max_size=4)), min_size=1, max_size=20
)


def f32(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def round_of(
    innovation: float,
    *,
    error: float = 0.0,
    last_error: float = 0.0,
    model_steps: tuple[float, ...] = (),
    silent_rounds: int = 0,
) -> InnovationRound:
    return InnovationRound(innovation, error, last_error, model_steps, silent_rounds)


@settings(deadline=None)
@given(ROUNDS)
def test_server_and_device_agree_on_the_reference(
    rounds: list[tuple[list[float], list[bool]]],
) -> None:
    memory, server = InnovationMemory(4), np.zeros(4, np.float32)
    for update, passed in rounds:
        sent = memory.add(f32(update)) * np.array(passed, dtype=np.float32)
        server += sent
        memory.settle(sent)
        assert np.array_equal(memory.reference, server)
        assert np.array_equal(server[passed], f32(update)[passed])


def test_the_error_of_quantising_does_not_add_up() -> None:
    memory = InnovationMemory(1)
    for update in (10.4, 10.4, 7.3, 10.4):
        memory.settle(np.rint(memory.add(f32([update]))))
        assert abs(float(memory.reference[0]) - update) <= 0.5


def test_what_was_not_sent_changes_nothing() -> None:
    memory = InnovationMemory(2)
    memory.settle(memory.add(f32([1, 2])))
    memory.add(f32([5, 5]))
    assert memory.add(f32([4, 4])).tolist() == [3.0, 2.0]
    memory.reference[:] = 99.0
    assert memory.reference.tolist() == [1.0, 2.0]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        InnovationMemory(2).add(f32([1, 2, 3]))
    with pytest.raises(ValueError, match="shape"):
        InnovationMemory(2).settle(f32([1]))


# 1 / (0.5 * 2)^2 = 1, so 0.25 * 8 + 0.5 * 4 = 4 is what the model moved by; errors add 3 * (1 + 2).
LAQ = LaqRule(learning_rate=0.5, devices=2, weights=(0.25, 0.5), longest_silence=3)


@pytest.mark.parametrize(
    ("now", "sent"),
    [
        (round_of(13.0, error=1, last_error=2, model_steps=(8, 4)), True),
        (round_of(12.75, error=1, last_error=2, model_steps=(8, 4)), False),
        (round_of(4.0, model_steps=(8, 4, 1000)), True),
        (round_of(1.75, model_steps=(8,)), False),
        (round_of(2.0, model_steps=(8,)), True),
        (round_of(0.0, model_steps=(8, 4), silent_rounds=2), False),
        (round_of(0.0, model_steps=(8, 4), silent_rounds=3), True),
    ],
)
def test_laq_rule(now: InnovationRound, sent: bool) -> None:
    assert LAQ.uploads(now) is sent


def test_laq_rule_scales_with_learning_rate_and_devices() -> None:
    # 0.08 * 1 / (0.02 * 10)^2 = 2.
    assert LaqRule().uploads(round_of(2.001, model_steps=(1.0,)))
    assert not LaqRule().uploads(round_of(1.999, model_steps=(1.0,)))
    assert LaqRule(devices=20).uploads(round_of(0.501, model_steps=(1.0,)))


@pytest.mark.parametrize(
    ("now", "sent"),
    [
        # 0.25 / 0.5^2 * 3 = 3, and equality does not suffice.
        (round_of(2.0, error=1.0, model_steps=(3, 100)), False),
        (round_of(2.0, error=1.125, model_steps=(3, 100)), True),
        (round_of(0.0), False),
        (round_of(0.0, silent_rounds=1000), False),
    ],
)
def test_aquila_rule(now: InnovationRound, sent: bool) -> None:
    assert AquilaRule(learning_rate=0.5, beta=0.25).uploads(now) is sent


def test_without_a_rule_everything_is_sent() -> None:
    assert AlwaysUpload().uploads(round_of(0.0, model_steps=(9,)))


@pytest.mark.parametrize(
    ("rule", "wrong", "words"),
    [
        (LaqRule, {"learning_rate": 0.0}, "learning_rate is 0.0"),
        (LaqRule, {"devices": 0}, "0 devices"),
        (LaqRule, {"longest_silence": 0}, "silence of 0"),
        (LaqRule, {"weights": (0.1, -0.1)}, "none may be negative"),
        (AquilaRule, {"learning_rate": 1.0, "beta": float("nan")}, "beta is nan"),
    ],
)
def test_impossible_rules_are_refused(
    rule: type[LaqRule | AquilaRule], wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        rule(**wrong)  # type: ignore[arg-type]


def test_squared_norms_do_not_overflow() -> None:
    assert squared_norm(f32([3, 4])) == 25.0
    assert squared_norm(f32([1e30, 0])) == pytest.approx(1e60, rel=1e-6)
