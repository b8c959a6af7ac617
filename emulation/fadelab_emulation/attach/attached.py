"""Existing interfaces, shaped where they are: both directions at one end of a link.

    interface X                                     IFB of X
      egress:  uplink shaper (root qdisc)             egress: downlink shaper
      ingress: clsact > mirred ---------------------> and back, as if it had arrived at X just now

The far end is not ours. Packets can therefore be held up and dropped here, but neither lost nor
delayed behind the bottleneck: what is dropped or delayed in front of a sender's queue looks like
local congestion to TCP, and what is dropped in front of the downlink's shaper takes no air time.

Shapers see frames as on a wire. The interface is told to send packets of one frame each
(``gso_max_segs 1``); bundles of frames that arrive from a far end that does not, and those of
connections that are older than the attachment, are cut by the gates, whose buckets hold less than
two frames (``tbf_segment`` in net/sched/sch_tbf.c).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fadelab_emulation.attach.interfaces import set_bundled_frames
from fadelab_emulation.attach.undo import ShapedInterface
from fadelab_emulation.attach.windows import AttachedDrop, AttachedHold, OneSidedLinks
from fadelab_emulation.backends import topology
from fadelab_emulation.backends.impairment.base import (
    Arrivals,
    Direction,
    Port,
    PortState,
)
from fadelab_emulation.backends.impairment.filters import REDIRECT_PRIORITY, redirect_arriving
from fadelab_emulation.backends.impairment.netem_messages import create_ifb
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.topology import Crossing
from fadelab_emulation.backends.windows.base import Window
from fadelab_emulation.namespaces import NetworkNamespace, Setting
from fadelab_emulation.netlink import filters, links
from fadelab_emulation.netlink.message import NetlinkSocket, Request
from fadelab_emulation.window import WindowMode

_WINDOWS: dict[WindowMode, Callable[[OneSidedLinks], Window]] = {
    WindowMode.HOLD: AttachedHold,
    WindowMode.DROP: AttachedDrop,
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface to be shaped."""

    namespace: NetworkNamespace
    facts: ShapedInterface


class Unimpaired:
    """No losses and no delays, which is all that one end of a link can do."""

    name = "none"
    loss_is_seeded = True

    def prepare(self, port: Port) -> list[Request]:  # noqa: ARG002 -- as all impairments
        """Return nothing."""
        return []

    def change(self, port: Port, state: PortState) -> list[Request]:
        """Return nothing; ValueError for a loss or a delay."""
        if state.delay_s or state.jitter_s or any(any(loss[:2]) for loss in state.losses):
            raise ValueError(
                f"device {port.device} is asked for {state}, which cannot be had at an attached "
                "interface"
            )
        return []

    def read(self, ports: Sequence[Port]) -> list[Arrivals]:
        """Return that nothing was lost."""
        return [Arrivals(0, 0) for _ in ports]

    def close(self) -> None:
        """Hold nothing."""


class AttachedLinks:
    """See :class:`~fadelab_emulation.backends.kernel_links.KernelLinks`.

    Args:
        attachments: one interface for each device, checked by :func:`check_interface`.
        alias: what the alias of every IFB is to be.

    """

    settings: tuple[Setting, ...] = ()
    uplinks_arrive_here = False
    server_address = ""

    def __init__(self, attachments: Sequence[Attachment], alias: str) -> None:
        self._attachments = list(attachments)
        self._alias = alias
        self._plan = LinkPlan([])
        self._before = [Crossing(0, 0, 0, 0)] * len(self._attachments)
        self._touched: list[Attachment] = []

    @property
    def namespaces(self) -> Sequence[NetworkNamespace]:
        """Where the interfaces are."""
        return [attachment.namespace for attachment in self._attachments]

    def make(self, plan: LinkPlan) -> None:
        """Install all shapers, closed, or none. Raises NetlinkError."""
        self._plan = plan
        try:
            for device, attachment in enumerate(self._attachments):
                self._touched.append(attachment)
                # Alone, for a batch goes on after a failure: without an IFB nothing is to be led.
                attachment.namespace.netlink.change([_ifb(attachment.facts)])
                attachment.namespace.netlink.change(self._installation(device))
            self._before = self._read(range(len(self._attachments)))
        except BaseException:
            self._restore()
            raise

    def window(self, mode: WindowMode) -> Window:
        """Return what opens and closes the links; ValueError for what one end cannot do."""
        if mode not in _WINDOWS:
            raise ValueError(f"an attached interface has no window mode {mode.value!r}")
        return _WINDOWS[mode](self)

    def sender(self, device: int, direction: Direction) -> tuple[NetlinkSocket, int]:
        """Return a socket beside the interface at which a direction is shaped, and its index."""
        attachment = self._attachments[device]
        up = direction is Direction.UP
        index = attachment.facts.index if up else attachment.facts.ifb_index
        return attachment.namespace.netlink, index

    def port(self, device: int, direction: Direction) -> Port:
        """Return the interface; where its uplink arrives is out of reach."""
        attachment = self._attachments[device]
        return Port(device, direction, attachment.namespace.netlink, attachment.facts.index)

    def crossings(self, devices: Sequence[int]) -> list[Crossing]:
        """Read what left the interface and what its IFB gave back to it."""
        return [
            Crossing(
                *(after - before for after, before in zip(now, self._before[device], strict=True))
            )
            for device, now in zip(devices, self._read(devices), strict=True)
        ]

    def close(self) -> None:
        """Restore the interfaces and release every descriptor."""
        self._restore()
        for namespace in self.namespaces:
            namespace.close()

    def interface(self, device: int, direction: Direction) -> str:
        """Return the name of the interface at which a direction is shaped."""
        facts = self._attachments[device].facts
        return facts.name if direction is Direction.UP else facts.ifb_name

    def flush(self, device: int) -> None:
        """Empty the queues of a closed link."""
        queues = self._plan.queues[device]
        for direction, limit_bytes in zip(
            Direction, (queues.up_bytes, queues.down_bytes), strict=True
        ):
            netlink, index = self.sender(device, direction)
            lanes = 1 + len(self._plan.classes)
            netlink.change(topology.empty_queues(index, limit_bytes, lanes))

    def _installation(self, device: int) -> list[Request]:
        facts, queues = self._attachments[device].facts, self._plan.queues[device]
        classes = self._plan.classes
        redirect = redirect_arriving(
            facts.index, REDIRECT_PRIORITY, facts.ifb_index, filters.ETH_P_ALL
        )
        return [
            links.set_alias(facts.ifb_index, self._alias),
            *topology.shaper(facts.ifb_index, queues.down_bytes, classes),
            set_bundled_frames(facts.index, 1),
            *topology.shaper(facts.index, queues.up_bytes, classes),
            filters.add_ingress_hook(facts.index),
            redirect,
        ]

    def _read(self, devices: Sequence[int]) -> list[Crossing]:
        found: list[Crossing] = []
        for device in devices:
            attachment = self._attachments[device]
            ends = (attachment.facts.index, attachment.facts.ifb_index)
            answers = attachment.namespace.netlink.query([links.read_counters(i) for i in ends])
            up, down = map(links.parse_counters, answers)
            found.append(Crossing(up.tx_packets, down.tx_packets, up.tx_bytes, down.tx_bytes))
        return found

    def _restore(self) -> None:
        while self._touched:
            attachment = self._touched.pop()
            attachment.facts.undo(attachment.namespace.netlink)


def _ifb(facts: ShapedInterface) -> Request:
    request = create_ifb(facts.ifb_name, facts.ifb_index)
    return request._replace(operation=f"create the IFB that shapes what arrives on {facts.name}")
