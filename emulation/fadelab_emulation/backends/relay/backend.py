"""The relay as a link back-end: interfaces, wishes to the relay process, accounts of what it did."""

from collections.abc import Sequence

import numpy as np

from fadelab_emulation.backends.base import (
    ClassCounters,
    DirectionCounters,
    DirectionSample,
    IntArray,
    LinkCounters,
    LinkSample,
    Resume,
)
from fadelab_emulation.backends.fidelity import LeakAccount, LossAccount, RateAccount
from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.relay import tun
from fadelab_emulation.backends.relay.process import RelayProcess
from fadelab_emulation.backends.relay.shared_state import DIRECTIONS, LaneReading, SharedState
from fadelab_emulation.backends.topology import (
    DEVICE_INDEX,
    SERVER_ADDRESS,
    device_address,
    hub_index,
)
from fadelab_emulation.link_state import BoolArray, FloatArray, LinkTick
from fadelab_emulation.namespaces import NetworkNamespace, apply_settings, create_namespaces
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket, Request
from fadelab_emulation.sandbox import assert_private_namespace
from fadelab_emulation.window import WindowMode
from fadelab_proto.clock import Clock

# Both ends of every connection heed the marks with which the relay holds TCP back.
_SETTINGS = {"net/ipv4/tcp_ecn": ("1",)}


