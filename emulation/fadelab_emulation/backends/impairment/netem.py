"""Delay, jitter and loss by sch_netem, where packets arrive.

port's ingress hook                     IFB of the port
  1  window semantics
  2  loss: eBPF or classic BPF
  3  mirred ------------------------->  1: netem  delay, jitter, order
                                          2: netem  loss, if not drawn before
                                        and back, as if it had arrived at the port just now
"""

from collections.abc import Sequence

from fadelab_emulation.backends.impairment import netem_messages
from fadelab_emulation.backends.impairment.base import (
    Arrivals,
    Impairment,
    LaneLoss,
    Port,
    PortState,
)
from fadelab_emulation.backends.impairment.filters import REDIRECT_PRIORITY, redirect_arriving
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.netlink.message import Request
from fadelab_emulation.netlink.traffic import parse_shaper

_IFB_INDEX_BASE = 1 << 20
"""Beyond the index of every link."""


def ifb_index(port: Port) -> int:
    """Return the interface index of a port's IFB, in the port's namespace."""
    return delay_line(port.index)[0]


def delay_line(index: int) -> tuple[int, str]:
    """Return index and name of the IFB for packets that arrive on an interface."""
    return _IFB_INDEX_BASE + index, f"delay{index}"


class NetemDelay:
    """Delays IPv4 packets; whatever else befalls them is another impairment's affair.

    Delays are normally distributed with the jitter as standard deviation, none is negative, and
    packets keep their order: one that draws a short delay waits for those before it. Where packets
    follow each other more closely than the jitter, they are therefore later on average, and less
    spread, than what was set.

    Losses come first: a lost packet is never delayed. ``loss`` may be any impairment that works by
    a filter, or :class:`NetemLoss`.
    """

    def __init__(self, loss: Impairment) -> None:
        self._loss = loss
        self.name = "netem" if isinstance(loss, NetemLoss) else f"netem+{loss.name}"
        self.loss_is_seeded = loss.loss_is_seeded
        self._delays: dict[int, dict[int, tuple[float, float]]] = {}

    def prepare(self, port: Port) -> list[Request]:
        """Return what makes the port's delay line and leads packets through it."""
        index, name = delay_line(port.index)
        self._delays.setdefault(port.direction, {}).pop(port.device, None)
        return [
            netem_messages.create_ifb(name, index),
            netem_messages.add_delay(index),
            *self._loss.prepare(port),
            redirect_arriving(port.index, REDIRECT_PRIORITY, index),
        ]

    def change(self, port: Port, state: PortState) -> list[Request]:
        """Return what sets the port's loss and, if it differs, its delay."""
        requests = self._loss.change(port, PortState(state.losses, delay_s=0.0, jitter_s=0.0))
        known = self._delays.setdefault(port.direction, {})
        delay = (state.delay_s, state.jitter_s)
        if known.get(port.device) != delay:
            known[port.device] = delay
            requests = [*requests, netem_messages.set_delay(ifb_index(port), *delay)]
        return requests

    def read(self, ports: Sequence[Port]) -> list[Arrivals]:
        """Return the counts of these ports."""
        return self._loss.read(ports)

    def close(self) -> None:
        """Release what the losses hold; delay lines vanish with their namespaces."""
        self._loss.close()


class NetemLoss:
    """Independent or Gilbert-Elliott loss by netem, for where eBPF is not to be had.

    It works inside :class:`NetemDelay` alone, loses packets of all classes alike, and is not
    seeded. A change of probabilities takes the chain back to its good state, so bursts longer than
    the time between changes are cut short. (netem draws the loss before it moves the chain; in the
    long run that makes no difference.)

    Raises ValueError where the plan has packet classes.
    """

    name = "netem"
    loss_is_seeded = False

    def __init__(self, plan: LinkPlan) -> None:
        if plan.classes:
            raise ValueError(
                f"netem loses packets of all classes alike, but {len(plan.classes)} packet "
                "class(es) are to have losses of their own; draw these by BPF"
            )
        self._losses: dict[int, dict[int, LaneLoss]] = {}

    def prepare(self, port: Port) -> list[Request]:
        """Return what installs a loss-free netem behind the delay."""
        self._losses.setdefault(port.direction, {}).pop(port.device, None)
        return [netem_messages.add_loss(ifb_index(port))]

    def change(self, port: Port, state: PortState) -> list[Request]:
        """Return what sets the port's loss, if it differs."""
        (loss,) = state.losses
        known = self._losses.setdefault(port.direction, {})
        if known.get(port.device) == loss:
            return []
        known[port.device] = loss
        return [netem_messages.set_loss(ifb_index(port), loss)]

    def read(self, ports: Sequence[Port]) -> list[Arrivals]:
        """Return the counts of these ports; a packet counts when its delay is over."""
        counts: list[Arrivals] = []
        for port in ports:
            (answer,) = port.netlink.query([netem_messages.read_loss(ifb_index(port))])
            counters = parse_shaper(answer)
            arrived = counters.sent_packets + counters.dropped_packets
            counts.append(Arrivals(arrived, counters.dropped_packets))
        return counts

    def close(self) -> None:
        """Hold nothing."""
