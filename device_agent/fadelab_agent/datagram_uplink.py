"""Sending packets that may be lost: as datagrams, at the link's rate, once or until a deadline.

TCP finds out what a link carries by overfilling it; a datagram that overfills it is lost. So the
sender paces itself to the rate that the modem reports, and asks the kernel to say which datagrams
it had no room for: those have not left, and are sent a moment later.
"""

import asyncio
import errno
import math
import socket
import struct
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fadelab_agent.pace import Pace
from fadelab_agent.progress import ProgressWatch
from fadelab_agent.radio import Radio
from fadelab_proto.clock import Clock
from fadelab_proto.datagram import ETHERNET_MTU_BYTES, FRAME_OVERHEAD_BYTES, datagram_bytes
from fadelab_proto.packet import CLASS_OFFSET, class_name

Held = Callable[[], Awaitable[Collection[int]]]
"""Asks the server which packets of the update it holds, by their sequence numbers."""

# Linux's numbers, which the socket module lacks (linux/in.h, linux/errqueue.h).
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DO = 2
_IP_RECVERR = 11
_REPORT = struct.Struct("=I")
_REPORT_BYTES = 512

_PASSING = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOBUFS,
        errno.EADDRNOTAVAIL,
        errno.EPERM,
    }
)
"""Errors of a link that is closed, of a queue that is full, of a server that is not there yet."""


class DatagramTooLongError(ValueError):
    """A packet does not fit into one datagram."""


@dataclass(frozen=True, slots=True)
class DatagramTerms:
    """How the datagrams of one packet class are sent."""

    packet_class: int
    dscp: int = 0
    rate_share: float = 1.0
    """Part of the uplink's rate."""
    repeats: int = 0
    """Rounds in which what the server misses is sent again."""
    settle_s: float = 0.1
    """What the last datagram gets to arrive, before the server is asked."""
    mtu_bytes: int = ETHERNET_MTU_BYTES


@dataclass(slots=True)
class DatagramTally:
    """What sending the datagrams of one class of an update took; it grows while they are sent."""

    sent: set[int] = field(default_factory=set)
    """Packets that were sent at least once."""
    unsent: int = 0
    """Packets that the deadline left unsent."""
    repeats: int = 0
    """Datagrams that were sent again."""
    rounds: int = 0
    """Rounds of repeats that were begun."""
    packet_bytes: int = 0
    """Bytes of all datagrams, repeats included: packets with their headers."""
    missing: int | None = None
    """Packets that the server lacked when it was last asked; None if it never answered."""
    errors: Counter[str] = field(default_factory=Counter)
    """Errors of the network by name. A datagram that this machine refused was sent later; one that
    was refused on its way is lost."""
    in_time: bool = True
    """Whether the work ended before the deadline."""
    first_s: float | None = None
    """Monotonic second at which the first one was about to be sent."""

    @property
    def datagrams(self) -> int:
        """Datagrams that were sent, repeats included."""
        return len(self.sent) + self.repeats

    @property
    def link_bytes(self) -> int:
        """Bytes of all datagrams with the headers of UDP, IP and Ethernet."""
        return self.packet_bytes + FRAME_OVERHEAD_BYTES * self.datagrams

    def note(self, sequence: int, size: int) -> None:
        """Count a datagram."""
        if sequence in self.sent:
            self.repeats += 1
        self.sent.add(sequence)
        self.packet_bytes += size


def as_event(tallies: Mapping[int, DatagramTally]) -> dict[str, Any]:
    """Return fields of an ``upload_ended`` event: what was sent as datagrams, by packet class."""
    own = [tallies[number] for number in sorted(tallies)]
    return {
        "datagram_classes": [class_name(number) for number in sorted(tallies)],
        "datagram_class_packets": [len(tally.sent) for tally in own],
        "datagram_class_repeats": [tally.repeats for tally in own],
        "datagram_packets": sum(len(tally.sent) for tally in own),
        "datagram_repeats": sum(tally.repeats for tally in own),
        "datagram_bytes": sum(tally.packet_bytes for tally in own),
        "datagrams_in_time": all(tally.in_time for tally in own),
        "datagram_errors": dict(sum((tally.errors for tally in own), Counter())),
    }


