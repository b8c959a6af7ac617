"""The kernel back-end for kernels without netem: HTB rates, a TBF gate, classic-BPF loss."""

from collections.abc import Sequence

import numpy as np

from fadelab_emulation.backends import topology
from fadelab_emulation.backends.base import (
    DirectionCounters,
    IntArray,
    LinkCounters,
    Resume,
)
from fadelab_emulation.backends.fidelity import LeakAccount, RateAccount
from fadelab_emulation.backends.nudge import Nudger
from fadelab_emulation.backends.topology import DEVICE_INDEX, SHAPER_CLASS, QueueSizes, hub_index
from fadelab_emulation.link_state import BoolArray, FloatArray, LinkTick
from fadelab_emulation.namespaces import apply_settings, create_namespaces
from fadelab_emulation.netlink import links, traffic
from fadelab_emulation.netlink.message import NetlinkSocket, Request
from fadelab_emulation.resume_probe import ResumeProbe
from fadelab_emulation.sandbox import assert_private_namespace
from fadelab_proto.clock import Clock

_SAMPLED_PER_CALL = 128
"""More devices than this are sampled in turns, so that a tick's reading stays cheap."""


class LiteBackend:
    """Shaped links for devices 0, 1, ...; see :class:`LinkBackend` and :mod:`.topology`.

    Rates below 64 kbit/s are raised to it. Rates and losses of a closed link are sent when it
    opens. Raises ForeignNamespaceError outside a sandbox, NetlinkError if the kernel refuses.
    """

    name = "lite"
    server_address = topology.SERVER_ADDRESS

    def __init__(self, queues: Sequence[QueueSizes], clock: Clock) -> None:
        assert_private_namespace()
        count = len(queues)
        self._clock = clock
        self.settings = apply_settings()
        self._hub = NetlinkSocket()
        made = create_namespaces(count, lambda: Nudger(topology.SHAPER))
        self.namespaces = [namespace for namespace, _ in made]
        self._uplink_nudgers = [nudger for _, nudger in made]
        self._downlink_nudger = Nudger(topology.SHAPER)
        topology.create_links(self._hub, self.namespaces, queues)
        self._open: BoolArray = np.zeros(count, dtype=np.bool_)
        self._rate_up_bps: IntArray = np.full(count, topology.RATE_FLOOR_BPS)
        self._rate_down_bps: IntArray = np.full(count, topology.RATE_FLOOR_BPS)
        self._loss_up: FloatArray = np.zeros(count)
        self._loss_down: FloatArray = np.zeros(count)
        self._hooks: set[tuple[int, int]] = set()
        self._rates_up = RateAccount(count)
        self._rates_down = RateAccount(count)
        self._leaks = LeakAccount(count)
        self._next_sampled = 0
        self._probe = ResumeProbe()
        self._opened_s: FloatArray = np.zeros(count)
        for device in range(count):
            self._leaks.closed(device, clock.now_s())

    def apply(self, tick: LinkTick) -> None:
        """Bring every link into the tick's state, sending only what differs from the last one."""
        opening = np.flatnonzero(tick.is_open & ~self._open)
        closing = np.flatnonzero(self._open & ~tick.is_open)
        hub: list[Request] = []
        # A dict keeps the order of insertion: devices whose window closes are served first.
        devices: dict[int, list[Request]] = {}
        for device in closing.tolist():
            _move_gate(hub, devices, device, is_open=False)
        self._change_rates(tick, hub, devices)
        self._change_losses(tick, hub, devices)
        for device in opening.tolist():
            _move_gate(hub, devices, device, is_open=True)
        self._before_gates_move(opening, closing)
        self._hub.change(hub)
        for device, requests in devices.items():
            self._opened_s[device] = self._clock.now_s()
            self.namespaces[device].netlink.change(requests)
        for device in opening.tolist():
            self._uplink_nudgers[device].nudge(self.server_address)
            self._downlink_nudger.nudge(topology.device_address(device))
        self._after_gates_moved(tick, closing)

    def sample(self) -> None:
        """Read shapers for the programmed-against-achieved account; call it once per tick."""
        count = len(self._open)
        turn = (self._next_sampled + np.arange(min(count, _SAMPLED_PER_CALL))) % max(count, 1)
        self._next_sampled = (self._next_sampled + len(turn)) % max(count, 1)
        sampled = turn[self._open[turn]]
        if not len(sampled):
            return
        down = self._hub.query([traffic.read_shaper(hub_index(int(d))) for d in sampled])
        self._account(self._rates_down, sampled, down)
        ask = [traffic.read_shaper(DEVICE_INDEX)]
        up = [self.namespaces[device].netlink.query(ask)[0] for device in sampled.tolist()]
        self._account(self._rates_up, sampled, up)

    def next_guard_s(self) -> float | None:
        """Return the monotonic second at which check_guards is due; None if nothing waits."""
        return self._leaks.next_due_s()

    def check_guards(self) -> None:
        """Start the leak count of links whose guard time after closing is over."""
        due = self._leaks.due(self._clock.now_s())
        for device, counters in self._read_interfaces(due):
            self._leaks.begin(device, counters.rx_packets, counters.tx_packets)

    def uplink_backlog_bytes(self, device: int) -> int:
        """Return how many bytes wait in a device's uplink queue."""
        ask = [traffic.read_shaper(DEVICE_INDEX)]
        return traffic.parse_shaper(self.namespaces[device].netlink.query(ask)[0]).backlog_bytes

    def resume_fileno(self) -> int:
        """Return a descriptor that becomes readable when a reopened uplink has resumed."""
        return self._probe.fileno()

    def drain_resumes(self) -> list[Resume]:
        """Return the resumptions seen since the last call; never waits."""
        resumes: list[Resume] = []
        for index, arrived_s in self._probe.arrivals():
            device = index - hub_index(0)
            opened_s = float(self._opened_s[device])
            resumes.append(Resume(device, opened_s, arrived_s - opened_s))
        return resumes

    def counters(self) -> LinkCounters:
        """Read the interfaces and return all counts since the start.

        The hub's ends are read: what arrives there is uplink; what leaves there is downlink and,
        on a veth pair, the same as what arrives at the device.
        """
        wire = np.zeros((4, len(self._open)), dtype=np.int64)
        for device, counters in self._read_interfaces(range(len(self._open))):
            wire[:, device] = counters[1:]
            if self._leaks.counting(device):
                self._leaks.update(device, counters.rx_packets, counters.tx_packets)
        rx_packets, tx_packets, rx_bytes, tx_bytes = wire
        leaks = self._leaks
        return LinkCounters(
            up=_direction(rx_bytes, rx_packets, self._rates_up, leaks.leaked_up),
            down=_direction(tx_bytes, tx_packets, self._rates_down, leaks.leaked_down),
        )

    def close(self) -> None:
        """Release every descriptor; the links vanish with the last process in each namespace.

        A further back-end needs a sandbox of its own: the kernel takes its time to clear one.
        """
        self._probe.close()
        self._hub.close()
        self._downlink_nudger.close()
        for namespace, nudger in zip(self.namespaces, self._uplink_nudgers, strict=True):
            nudger.close()
            namespace.close()

    def _change_rates(
        self, tick: LinkTick, hub: list[Request], devices: dict[int, list[Request]]
    ) -> None:
        up = _programmable(tick.rate_up_bps)
        down = _programmable(tick.rate_down_bps)
        for device in np.flatnonzero(tick.is_open & (up != self._rate_up_bps)).tolist():
            request = _set_rate(DEVICE_INDEX, int(up[device]))
            devices.setdefault(device, []).append(request)
        changed_down = np.flatnonzero(tick.is_open & (down != self._rate_down_bps)).tolist()
        hub += [_set_rate(hub_index(device), int(down[device])) for device in changed_down]
        self._rate_up_bps = np.where(tick.is_open, up, self._rate_up_bps)
        self._rate_down_bps = np.where(tick.is_open, down, self._rate_down_bps)

    def _change_losses(
        self, tick: LinkTick, hub: list[Request], devices: dict[int, list[Request]]
    ) -> None:
        """Set losses where packets arrive: the uplink's at the hub, the downlink's at the device.

        A packet dropped where it is sent would look like local congestion, not like loss.
        """
        for device in np.flatnonzero(tick.is_open & (tick.loss_up != self._loss_up)).tolist():
            hub += self._set_loss(device, hub_index(device), float(tick.loss_up[device]))
        for device in np.flatnonzero(tick.is_open & (tick.loss_down != self._loss_down)).tolist():
            requests = self._set_loss(device, DEVICE_INDEX, float(tick.loss_down[device]))
            devices.setdefault(device, []).extend(requests)
        self._loss_up = np.where(tick.is_open, tick.loss_up, self._loss_up)
        self._loss_down = np.where(tick.is_open, tick.loss_down, self._loss_down)

    def _set_loss(self, device: int, index: int, probability: float) -> list[Request]:
        if probability <= 0:
            return [traffic.clear_loss(index)]
        requests = [traffic.set_loss(index, probability)]
        if (device, index) not in self._hooks:
            self._hooks.add((device, index))
            requests.insert(0, traffic.add_clsact(index))
        return requests

    def _before_gates_move(self, opening: IntArray, closing: IntArray) -> None:
        """Take the last look at closed links and the first at those that may resume."""
        self._probe.forget([hub_index(device) for device in closing.tolist()])
        for device, counters in self._read_interfaces(opening.tolist()):
            if self._leaks.counting(device):
                self._leaks.update(device, counters.rx_packets, counters.tx_packets)
            self._leaks.opened(device)
        waiting = [d for d in opening.tolist() if self.uplink_backlog_bytes(d) > 0]
        if waiting:
            self._probe.watch([hub_index(device) for device in waiting])

    def _after_gates_moved(self, tick: LinkTick, closing: IntArray) -> None:
        now_s = self._clock.now_s()
        for device in closing.tolist():
            self._leaks.closed(device, now_s)
        self._open = tick.is_open.copy()
        for account, rates in (
            (self._rates_up, self._rate_up_bps),
            (self._rates_down, self._rate_down_bps),
        ):
            account.set_rates(np.where(self._open, rates, 0), now_s)

    def _account(self, account: RateAccount, devices: IntArray, answers: list[bytes]) -> None:
        found = [traffic.parse_shaper(answer) for answer in answers]
        sent = np.array([counters.sent_bytes for counters in found], dtype=np.int64)
        backlog = np.array([counters.backlog_bytes for counters in found], dtype=np.int64)
        account.sample(devices, sent, backlog, self._clock.now_s())

    def _read_interfaces(self, devices: Sequence[int]) -> list[tuple[int, links.InterfaceCounters]]:
        answers = self._hub.query([links.read_counters(hub_index(device)) for device in devices])
        return [(d, links.parse_counters(a)) for d, a in zip(devices, answers, strict=True)]