class RelayBackend:
    """Links relayed in user space; see :class:`LinkBackend` and the package's text.

    Rates, losses and delays of a closed link take effect when it opens. Every packet class has a
    queue of the full size to itself, as in the kernel's back-ends. ``given`` are descriptors of the
    devices' namespaces, where these are not to be made.

    Raises ForeignNamespaceError outside a sandbox, OSError where there is no TUN device,
    NetlinkError if the kernel refuses an address or a route, RelayError if the process ends.
    """

    name = "relay"
    server_address = SERVER_ADDRESS

    def __init__(self, plan: LinkPlan, clock: Clock, given: Sequence[int] | None = None) -> None:
        assert_private_namespace()
        count, lanes = plan.devices, 1 + len(plan.classes)
        self._clock = clock
        self._window = plan.window
        self.settings = apply_settings() + apply_settings(_SETTINGS)
        made = create_namespaces(count, _furnish, given)
        self.namespaces = [namespace for namespace, _ in made]
        hub_tuns = [tun.open_tun(f"fl{device}", hub_index(device)) for device in range(count)]
        with NetlinkSocket() as hub:
            _set_up(hub, self.namespaces, plan.window)
        self._shared = SharedState(count, lanes)
        self._process = RelayProcess(plan, [tun_ for _, tun_ in made], hub_tuns, self._shared)
        self.scheduling = self._process.scheduling
        self._open: BoolArray = np.zeros(count, dtype=np.bool_)
        self._opened_s: FloatArray = np.zeros(count)
        self._resumed_s: FloatArray = np.zeros(count)
        self._rates = RateAccount(DIRECTIONS * count * lanes)
        self._rates_bps: FloatArray = np.zeros(DIRECTIONS * count * lanes)
        self._losses = LossAccount(lanes, DIRECTIONS * count)
        self._leaks = LeakAccount(count)
        for device in range(count):
            self._leaks.closed(device, clock.now_s())

    def apply(self, tick: LinkTick) -> None:
        """Bring every link into the tick's state; ValueError for a tick of other links."""
        self._check(tick)
        opening = np.flatnonzero(tick.is_open & ~self._open)
        closing = np.flatnonzero(self._open & ~tick.is_open)
        self._end_leak_counts(opening)
        if self._window is WindowMode.DOWN:
            for device in opening.tolist():
                self.namespaces[device].netlink.change(_device_up(device))
        self._write_wishes(tick)
        self._opened_s[opening] = self._clock.now_s()
        self._process.ring()
        if self._window is WindowMode.DOWN:
            for device in closing.tolist():
                self.namespaces[device].netlink.change([links.set_down(DEVICE_INDEX)])
        self._open = tick.is_open.copy()
        self._note_wishes(closing)

    def sample(self) -> LinkSample:
        """Read all links for the accounts; call it once per tick."""
        self._process.check()
        now_s = self._clock.now_s()
        reading = self._shared.read_lanes()
        self._rates.sample(
            np.arange(reading.sent_bytes.size),
            reading.sent_bytes.ravel(),
            reading.backlog_bytes.ravel(),
            now_s,
        )
        self._sample_losses(reading, now_s)
        devices = np.arange(len(self._open))
        return LinkSample(devices, *(_sample(reading, direction) for direction in Direction))

    def next_guard_s(self) -> float | None:
        """Return the monotonic second at which check_guards is due; None if nothing waits."""
        return self._leaks.next_due_s()

    def check_guards(self) -> None:
        """Start the leak count of links whose guard time after closing is over."""
        up, down = self._through()
        for device in self._leaks.due(self._clock.now_s()):
            self._leaks.begin(device, int(up[device]), int(down[device]))

    def resume_fileno(self) -> int:
        """Return a descriptor that becomes readable when a reopened uplink has resumed."""
        return self._process.resumed_fileno()

    def drain_resumes(self) -> list[Resume]:
        """Return the resumptions seen since the last call; never waits."""
        self._process.clear_resumed()
        resumed_s = self._shared.resumed_s.copy()
        # One that was not fetched before the next opening belongs to no known opening any more.
        new = (resumed_s != self._resumed_s) & (resumed_s >= self._opened_s)
        self._resumed_s = resumed_s
        return [
            Resume(device, float(self._opened_s[device]), float(waited_s))
            for device, waited_s in enumerate(resumed_s - self._opened_s)
            if new[device]
        ]

    def counters(self) -> LinkCounters:
        """Return all counts since the start."""
        reading = self._shared.read_lanes()
        self._update_leaks(range(len(self._open)))
        leaked = (self._leaks.leaked_up, self._leaks.leaked_down)
        return LinkCounters(
            *(self._direction(reading, direction, leaked[direction]) for direction in Direction)
        )

    def waiting_bytes(self) -> IntArray:
        """Return the layer-2 bytes that wait to be sent, up and down; shape ``(2, devices)``."""
        waiting: IntArray = self._shared.read_lanes().backlog_bytes.sum(axis=-1)
        return waiting

    def class_counters(self) -> ClassCounters:
        """Return what the queue of each packet class has done, over all links."""
        reading = self._shared.read_lanes()
        return ClassCounters(
            sent_bytes=reading.sent_bytes.swapaxes(1, 2),
            sent_packets=reading.sent_packets.swapaxes(1, 2),
            overflowed_packets=reading.overflowed_packets.swapaxes(1, 2),
        )

    def overflowed_packets(self) -> IntArray:
        """Return how many packets found their queue full, shape ``(2, devices, lanes)``."""
        return self._shared.read_lanes().overflowed_packets

    def close(self) -> None:
        """End the relay process, which removes the interfaces, and release every descriptor."""
        self._process.close()
        self._shared.close()
        for namespace in self.namespaces:
            namespace.close()

    def _check(self, tick: LinkTick) -> None:
        _, devices, lanes, _ = self._shared.lanes.shape
        given = (tick.devices, len(tick.up), len(tick.down))
        if given != (devices, lanes, lanes):
            raise ValueError(
                f"a tick of {given[1]} uplink and {given[2]} downlink lanes for {given[0]} devices "
                f"does not fit {devices} links with {lanes}"
            )

    def _write_wishes(self, tick: LinkTick) -> None:
        """Write what open links are to be; closed ones keep all but their gate."""
        is_open = tick.is_open[:, np.newaxis]
        shared = self._shared
        for direction, lanes in ((Direction.UP, tick.up), (Direction.DOWN, tick.down)):
            wished = shared.lanes[direction]
            for number, lane in enumerate(lanes):
                loss = lane.loss
                words = (lane.rate_bps, loss.in_good, loss.in_bad, loss.to_bad, loss.to_good)
                np.copyto(wished[:, number], np.stack(words, axis=-1), where=is_open)
        np.copyto(shared.delay_s, (tick.delay_up_s, tick.delay_down_s), where=tick.is_open)
        np.copyto(shared.jitter_s, (tick.jitter_up_s, tick.jitter_down_s), where=tick.is_open)
        shared.is_open[:] = tick.is_open

    def _note_wishes(self, closing: IntArray) -> None:
        """Tell the accounts what holds from now on."""
        now_s = self._clock.now_s()
        lanes = self._shared.lanes
        rates_bps = np.where(self._open[:, np.newaxis], lanes[..., 0], 0.0).ravel()
        for shaper in np.flatnonzero(rates_bps != self._rates_bps).tolist():
            self._rates.set_rate(shaper, float(rates_bps[shaper]), now_s)
        self._rates_bps = rates_bps
        in_good, in_bad, to_bad, to_good = np.moveaxis(lanes[..., 1:], -1, 0)
        moves = to_bad + to_good
        in_bad_state = np.divide(to_bad, moves, out=np.zeros_like(moves), where=moves > 0)
        mean = in_good + in_bad_state * (in_bad - in_good)
        self._losses.set_probabilities(mean.reshape(-1, mean.shape[-1]).T, now_s)
        self._losses.interrupt(self._ports(closing))
        for device in closing.tolist():
            self._leaks.closed(device, now_s)

    def _sample_losses(self, reading: LaneReading, now_s: float) -> None:
        packets, lost = reading.sent_packets, reading.lost_packets
        ports = np.arange(packets.shape[0] * packets.shape[1])
        arrivals = np.stack([packets.sum(axis=-1).ravel(), lost.sum(axis=-1).ravel()])
        is_open = np.tile(self._open, DIRECTIONS)
        self._losses.sample(ports, is_open, arrivals, packets.reshape(len(ports), -1).T, now_s)

    def _ports(self, devices: IntArray) -> IntArray:
        """Return the loss account's numbers of these devices' two directions."""
        return np.concatenate([devices, devices + len(self._open)])

    def _through(self) -> IntArray:
        """Return the packets that came past the window, shape ``(2, devices)``."""
        through: IntArray = self._shared.read_lanes().sent_packets.sum(axis=-1)
        return through

    def _end_leak_counts(self, opening: IntArray) -> None:
        """Take the last look at links that are still closed."""
        if len(opening):
            self._update_leaks(opening.tolist())
        for device in opening.tolist():
            self._leaks.opened(device)

    def _update_leaks(self, devices: range | list[int]) -> None:
        up, down = self._through()
        for device in devices:
            if self._leaks.counting(device):
                self._leaks.update(device, int(up[device]), int(down[device]))

    def _direction(
        self, reading: LaneReading, direction: Direction, leaked: IntArray
    ) -> DirectionCounters:
        rates, losses = self._rates, self._losses
        shape = reading.sent_bytes.shape

        def of_lanes(values: IntArray) -> IntArray:
            total: IntArray = values.reshape(shape)[direction].sum(axis=-1)
            return total

        ports = slice(direction * shape[1], (direction + 1) * shape[1])
        return DirectionCounters(
            wire_bytes=of_lanes(reading.sent_bytes),
            wire_packets=of_lanes(reading.sent_packets),
            programmed_bytes=rates.programmed_bytes.reshape(shape)[direction].sum(axis=-1),
            achieved_bytes=of_lanes(rates.achieved_bytes),
            stretches=of_lanes(rates.stretches),
            leaked_packets=leaked.copy(),
            arrived_packets=losses.arrived[ports].copy(),
            lost_packets=losses.lost[ports].copy(),
            expected_losses=losses.expected[ports].copy(),
        )


