"""Links measured before a run: rate and delay of a few, by datagrams sent through them."""

import contextlib
import selectors
import socket
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.plan import FRAME_BYTES
from fadelab_emulation.delay_probe import PROBE_FRAME_BYTES, DelayProbe
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss
from fadelab_proto.clock import Clock

_MOST_LINKS = 4
_WARM_UP_S = 0.05
_FLOOD_S = 0.3
_PATIENCE_S = 1.0
_PROBES = 10
_PROBE_GAP_S = 0.01
_DISCARD_PORT = 9
_HEADERS_BYTES = 42
_SMALLEST_BYTES, _LARGEST_BYTES = 58, 1472
_PACKETS_PER_FLOOD = 60
_OFFERED = 1.25
"""Offered over programmed rate."""
_HEAD_START_BYTES, _HEAD_START_S = 6 * FRAME_BYTES, 0.004
"""Sent at once at the beginning, so that the shaper's burst is used up and its queue not empty."""
_REFILL_S = 0.002
_SILENCE_S = 0.15
_MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class LinkCalibration:
    """One link's measurement in one direction."""

    device: int
    direction: str
    programmed_bps: float
    achieved_bps: float
    """Layer-2 bits that crossed the saturated link per second."""
    programmed_delay_s: float
    achieved_delay_s: float | None
    """Median of the probes' delays; None if none came through. It holds up to the transmission
    time: a shaper's burst lets a lone packet pass at once, a relay takes the time it needs."""
    transmission_s: float
    """Time that a probe takes at the programmed rate."""

    def as_event(self) -> dict[str, float | int | str | None]:
        """Return the fields for the event log."""
        return asdict(self)


def calibrate_links(backend: LinkBackend, first: LinkTick, clock: Clock) -> list[LinkCalibration]:
    """Measure up to four links at their first tick's rates and delays; all links end up closed.

    Links are taken evenly from the slowest to the fastest uplink. Losses are left out: too few
    packets fit into a third of a second to tell a probability.
    """
    chosen = _spread(first.rate_up_bps)
    is_open = np.zeros(first.devices, dtype=np.bool_)
    is_open[chosen] = True
    none = PacketLoss.independent(np.zeros(first.devices))
    up, down = (
        (Lane(np.sum([lane.rate_bps for lane in lanes], axis=0), none), *_idle(lanes, none))
        for lanes in (first.up, first.down)
    )
    tick = replace(first, up=up, down=down, is_open=is_open)
    backend.apply(tick)
    delays = _delays(backend, chosen, tick, clock)
    rates = _rates(backend, chosen, tick, clock)
    backend.apply(replace(tick, is_open=np.zeros_like(is_open)))
    programmed = {
        "up": (tick.up[0].rate_bps, tick.delay_up_s),
        "down": (tick.down[0].rate_bps, tick.delay_down_s),
    }
    return [
        LinkCalibration(
            device=device,
            direction=direction,
            programmed_bps=float(rate_bps[device]),
            achieved_bps=rates[device, direction],
            programmed_delay_s=float(delay_s[device]),
            achieved_delay_s=delays.get((device, direction)),
            transmission_s=8 * PROBE_FRAME_BYTES / float(rate_bps[device]),
        )
        for device in chosen
        for direction, (rate_bps, delay_s) in programmed.items()
    ]


def _spread(rate_bps: np.ndarray) -> list[int]:
    order = np.argsort(rate_bps, kind="stable")
    places = np.linspace(0, len(order) - 1, min(_MOST_LINKS, len(order)))
    return sorted({int(order[round(float(place))]) for place in places})


def _idle(lanes: Sequence[Lane], none: PacketLoss) -> tuple[Lane, ...]:
    return tuple(replace(lane, loss=none) for lane in lanes[1:])