def _move_gate(
    hub: list[Request],
    devices: dict[int, list[Request]],
    device: int,
    *,
    is_open: bool,
) -> None:
    """Open or close both gates of a link."""
    for index, requests in (
        (hub_index(device), hub),
        (DEVICE_INDEX, devices.setdefault(device, [])),
    ):
        state = topology.gate_open(index) if is_open else topology.gate_closed(index)
        requests.append(traffic.change_tbf(state))


def _set_rate(index: int, rate_bps: int) -> Request:
    burst = topology.burst_bytes(rate_bps)
    return traffic.change_htb_class(index, SHAPER_CLASS, rate_bps, burst)


def _programmable(rate_bps: FloatArray) -> IntArray:
    """Return whole bits per second within what the shaper can do."""
    clipped = np.clip(rate_bps, topology.RATE_FLOOR_BPS, traffic.MAX_RATE_BPS)
    return clipped.astype(np.int64)


def _direction(
    wire_bytes: IntArray, wire_packets: IntArray, rates: RateAccount, leaked: IntArray
) -> DirectionCounters:
    return DirectionCounters(
        wire_bytes=wire_bytes.copy(),
        wire_packets=wire_packets.copy(),
        programmed_bytes=rates.programmed_bytes.copy(),
        achieved_bytes=rates.achieved_bytes.copy(),
        stretches=rates.stretches.copy(),
        leaked_packets=leaked.copy(),
    )