class DatagramSender:
    """Send one packet class's datagrams to one server.

    The socket stays unconnected, so it outlives a change of this device's address and a link that
    goes down.

    Args:
        address: the server's IPv4 address and port.
        terms: which class, how fast, how often.
        radio: tells contact and rate.
        clock: paces, and keeps the deadline.
        stall_s: seconds in contact without a datagram sent that are always tolerated.

    """

    def __init__(
        self,
        address: tuple[str, int],
        terms: DatagramTerms,
        *,
        radio: Radio,
        clock: Clock,
        stall_s: float,
    ) -> None:
        self._address = address
        self._terms = terms
        self._radio = radio
        self._clock = clock
        self._stall_s = stall_s
        self._socket = _open_socket(terms.dscp)
        self.fixed_rate_bps: float | None = None
        """Layer-2 rate to keep to; the configured share of the radio's rate without one."""

    async def send(
        self,
        packets: Sequence[bytes],
        tally: DatagramTally,
        *,
        deadline_s: float = math.inf,
        held: Held | None = None,
        skip: Collection[int] = (),
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        """Send the packets of an update that are of this class, in their order.

        Nothing is sent out of contact, and nothing twice, however often this is called with the
        same tally. With ``held``, the server is asked afterwards, and what it lacks is sent again,
        for the configured number of rounds.

        Args:
            packets: all packets of the update by sequence number; those of other classes are
                left out.
            tally: counts what is done, also if this is cancelled.
            deadline_s: monotonic second at which to stop, whatever is left.
            held: see there.
            skip: packets that the server holds already.
            on_sent: called whenever some were sent.

        Raises:
            DatagramTooLongError: before anything is sent, if a packet does not fit.
            StalledError: if no datagram could be sent for too long, although in contact.

        """
        own = self._terms.packet_class
        mine = [at for at, packet in enumerate(packets) if packet[CLASS_OFFSET] == own]
        self._check_sizes(packets[at] for at in mine)
        tally.in_time = not mine or self._clock.now_s() < deadline_s
        if mine and tally.in_time:
            longest = max(len(packets[at]) for at in mine) + FRAME_OVERHEAD_BYTES
            watch = ProgressWatch(
                self._radio,
                unit_bytes=math.ceil(longest / self._terms.rate_share),
                minimum_s=self._stall_s,
                uplink=True,
            )
            job = _Job(packets, mine, tally, watch, on_sent)
            work = watch.guard(self._rounds(job, frozenset(skip), held))
            try:
                tally.in_time = await self._before(deadline_s, work)
            finally:
                tally.errors.update(_reports(self._socket))
        tally.unsent = sum(at not in tally.sent and at not in skip for at in mine)

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def _check_sizes(self, packets: Iterable[bytes]) -> None:
        limit = datagram_bytes(self._terms.mtu_bytes)
        longest = max(map(len, packets), default=0)
        if longest > limit:
            raise DatagramTooLongError(
                f"a packet of {longest} bytes does not fit into a datagram of {limit} bytes "
                f"(an MTU of {self._terms.mtu_bytes}): encode the update with smaller payloads"
            )

    async def _before(self, deadline_s: float, work: Coroutine[Any, Any, None]) -> bool:
        """Run ``work`` until the deadline; return whether it ended by itself."""
        tasks = [asyncio.ensure_future(work)]
        if deadline_s < math.inf:
            tasks.append(asyncio.ensure_future(self._clock.sleep_until(deadline_s)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = tasks[0].done()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if ended:
            tasks[0].result()
        return ended

    async def _rounds(self, job: "_Job", skip: Collection[int], held: Held | None) -> None:
        tally = job.tally
        await self._pass(job, [at for at in job.mine if at not in tally.sent and at not in skip])
        while held is not None:
            await self._clock.sleep_until(self._clock.now_s() + self._terms.settle_s)
            holding = frozenset(await held())
            job.watch.moved()
            missing = [at for at in job.mine if at not in holding]
            tally.missing = len(missing)
            if not missing or tally.rounds >= self._terms.repeats:
                return
            tally.rounds += 1
            await self._pass(job, missing)

    async def _pass(self, job: "_Job", sequences: Sequence[int]) -> None:
        """Send each of these packets once, in contact and at the configured share of the rate."""
        waiting = deque(sequences)
        share, fixed_bps = self._terms.rate_share, self.fixed_rate_bps
        pace = Pace(self._radio, self._clock, share, fixed_bps=fixed_bps)
        while waiting:
            if not self._radio.view.is_open:
                await self._radio.contact()
                pace.restart()
            pause_s = pace.pause_s(len(job.packets[waiting[0]]))
            if pause_s > 0:
                await self._clock.sleep_until(self._clock.now_s() + pause_s)
            else:
                before = job.tally.datagrams
                await self._burst(job, waiting, pace)
                if job.tally.datagrams > before:
                    job.watch.moved()
                    job.on_sent()

    async def _burst(self, job: "_Job", waiting: deque[int], pace: Pace) -> None:
        """Send as many of the waiting packets as may go now."""
        while waiting and pace.allows(len(job.packets[waiting[0]])):
            packet = job.packets[waiting[0]]
            try:
                self._socket.sendto(packet, self._address)
            except BlockingIOError:
                await _writable(self._socket)
                return
            except OSError as error:
                self._count(error, job.tally)
                pace.restart()
                return
            pace.spend(len(packet))
            job.tally.note(waiting.popleft(), len(packet))

    def _count(self, error: OSError, tally: DatagramTally) -> None:
        """Count an error that may pass; raise any other."""
        if error.errno == errno.EMSGSIZE:
            raise DatagramTooLongError(
                f"the network carries no datagrams of {self._terms.mtu_bytes} bytes: "
                "configure the link's real MTU and encode the update with smaller payloads"
            ) from error
        if error.errno not in _PASSING:
            raise error
        # What was refused on the way is told at the next sending, in place of that one's result.
        tally.errors.update(_reports(self._socket) or [errno.errorcode[error.errno]])


@dataclass(frozen=True, slots=True)
class _Job:
    packets: Sequence[bytes]
    mine: Sequence[int]
    tally: DatagramTally
    watch: ProgressWatch
    on_sent: Callable[[], None]


def _open_socket(dscp: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(0.0)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
    # Without it a full queue drops datagrams silently, and errors from the path are not told.
    sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    # A datagram in fragments is lost with any of them.
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
    return sock


async def _writable(sock: socket.socket) -> None:
    """Return once the socket's buffer has room again."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


def _reports(sock: socket.socket) -> list[str]:
    """Take the errors that routers and hosts have reported; return their names."""
    names: list[str] = []
    while True:
        try:
            _, ancillary, _, _ = sock.recvmsg(0, _REPORT_BYTES, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            return names
        for _, _, content in ancillary:
            (number,) = _REPORT.unpack_from(content)
            names.append(errno.errorcode.get(number, str(number)))
