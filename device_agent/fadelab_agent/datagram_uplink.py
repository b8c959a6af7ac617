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
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fadelab_agent.pace import Pace
from fadelab_agent.progress import ProgressWatch
from fadelab_agent.radio import Radio
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.config import StrictModel
from fadelab_proto.datagram import ETHERNET_MTU_BYTES, FRAME_OVERHEAD_BYTES, datagram_bytes

Held = Callable[[], Awaitable[Collection[int]]]
"""Asks the server which packets of the update it holds, by their sequence numbers."""

# A packet's class stands in this byte of its header.
_CLASS_AT = 3

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


class DatagramClassConfig(StrictModel):
    """A packet class that travels as datagrams."""

    name: Literal["update", "sign", "modulus"] = Field(description="Which packets.")
    dscp: int = Field(
        default=0, ge=0, le=63, description="Differentiated-services code point (RFC 2474)."
    )

    @property
    def number(self) -> int:
        """The class as packets' headers have it."""
        return pb.PacketClass.Value(f"PACKET_CLASS_{self.name.upper()}")


class DatagramUplinkConfig(StrictModel):
    """Which packets travel as datagrams, how fast, and how often."""

    classes: tuple[DatagramClassConfig, ...] = Field(min_length=1)
    rate_share: float = Field(
        default=1.0, gt=0, le=1, description="Part of the uplink's rate that datagrams take."
    )
    repeat_rounds: int = Field(
        default=0, ge=0, description="How often what the server misses is sent again; 0 is never."
    )
    settle_s: float = Field(
        default=0.1,
        ge=0,
        description="Seconds that the last datagram gets to arrive, before the server is asked.",
    )
    mtu_bytes: int = Field(
        default=ETHERNET_MTU_BYTES, ge=576, le=65535, description="Of the link to the server."
    )

    @model_validator(mode="after")
    def _each_class_once(self) -> Self:
        names = [one.name for one in self.classes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the packet class '{name}' is listed twice")
        return self


class DatagramTooLongError(ValueError):
    """A packet does not fit into one datagram."""


@dataclass(frozen=True, slots=True)
class DatagramOutcome:
    """What sending an update's datagrams took."""

    packets: int
    """Packets that were sent at least once."""
    unsent: int
    """Packets that the deadline left unsent."""
    repeats: int
    """Datagrams that were sent again."""
    rounds: int
    """Rounds of repeats that were begun."""
    packet_bytes: int
    """Bytes of all datagrams, repeats included: packets with their headers."""
    link_bytes: int
    """The same with the headers of UDP, IP and Ethernet."""
    missing: int | None
    """Packets that the server lacked when it was last asked; None if it never answered."""
    errors: Mapping[str, int]
    """Errors of the network by name. A datagram that this machine refused was sent later; one that
    was refused on its way is lost."""
    in_time: bool
    """Whether the work ended before the deadline."""
    duration_s: float


@dataclass(slots=True)
class _Tally:
    sent: set[int] = field(default_factory=set)
    repeats: int = 0
    rounds: int = 0
    packet_bytes: int = 0
    missing: int | None = None
    errors: Counter[str] = field(default_factory=Counter)

    def note(self, sequence: int, size: int) -> None:
        if sequence in self.sent:
            self.repeats += 1
        self.sent.add(sequence)
        self.packet_bytes += size

    @property
    def datagrams(self) -> int:
        return len(self.sent) + self.repeats


class DatagramSender:
    """Send updates' datagrams to one server.

    The sockets stay unconnected, so they outlive a change of this device's address and a link that
    goes down.

    Args:
        address: the server's IPv4 address and port.
        config: which classes, how fast, how often.
        radio: tells contact and rate.
        clock: paces, and keeps the deadline.
        stall_s: seconds in contact without a datagram sent that are always tolerated.

    """

    def __init__(
        self,
        address: tuple[str, int],
        config: DatagramUplinkConfig,
        *,
        radio: Radio,
        clock: Clock,
        stall_s: float,
    ) -> None:
        self._address = address
        self._config = config
        self._radio = radio
        self._clock = clock
        self._stall_s = stall_s
        self._sockets = {one.number: _open_socket(one.dscp) for one in config.classes}

    async def send(
        self,
        packets: Sequence[bytes],
        *,
        deadline_s: float = math.inf,
        held: Held | None = None,
    ) -> DatagramOutcome:
        """Send the packets of an update that travel as datagrams, in their order.

        Nothing is sent out of contact. With ``held``, the server is asked afterwards, and what it
        lacks is sent again, for the configured number of rounds.

        Args:
            packets: all packets of the update by sequence number; those of other classes are
                left out.
            deadline_s: monotonic second at which to stop, whatever is left.
            held: see there.

        Raises:
            DatagramTooLongError: before anything is sent, if a packet does not fit.
            StalledError: if no datagram could be sent for too long, although in contact.

        """
        mine = [at for at, packet in enumerate(packets) if packet[_CLASS_AT] in self._sockets]
        self._check_sizes(packets[at] for at in mine)
        started_s, tally, in_time = self._clock.now_s(), _Tally(), True
        if mine:
            longest = max(len(packets[at]) for at in mine) + FRAME_OVERHEAD_BYTES
            watch = ProgressWatch(
                self._radio,
                unit_bytes=math.ceil(longest / self._config.rate_share),
                minimum_s=self._stall_s,
                uplink=True,
            )
            work = watch.guard(self._rounds(packets, mine, held, tally, watch))
            in_time = await self._before(deadline_s, work)
        for sock in self._sockets.values():
            tally.errors.update(_reports(sock))
        return DatagramOutcome(
            packets=len(tally.sent),
            unsent=len(mine) - len(tally.sent),
            repeats=tally.repeats,
            rounds=tally.rounds,
            packet_bytes=tally.packet_bytes,
            link_bytes=tally.packet_bytes + FRAME_OVERHEAD_BYTES * tally.datagrams,
            missing=tally.missing,
            errors=dict(tally.errors),
            in_time=in_time,
            duration_s=self._clock.now_s() - started_s,
        )

    def close(self) -> None:
        """Release the sockets."""
        for sock in self._sockets.values():
            sock.close()

    def _check_sizes(self, packets: Iterable[bytes]) -> None:
        limit = datagram_bytes(self._config.mtu_bytes)
        longest = max(map(len, packets), default=0)
        if longest > limit:
            raise DatagramTooLongError(
                f"a packet of {longest} bytes does not fit into a datagram of {limit} bytes "
                f"(an MTU of {self._config.mtu_bytes}): encode the update with smaller payloads"
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

    async def _rounds(
        self,
        packets: Sequence[bytes],
        mine: Sequence[int],
        held: Held | None,
        tally: _Tally,
        watch: ProgressWatch,
    ) -> None:
        await self._pass(packets, mine, tally, watch)
        while held is not None:
            await self._clock.sleep_until(self._clock.now_s() + self._config.settle_s)
            holding = frozenset(await held())
            watch.moved()
            missing = [at for at in mine if at not in holding]
            tally.missing = len(missing)
            if not missing or tally.rounds == self._config.repeat_rounds:
                return
            tally.rounds += 1
            await self._pass(packets, missing, tally, watch)

    async def _pass(
        self,
        packets: Sequence[bytes],
        sequences: Sequence[int],
        tally: _Tally,
        watch: ProgressWatch,
    ) -> None:
        """Send each of these packets once, in contact and at the configured share of the rate."""
        waiting = deque(sequences)
        pace = Pace(self._radio, self._clock, self._config.rate_share)
        while waiting:
            if not self._radio.view.is_open:
                await self._radio.contact()
                pace.restart()
            pause_s = pace.pause_s(len(packets[waiting[0]]))
            if pause_s > 0:
                await self._clock.sleep_until(self._clock.now_s() + pause_s)
            else:
                before = tally.datagrams
                await self._burst(packets, waiting, pace, tally)
                if tally.datagrams > before:
                    watch.moved()

    async def _burst(
        self, packets: Sequence[bytes], waiting: deque[int], pace: Pace, tally: _Tally
    ) -> None:
        """Send as many of the waiting packets as may go now."""
        while waiting and pace.allows(len(packets[waiting[0]])):
            packet = packets[waiting[0]]
            sock = self._sockets[packet[_CLASS_AT]]
            try:
                sock.sendto(packet, self._address)
            except BlockingIOError:
                await _writable(sock)
                return
            except OSError as error:
                self._count(error, sock, tally)
                pace.restart()
                return
            pace.spend(len(packet))
            tally.note(waiting.popleft(), len(packet))

    def _count(self, error: OSError, sock: socket.socket, tally: _Tally) -> None:
        """Count an error that may pass; raise any other."""
        if error.errno == errno.EMSGSIZE:
            raise DatagramTooLongError(
                f"the network carries no datagrams of {self._config.mtu_bytes} bytes: "
                "configure the link's real MTU and encode the update with smaller payloads"
            ) from error
        if error.errno not in _PASSING:
            raise error
        # What was refused on the way is told at the next sending, in place of that one's result.
        tally.errors.update(_reports(sock) or [errno.errorcode[error.errno]])


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
