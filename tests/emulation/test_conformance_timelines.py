"""Uploads over random timelines take as long as the formula twin says, on every back-end."""

import contextlib
import select
import socket
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pytest
from conformance.traffic import now_s, stamp_arrivals, stamp_s
from conformance.variants import IS_SLOW, SEED, make, need, take_precedence
from sandboxed import in_sandbox, tcp_pair

from fadelab_emulation.achieved import AchievedWriter
from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.choice import Variant
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import BoolArray, FloatArray, LinkTick, plain_tick
from fadelab_emulation.schedule import ScheduleReader, ScheduleWriter
from fadelab_emulation.tick_loop import TickLoop
from fadelab_emulation.timeline.formula_twin import TCP, FormulaTwin
from fadelab_emulation.timeline.link_track import LinkTrack
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog

pytestmark = [pytest.mark.conformance, pytest.mark.namespaces]

_LINKS = 10
_TICK_S = 0.1
_TICKS = 160
_SLOWEST_BPS, _FASTEST_BPS = 0.5e6, 20e6
_FEWEST_PACKETS, _MOST_PACKETS = 51, 600
_SHORTEST_OUTAGE_S = 0.3
_AWAKE_FOR_BYTES = 1 << 15


def timelines() -> tuple[FloatArray, BoolArray]:
    """Return rates and contact windows, both of shape ``(ticks, links)``.

    Rates wander: every 0.2 to 1 s each is at most doubled or halved. A step may take effect one
    packet of the old rate late, which is so never more than two of the new.
    """
    draw = np.random.default_rng(SEED)
    rates_bps = np.zeros((_TICKS, _LINKS))
    is_open = np.ones((_TICKS, _LINKS), dtype=np.bool_)
    for link in range(_LINKS):
        tick, rate_bps = 0, np.exp(draw.uniform(np.log(_SLOWEST_BPS), np.log(_FASTEST_BPS)))
        while tick < _TICKS:
            lasts = int(draw.integers(2, 11))
            rates_bps[tick : tick + lasts, link] = rate_bps
            rate_bps = np.clip(rate_bps * 2 ** draw.uniform(-1, 1), _SLOWEST_BPS, _FASTEST_BPS)
            tick += lasts
        tick = int(draw.integers(10, 30))
        while tick < _TICKS:
            lasts = int(draw.integers(round(_SHORTEST_OUTAGE_S / _TICK_S), 15))
            is_open[tick : tick + lasts, link] = False
            tick += lasts + int(draw.integers(15, 40))
    return rates_bps, is_open


class GivenTicks:
    """A timeline that is known from the beginning; its last state holds on."""

    def __init__(self, rates_bps: FloatArray, is_open: BoolArray) -> None:
        self._rates_bps, self._is_open = rates_bps, is_open
        self._index = 0

    def step(self) -> LinkTick:
        row = min(self._index, len(self._rates_bps) - 1)
        rates_bps = self._rates_bps[row]
        tick = plain_tick(
            rates_bps,
            rates_bps,
            index=self._index,
            t_s=self._index * _TICK_S,
            is_open=self._is_open[row],
        )
        self._index += 1
        return tick

    def set_uplink_power(self, device: int, power_w: float) -> None:
        raise ValueError(f"device {device} cannot have {power_w} W")


class Upload(NamedTuple):
    """One message over one link."""

    link: int
    packets: int
    start_s: float
    """When it was offered, in seconds of the timeline."""
    took_s: float
    twin_s: float
    """How long it takes by the formula."""
    at_an_edge: bool
    """By the formula, five per cent more or less of it decide whether it gets through before an
    outage or after it: whichever it does, it may."""

    @property
    def excess(self) -> float:
        """How much longer it took, as a share of the formula's time."""
        return self.took_s / self.twin_s - 1


class Uploader:
    """Sends messages over one connection, each some time after the one before has arrived."""

    def __init__(self, backend: LinkBackend, link: int) -> None:
        self._device, self._server = tcp_pair(backend, link)
        self._device.settimeout(None)
        self._server.settimeout(None)
        stamp_arrivals(self._server)
        self._draw = np.random.default_rng([SEED, link])
        self._coming: SimpleQueue[int] = SimpleQueue()
        self._arrived_s: SimpleQueue[float] = SimpleQueue()
        self.sent: list[tuple[int, float, float]] = []
        """Packets, when they were offered, and how long it took until the last one arrived."""
        Thread(target=self._receive, daemon=True).start()
        self.upload(_MOST_PACKETS)
        self.sent.clear()

    def run(self, start_s: float) -> None:
        """Upload from the timeline's beginning to its end."""
        time.sleep(max(0.0, start_s - now_s()))
        while now_s() < start_s + _TICKS * _TICK_S:
            time.sleep(self._draw.uniform(0.02, 0.2))
            packets = self._draw.uniform(np.log(_FEWEST_PACKETS), np.log(_MOST_PACKETS))
            self.upload(round(np.exp(packets)))

    def upload(self, packets: int) -> None:
        message = bytes(packets * TCP.payload_bytes)
        self._coming.put(len(message))
        start_s = now_s()
        self._device.sendall(message)
        self.sent.append((packets, start_s, self._arrived_s.get() - start_s))

    def _receive(self) -> None:
        there = select.poll()
        there.register(self._server, select.POLLIN)
        while True:
            missing = self._coming.get()
            while missing:
                # Nobody needs to be awake for every packet. Only poll may wait like this: a reader
                # who has already taken some is not awakened before this much more is there.
                least = min(missing, _AWAKE_FOR_BYTES)
                self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
                there.poll()
                data, ancillary, _, _ = self._server.recvmsg(missing, 64, socket.MSG_DONTWAIT)
                missing -= len(data)
            self._arrived_s.put(stamp_s(ancillary))


