"""Losses by classic BPF: what is asked of the kernel, and what is refused."""

import struct
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_emulation.backends.impairment.base import Direction, LaneLoss, Port, PortState
from fadelab_emulation.backends.impairment.cbpf import CbpfLoss
from fadelab_emulation.backends.plan import ClassMark
from fadelab_emulation.netlink import classic_bpf
from fadelab_emulation.netlink.classic_bpf import RANDOM, Operation, Step
from fadelab_emulation.netlink.message import NetlinkSocket, attributes

PORT = Port(7, Direction.UP, cast("NetlinkSocket", None), 16)
_TCA_OPTIONS, _TCA_BPF_OPS, _TCMSG_BYTES = 2, 5, 20


def independent(probability: float) -> LaneLoss:
    return LaneLoss(probability, probability, 0.0, 1.0)


def code(loss: CbpfLoss, *probabilities: float) -> list[tuple[int, int, int, int]]:
    """Return the instructions of the one request that brings the port into a state."""
    state = PortState(tuple(independent(p) for p in probabilities), 0.0, 0.0)
    (request,) = loss.change(PORT, state)
    options = dict(attributes(request.body, _TCMSG_BYTES))[_TCA_OPTIONS]
    return list(struct.iter_unpack("=HBBI", dict(attributes(options, 0))[_TCA_BPF_OPS]))


@settings(deadline=None)
@given(st.floats(min_value=2**-32, max_value=1.0))
def test_exactly_the_wanted_share_of_random_words_is_lost(probability: float) -> None:
    draw, compare, *_ = code(CbpfLoss(()), probability)
    assert draw == (Operation.LOAD_WORD, 0, 0, RANDOM)
    operation, greater, otherwise, threshold = compare
    assert (operation, greater, otherwise) == (Operation.JUMP_IF_GREATER, 0, 1)
    assert (threshold + 1) / 2**32 == pytest.approx(probability, abs=2**-32)


def test_a_port_has_no_filter_until_its_first_loss_and_keeps_it_from_then_on() -> None:
    loss = CbpfLoss(())
    assert loss.change(PORT, PortState((independent(0.0),), 0.0, 0.0)) == []
    assert len(code(loss, 0.5)) == 4
    assert Operation.LOAD_WORD not in [step[0] for step in code(loss, 0.0)]


def test_a_program_grows_with_the_classes() -> None:
    marks = tuple(ClassMark(port=port) for port in range(1000, 1007))
    steps = code(CbpfLoss(marks), *[0.1] * 8)
    assert len(steps) < 100
    assert sum(step[0] == Operation.JUMP_IF_GREATER for step in steps) == 8


def test_bursts_and_delays_are_refused_and_not_forgotten() -> None:
    burst = LaneLoss(in_good=0.0, in_bad=1.0, to_bad=0.1, to_good=0.5)
    with pytest.raises(ValueError, match="device 7 is asked for Gilbert-Elliott losses"):
        CbpfLoss(()).change(PORT, PortState((burst,), 0.0, 0.0))
    with pytest.raises(ValueError, match="device 7 is asked for a delay of"):
        CbpfLoss(()).change(PORT, PortState((independent(0.0),), 0.02, 0.0))
    never_bad = burst._replace(to_bad=0.0)
    assert CbpfLoss(()).change(PORT, PortState((never_bad,), 0.0, 0.0)) == []


def test_labels_become_distances() -> None:
    program = [
        Step(Operation.JUMP_IF_EQUAL, 1, then="end"),
        Step(Operation.JUMP, then="end"),
        Step(Operation.RETURN, 5),
        "end",
        Step(Operation.RETURN, 6),
    ]
    found = list(struct.iter_unpack("=HBBI", classic_bpf.assemble(program)))
    assert found == [(0x15, 2, 0, 1), (0x05, 0, 0, 1), (0x06, 0, 0, 5), (0x06, 0, 0, 6)]


def test_a_program_that_the_kernel_would_refuse_is_refused_with_the_number() -> None:
    with pytest.raises(ValueError, match="holds 4096 instructions, not 4097"):
        classic_bpf.assemble([Step(Operation.RETURN)] * 4097)