def _delays(
    backend: LinkBackend, devices: Sequence[int], tick: LinkTick, clock: Clock
) -> dict[tuple[int, str], float]:
    """Return the median delay of each link and direction from which probes came."""
    probe = DelayProbe(backend.namespaces, backend.server_address)
    found: dict[tuple[int, str], list[float]] = {
        (device, way): [] for device in devices for way in ("up", "down")
    }
    # Interfaces that were just made may lose their first packets: it goes on until all have enough.
    longest_s = float(max(tick.delay_up_s.max(), tick.delay_down_s.max()))
    next_s, give_up_s = clock.now_s(), clock.now_s() + _PATIENCE_S + 2 * longest_s
    while min(map(len, found.values())) < _PROBES and (now_s := clock.now_s()) < give_up_s:
        if now_s >= next_s:
            probe.send(devices)
            next_s = now_s + _PROBE_GAP_S
        probe.wait(max(0.0, next_s - clock.now_s()))
        for sample in probe.drain(devices):
            found[sample.device, "up" if sample.uplink else "down"].append(sample.delay_s)
    probe.close()
    return {key: statistics.median(values) for key, values in found.items() if values}


def _rates(
    backend: LinkBackend, devices: Sequence[int], tick: LinkTick, clock: Clock
) -> dict[tuple[int, str], float]:
    """Return the layer-2 rate of each link and direction while more is offered than it carries."""
    with selectors.DefaultSelector() as sinks:
        floods = [
            _Flood(backend, sinks, device, float(lane.rate_bps[device]), uplink=uplink)
            for device in devices
            for uplink, lane in ((True, tick.up[0]), (False, tick.down[0]))
        ]
        begin_s = clock.now_s()

        def flood_until(end_s: float) -> None:
            while (now_s := clock.now_s()) < end_s:
                for flood in floods:
                    flood.offer(now_s - begin_s)
                _take_in(sinks, _REFILL_S)

        flood_until(begin_s + _WARM_UP_S)
        before, before_s = backend.counters(), clock.now_s()
        flood_until(before_s + _FLOOD_S)
        after, after_s = backend.counters(), clock.now_s()
        # What still waits must be gone before the run: it is not the run's.
        while _take_in(sinks, _SILENCE_S):
            pass
        for flood in floods:
            flood.close()
    seconds = after_s - before_s
    return {
        (device, way): 8.0 * float(late.wire_bytes[device] - early.wire_bytes[device]) / seconds
        for device in devices
        for way, early, late in (("up", before.up, after.up), ("down", before.down, after.down))
    }


def _take_in(sinks: selectors.BaseSelector, timeout_s: float) -> bool:
    """Read what arrives at the floods' ends; return whether anything did within the time."""
    ready = sinks.select(timeout_s)
    for key, _ in ready:
        key.data()
    return bool(ready)


class _Flood:
    """Offers one direction of a link a little more than it carries, and takes in what arrives."""

    def __init__(
        self,
        backend: LinkBackend,
        sinks: selectors.BaseSelector,
        device: int,
        rate_bps: float,
        *,
        uplink: bool,
    ) -> None:
        there = backend.namespaces[device]
        at_device = there.run(lambda: _connected(backend.server_address))
        at_server = _datagram_socket()
        at_server.bind((backend.server_address, 0))
        at_server.connect(at_device.getsockname())
        at_device.connect(at_server.getsockname())
        self._sender, self._sink = (at_device, at_server) if uplink else (at_server, at_device)
        frame_bytes = rate_bps * _FLOOD_S / 8 / _PACKETS_PER_FLOOD
        size = min(_LARGEST_BYTES, max(_SMALLEST_BYTES, round(frame_bytes) - _HEADERS_BYTES))
        self._datagram = bytes(size)
        self._frames_per_s = _OFFERED * rate_bps / 8 / (size + _HEADERS_BYTES)
        head_start_bytes = _HEAD_START_BYTES + rate_bps / 8 * _HEAD_START_S
        self._head_start = round(head_start_bytes / (size + _HEADERS_BYTES))
        self._sent = 0
        sinks.register(self._sink, selectors.EVENT_READ, self._drain)

    def offer(self, elapsed_s: float) -> None:
        """Send what is due ``elapsed_s`` after the beginning, as far as there is room for it."""
        due = self._head_start + round(self._frames_per_s * elapsed_s)
        with contextlib.suppress(OSError):
            while self._sent < due:
                self._sender.send(self._datagram)
                self._sent += 1

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(_MOST_AT_ONCE):
                self._sink.recv(_LARGEST_BYTES)

    def close(self) -> None:
        """Close both ends."""
        self._sender.close()
        self._sink.close()


def _datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def _connected(address: str) -> socket.socket:
    """Return a socket bound to the address that looks at ``address``."""
    made = _datagram_socket()
    made.connect((address, _DISCARD_PORT))
    return made
