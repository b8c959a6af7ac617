"""The kernel back-end: HTB rates, window semantics, and impairments where packets arrive."""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

import numpy as np

from fadelab_emulation.backends import topology
from fadelab_emulation.backends.base import (
    ClassCounters,
    DirectionCounters,
    DirectionSample,
    LinkCounters,
    LinkSample,
    Resume,
)
from fadelab_emulation.backends.desired import DesiredState
from fadelab_emulation.backends.fidelity import LeakAccount, LossAccount, RateAccount
from fadelab_emulation.backends.impairment.base import Direction, Impairment, Port
from fadelab_emulation.backends.kernel_links import KernelLinks
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.star import private_star
from fadelab_emulation.link_state import BoolArray, FloatArray, IntArray, LinkTick
from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_emulation.netlink import traffic
from fadelab_emulation.netlink.message import NetlinkSocket, Request
from fadelab_emulation.resume_probe import ResumeProbe
from fadelab_emulation.window import BackendChoice
from fadelab_proto.clock import Clock

_SAMPLED_PER_CALL = 128
"""More devices than this are sampled in turns, so that a tick's reading stays cheap."""


_DIRECTIONS = tuple(Direction)


class KernelBackend:
    """Shaped links for devices 0, 1, ...; see :class:`LinkBackend` and :mod:`.topology`.

    Rates below 64 kbit/s are raised to it, for each packet class. What a tick says of a closed
    link is sent when it opens. Losses are counted from a port's first one on.

    Args:
        plan: how many links, their queues, packet classes and window semantics.
        impairment: what loses and delays packets; belongs to the back-end from now on.
        clock: the monotonic time.
        given: descriptors of the devices' namespaces, where these are not to be made.
        links: where the links are to be, if not in a sandbox.

    Raises:
        ForeignNamespaceError: outside a sandbox.
        NetlinkError: if the kernel refuses something.

    """

    def __init__(
        self,
        plan: LinkPlan,
        impairment: Impairment,
        clock: Clock,
        given: Sequence[int] | None = None,
        links: KernelLinks | None = None,
    ) -> None:
        count, lanes = plan.devices, 1 + len(plan.classes)
        self._clock = clock
        self._lanes = lanes
        self._impairment = impairment
        self._links = private_star(count, given) if links is None else links
        self._links.make(plan)
        self._ports = [
            [self._links.port(device, direction) for device in range(count)]
            for direction in Direction
        ]
        try:
            for ports in self._ports:
                self._prepare(ports)
            self._window = self._links.window(plan.window)
        except BaseException:
            self._links.close()
            raise
        self.server_address = self._links.server_address
        self.settings = (*self._links.settings, *self._window.settings)
        self._open: BoolArray = np.zeros(count, dtype=np.bool_)
        self._open_bytes = self._open.tobytes()
        self._desired = DesiredState(count, lanes, topology.RATE_FLOOR_BPS)
        self._rates = RateAccount(2 * lanes * count)
        self._losses = LossAccount(lanes, 2 * count)
        self._lossy: BoolArray = np.zeros(2 * count, dtype=np.bool_)
        self._leaks = LeakAccount(count)
        self._next_sampled = 0
        self._sent: IntArray = np.zeros((3, 2, lanes, count), dtype=np.int64)
        """Bytes and packets that each shaper had sent, and dropped packets, when it was read last."""
        self._sent_before: IntArray = np.zeros_like(self._sent)
        """Those of shapers that have been replaced."""
        self._probe = ResumeProbe()
        self._opened_s: FloatArray = np.zeros(count)
        for device in range(count):
            self._leaks.closed(device, clock.now_s())

    @property
    def namespaces(self) -> Sequence[NetworkNamespace]:
        """Where each device's processes live."""
        return self._links.namespaces

    @property
    def name(self) -> str:
        """The word for this back-end in configurations and records."""
        delays = self._impairment.name.startswith("netem")
        return (BackendChoice.NETEM if delays else BackendChoice.LITE).value

    def apply(self, tick: LinkTick) -> None:
        """Bring every link into the tick's state, sending only what differs from the last one."""
        open_bytes = tick.is_open.tobytes()
        moved = open_bytes != self._open_bytes
        opening: list[int] = []
        if moved:
            opening = np.flatnonzero(tick.is_open > self._open).tolist()
            self._close_links(np.flatnonzero(self._open > tick.is_open).tolist())
            self._open, self._open_bytes = tick.is_open.copy(), open_bytes
        shapers, ports = self._desired.take(tick, moved=moved)
        if shapers or ports:
            self._send(shapers, ports)
        if opening:
            self._open_links(opening)

    def sample(self) -> LinkSample:
        """Read shapers for the programmed-against-achieved account; call it once per tick.

        Of many devices only some are read each time, in turns.
        """
        count = len(self._open)
        turn = (self._next_sampled + np.arange(min(count, _SAMPLED_PER_CALL))) % max(count, 1)
        self._next_sampled = (self._next_sampled + len(turn)) % max(count, 1)
        shapers = [self._read_shapers(turn, direction) for direction in Direction]
        self._account_rates(turn, shapers)
        self._account_losses(turn, shapers)
        passed = np.array(self._window.passed(turn.tolist()), dtype=np.int64).reshape(-1, 2)
        up, down = (
            DirectionSample(
                sent_bytes=shapers[direction].sent_bytes.sum(axis=0),
                backlog_bytes=shapers[direction].backlog_bytes.sum(axis=0),
                through_packets=passed[:, direction],
                arrived_packets=self._losses.arrived[turn + direction * count],
                lost_packets=self._losses.lost[turn + direction * count],
            )
            for direction in Direction
        )
        return LinkSample(devices=turn, up=up, down=down)

    def next_guard_s(self) -> float | None:
        """Return the monotonic second at which check_guards is due; None if nothing waits."""
        return self._leaks.next_due_s()

    def check_guards(self) -> None:
        """Start the leak count of links whose guard time after closing is over."""
        due = self._leaks.due(self._clock.now_s())
        for device, passed in zip(due, self._window.passed(due), strict=True):
            self._leaks.begin(device, *passed)

    def waiting_bytes(self) -> IntArray:
        """Return the layer-2 bytes that wait to be sent, up and down; shape ``(2, devices)``.

        Unlike a sample's they include the packet that a closed gate has taken from the shaper.
        """
        devices = range(len(self._open))
        return np.array([[self._backlog_bytes(d, way) for d in devices] for way in Direction])

    def class_counters(self) -> ClassCounters:
        """Read what the queue of each packet class has done, over all links."""
        devices = np.arange(len(self._open))
        read = [self._read_shapers(devices, direction) for direction in Direction]
        return ClassCounters(
            sent_bytes=np.stack([shapers.sent_bytes for shapers in read]),
            sent_packets=np.stack([shapers.sent_packets for shapers in read]),
            overflowed_packets=np.stack([shapers.dropped_packets for shapers in read]),
        )

    def resume_fileno(self) -> int:
        """Return a descriptor that becomes readable when a reopened uplink has resumed."""
        return self._probe.fileno()

    def drain_resumes(self) -> list[Resume]:
        """Return the resumptions seen since the last call; never waits."""
        resumes: list[Resume] = []
        for index, arrived_s in self._probe.arrivals():
            device = index - self._ports[Direction.UP][0].index
            opened_s = float(self._opened_s[device])
            resumes.append(Resume(device, opened_s, arrived_s - opened_s))
        return resumes

    def counters(self) -> LinkCounters:
        """Read the interfaces and return all counts since the start."""
        count = len(self._open)
        crossings = self._links.crossings(range(count))
        self._update_leaks([d for d in range(count) if self._leaks.counting(d)])
        up_packets, down_packets, up_bytes, down_bytes = (
            np.array(crossings, dtype=np.int64).reshape(count, 4).T
        )
        return LinkCounters(
            up=self._direction(Direction.UP, up_bytes, up_packets, self._leaks.leaked_up),
            down=self._direction(Direction.DOWN, down_bytes, down_packets, self._leaks.leaked_down),
        )

    def close(self) -> None:
        """Release every descriptor; in a sandbox links vanish with a namespace's last process.

        A further back-end needs a sandbox of its own: the kernel takes its time to clear one.
        """
        self._probe.close()
        self._window.release()
        self._impairment.close()
        self._links.close()

    def renew(self, device: int) -> None:
        """Take up a link that was made anew, closed: it gets the state in force, its window last.

        It opens with the next tick that says so. What it carries from now on is added to what the
        old one did; its losses, where they are seeded, begin anew.
        """
        count = len(self._open)
        self._update_account_of_closing([device])
        self._open[device] = False
        self._open_bytes = self._open.tobytes()
        self._leaks.opened(device)
        self._sent_before[..., device] = self._sent[..., device]
        for direction in Direction:
            port = self._links.port(device, direction)
            self._ports[direction][device] = port
            self._prepare([port])
        self._send(list(self._places(device)), [device, count + device])
        self._window.renew(device)
        self._note_closed(device)

    def _prepare(self, ports: Sequence[Port]) -> None:
        for netlink, together in groupby(ports, key=attrgetter("netlink")):
            netlink.change([one for port in together for one in self._impairment.prepare(port)])

    def _close_links(self, closing: list[int]) -> None:
        self._update_account_of_closing(closing)
        for device in closing:
            self._window.close(device)
            self._note_closed(device)

    def _update_account_of_closing(self, closing: list[int]) -> None:
        count = len(self._open)
        self._probe.forget([self._ports[Direction.UP][device].index for device in closing])
        self._losses.interrupt(np.array([*closing, *(device + count for device in closing)], int))

    def _note_closed(self, device: int) -> None:
        now_s = self._clock.now_s()
        self._leaks.closed(device, now_s)
        for place in self._places(device):
            self._rates.set_rate(place, 0.0, now_s)

    def _backlog_bytes(self, device: int, direction: Direction) -> int:
        """Return how many bytes wait in the queues of a direction."""
        netlink, index = self._links.sender(device, direction)
        (answer,) = netlink.query([traffic.read_shaper(index)])
        return traffic.parse_shaper(answer).backlog_bytes

    def _open_links(self, opening: list[int]) -> None:
        self._update_leaks([device for device in opening if self._leaks.counting(device)])
        if self._links.uplinks_arrive_here:
            waiting = [d for d in opening if self._backlog_bytes(d, Direction.UP) > 0]
            if waiting:
                self._probe.watch([self._ports[Direction.UP][device].index for device in waiting])
        for device in opening:
            self._leaks.opened(device)
            now_s = self._clock.now_s()
            self._opened_s[device] = now_s
            self._window.open(device)
            for place in self._places(device):
                self._rates.set_rate(place, self._rate_bps(place), now_s)

    def _places(self, device: int) -> range:
        """Return where the rates of one device's shapers stand."""
        count = len(self._open)
        return range(device, 2 * self._lanes * count, count)

    def _rate_bps(self, place: int) -> int:
        """Return what a shaper can do of what is desired: whole bits per second within bounds."""
        desired_bps = int(self._desired.rate_bps[place])
        return min(max(desired_bps, topology.RATE_FLOOR_BPS), traffic.MAX_RATE_BPS)

    def _update_leaks(self, devices: Sequence[int]) -> None:
        for device, passed in zip(devices, self._window.passed(devices), strict=True):
            self._leaks.update(device, *passed)

    def _send(self, shapers: list[int], ports: list[int]) -> None:
        """Send the desired state of these shapers and ports."""
        count = len(self._open)
        batches: dict[NetlinkSocket, list[Request]] = {}
        for place in shapers:
            row, device = divmod(place, count)
            direction, lane = divmod(row, self._lanes)
            rate_bps = self._rate_bps(place)
            self._rates.set_rate(place, rate_bps, self._clock.now_s())
            netlink, index = self._links.sender(device, _DIRECTIONS[direction])
            batches.setdefault(netlink, []).append(_set_rate(index, lane, rate_bps))
        for place in ports:
            direction, device = divmod(place, count)
            port = self._ports[direction][device]
            requests = self._impairment.change(port, self._desired.port_state(place))
            batches.setdefault(port.netlink, []).extend(requests)
        for netlink, together in batches.items():
            netlink.change(together)
        if ports:
            mean_loss = self._desired.mean_loss()
            self._lossy |= (mean_loss > 0).any(axis=0)
            self._losses.set_probabilities(mean_loss, self._clock.now_s())

    def _read_shapers(self, devices: IntArray, direction: Direction) -> "_Shapers":
        found: list[traffic.ShaperCounters] = []
        senders = [self._links.sender(device, direction) for device in devices.tolist()]
        for netlink, together in groupby(senders, key=itemgetter(0)):
            requests = [
                traffic.read_class(index, topology.shaper_class(lane))
                for _, index in together
                for lane in range(self._lanes)
            ]
            found += map(traffic.parse_shaper, netlink.query(requests))
        table = np.array(found, dtype=np.int64).reshape(len(devices), self._lanes, -1)
        *counts, backlog_bytes = table.transpose(2, 1, 0)
        sent: IntArray = np.stack(counts)
        sent += self._sent_before[:, direction, :, devices].transpose(1, 2, 0)
        self._sent[:, direction, :, devices] = sent.transpose(2, 0, 1)
        return _Shapers(sent[0], sent[1], sent[2], backlog_bytes)

    def _account_rates(self, devices: IntArray, shapers: Sequence["_Shapers"]) -> None:
        rows = np.arange(2 * self._lanes)[:, None]
        self._rates.sample(
            (rows * len(self._open) + devices).ravel(),
            np.concatenate([read.sent_bytes for read in shapers]).ravel(),
            np.concatenate([read.backlog_bytes for read in shapers]).ravel(),
            self._clock.now_s(),
        )

    def _account_losses(self, devices: IntArray, shapers: Sequence["_Shapers"]) -> None:
        count = len(self._open)
        for direction in Direction:
            lossy = self._lossy[devices + direction * count]
            chosen = devices[lossy]
            if not len(chosen):
                continue
            ports = self._ports[direction]
            arrivals = self._impairment.read([ports[device] for device in chosen.tolist()])
            self._losses.sample(
                chosen + direction * count,
                self._open[chosen],
                np.array(arrivals, dtype=np.int64).T,
                shapers[direction].sent_packets[:, lossy],
                self._clock.now_s(),
            )

    def _direction(
        self,
        direction: Direction,
        wire_bytes: IntArray,
        wire_packets: IntArray,
        leaked_packets: IntArray,
    ) -> DirectionCounters:
        count = len(self._open)
        shape = (2, self._lanes, count)
        rates, losses, own = self._rates, self._losses, slice(direction * count, None)
        return DirectionCounters(
            wire_bytes=wire_bytes.copy(),
            wire_packets=wire_packets.copy(),
            programmed_bytes=rates.programmed_bytes.reshape(shape)[direction].sum(axis=0),
            achieved_bytes=rates.achieved_bytes.reshape(shape)[direction].sum(axis=0),
            stretches=rates.stretches.reshape(shape)[direction].sum(axis=0),
            leaked_packets=leaked_packets.copy(),
            arrived_packets=losses.arrived[own][:count].copy(),
            lost_packets=losses.lost[own][:count].copy(),
            expected_losses=losses.expected[own][:count].copy(),
        )


class _Shapers(NamedTuple):
    """Counters of one direction's shapers; arrays have shape ``(lanes, devices asked)``."""

    sent_bytes: IntArray
    sent_packets: IntArray
    dropped_packets: IntArray
    backlog_bytes: IntArray


def _set_rate(index: int, lane: int, rate_bps: int) -> Request:
    burst = topology.burst_bytes(rate_bps)
    return traffic.change_htb_class(index, topology.shaper_class(lane), rate_bps, burst)