@cache
def uploads(variant: Variant) -> list[Upload]:
    """Return the uploads that were through before the timelines ended."""
    need(variant)
    with tempfile.TemporaryDirectory() as folder:
        sent, start_s = in_sandbox(measure_uploads, variant, Path(folder))
        reader = ScheduleReader(Path(folder) / "links.schedule")
        tracks = [LinkTrack.of_reader(reader, link, uplink=True) for link in range(_LINKS)]
    return [
        held_against(FormulaTwin(tracks[link]), link, packets, offered_s - start_s, took_s)
        for link, own in enumerate(sent)
        for packets, offered_s, took_s in own
        if offered_s + took_s < start_s + _TICKS * _TICK_S
    ]


def held_against(
    twin: FormulaTwin, link: int, packets: int, start_s: float, took_s: float
) -> Upload:
    messages = packets * TCP.payload_bytes * np.array([0.95, 1.0, 1.05])
    less_s, twin_s, more_s = twin.transfer_end_s(messages, np.full(3, start_s)) - start_s
    at_an_edge = bool(more_s - less_s > _SHORTEST_OUTAGE_S)
    return Upload(link, packets, start_s, took_s, float(twin_s), at_an_edge)


def measure_uploads(
    variant: Variant, folder: Path
) -> tuple[list[list[tuple[int, float, float]]], float]:
    """Have the emulator's own loop carry the timelines out and record them; return the uploads of
    each link and when the timelines began."""
    take_precedence()
    rates_bps, is_open = timelines()
    queues = [QueueSizes.for_rates(mean, mean) for mean in rates_bps.mean(axis=0).tolist()]
    backend = make(variant, LinkPlan(queues))
    clock = SystemClock()
    with (
        contextlib.closing(AchievedWriter(folder / "links.achieved")) as achieved,
        ScheduleWriter(folder / "links.schedule", _LINKS, _TICK_S, SEED) as schedule,
        EventLog(folder, "emulator", "0", clock) as log,
    ):
        loop = TickLoop(
            GivenTicks(rates_bps, is_open),
            backend,
            schedule,
            achieved,
            clock=clock,
            log=log,
            on_tick=lambda tick: None,
            on_counters=lambda counters: None,
        )
        driving = Thread(target=loop.run)
        driving.start()
        uploaders = [Uploader(backend, link) for link in range(_LINKS)]
        begin_s = clock.now_s() + 0.5
        start_s = now_s() + begin_s - clock.now_s()
        loop.begin(begin_s)
        for uploader in uploaders:
            Thread(target=uploader.run, args=(start_s,), daemon=True).start()
        time.sleep(start_s - now_s() + _TICKS * _TICK_S)
        loop.stop()
        driving.join()
    return [list(uploader.sent) for uploader in uploaders], start_s


on_each = pytest.mark.parametrize(
    "variant", [Variant.LITE_CBPF, Variant.NETEM, Variant.RELAY], ids=str
)


@on_each
def test_uploads_take_as_long_as_the_formula_says(
    variant: Variant, record_property: Callable[[str, Any], None]
) -> None:
    found = uploads(variant)
    excess = np.array([one.excess for one in found if not one.at_an_edge])
    record_property("uploads", len(excess))
    record_property("at_an_edge", len(found) - len(excess))
    record_property("excess", np.quantile(excess, (0, 0.05, 0.5, 0.95, 1)).round(4).tolist())
    assert len(excess) > 100
    assert (np.abs(excess) <= 0.05).mean() >= (0.8 if IS_SLOW else 0.9)


@on_each
@pytest.mark.parametrize("link", range(_LINKS))
def test_each_timelines_uploads_together_take_as_long_as_the_formula_says(
    variant: Variant, link: int, record_property: Callable[[str, Any], None]
) -> None:
    own = [one for one in uploads(variant) if one.link == link and not one.at_an_edge]
    excess = sum(one.took_s for one in own) / sum(one.twin_s for one in own) - 1
    record_property("excess", excess)
    assert abs(excess) <= 0.05