def _sample(reading: LaneReading, direction: Direction) -> DirectionSample:
    sent_bytes, sent_packets, lost_packets, _, backlog_bytes = (
        words[direction].sum(axis=-1) for words in reading
    )
    return DirectionSample(
        sent_bytes=sent_bytes,
        backlog_bytes=backlog_bytes,
        through_packets=sent_packets,
        arrived_packets=sent_packets,
        lost_packets=lost_packets,
    )


def _furnish() -> int:
    """Make the device's interface in the namespace of this thread."""
    apply_settings(_SETTINGS)
    return tun.open_tun("eth0", DEVICE_INDEX)


def _set_up(hub: NetlinkSocket, namespaces: list[NetworkNamespace], window: WindowMode) -> None:
    """Give all interfaces addresses and routes; TUN interfaces have no neighbours to resolve."""
    requests: list[Request] = [links.add_address(links.LOOPBACK_INDEX, SERVER_ADDRESS)]
    for device in range(len(namespaces)):
        index = hub_index(device)
        route = links.add_route(index, device_address(device), SERVER_ADDRESS)
        requests += [tun.bring_up(index), route]
    hub.change(requests)
    for device, namespace in enumerate(namespaces):
        here = [
            links.set_up(links.LOOPBACK_INDEX),
            links.add_address(DEVICE_INDEX, device_address(device)),
            *_device_up(device),
        ]
        if window is WindowMode.DOWN:
            here.append(links.set_down(DEVICE_INDEX))
        namespace.netlink.change(here)


def _device_up(device: int) -> list[Request]:
    route = links.add_route(DEVICE_INDEX, SERVER_ADDRESS, device_address(device))
    return [tun.bring_up(DEVICE_INDEX), route]
