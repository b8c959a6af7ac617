"""Packets that come as datagrams: a thread receives and checks them, the event loop takes them.

asyncio's own datagram endpoint costs several times as much per packet and falls behind long before
the kernel does. Datagrams know no back-pressure, so whatever cannot be kept is dropped here, and
every drop is counted where it happens: by the kernel at the socket, or at the queue to the loop.
"""

import asyncio
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fadelab_proto.clock import Clock
from fadelab_proto.datagram import datagram_bytes
from fadelab_proto.packet import Packet, PacketError, parse_packet

# At 100 000 packets of an MTU per second the kernel's buffer then bridges a tenth of a second.
_RECEIVE_BUFFER_BYTES = 32 << 20
# Packets that are handed to the loop together: enough that waking it costs nothing by comparison.
_BATCH = 256

# Linux's numbers, which the socket module lacks (asm-generic/socket.h, linux/sock_diag.h).
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8


class ArrivedPacket(NamedTuple):
    """A packet that arrived whole, of this run and of a known device."""

    data: bytes
    """The packet as it came; ``packet.payload`` is a view into it."""
    packet: Packet
    arrived_s: float
    """Monotonic second at which it had been read from the socket."""


Deliver = Callable[[Sequence[ArrivedPacket]], None]
"""Takes packets in the event loop, in the order in which they arrived; must not block or raise."""


@dataclass(frozen=True, slots=True)
class FlowStatistics:
    """What came from one device in one packet class."""

    packets: int
    """Packets that arrived whole, duplicates and those in ``overrun_packets`` included."""
    packet_bytes: int
    """Their bytes: header and payload, without UDP and below."""
    overrun_packets: int
    """Packets among them that were dropped because the event loop was behind."""


@dataclass(frozen=True, slots=True)
class ReceiverStatistics:
    """What became of all datagrams since the start."""

    flows: Mapping[tuple[int, int], FlowStatistics]
    """By device and packet class."""
    damaged_packets: int
    """Datagrams that are not a whole, undamaged packet."""
    unknown_packets: int
    """Packets of another run, or of a device that is not known."""
    socket_drops: int
    """Datagrams that the kernel dropped, nearly always because the socket's buffer was full."""
    receive_buffer_bytes: int
    """Size of that buffer as the kernel accounts it."""


@dataclass(slots=True)
class _Flow:
    packets: int = 0
    packet_bytes: int = 0
    overrun_packets: int = 0


class DatagramReceiver:
    """Receive packets on a UDP address until stopped.

    Args:
        address: IPv4 address and port to listen on; port 0 takes any.
        deliver: gets the packets in the event loop, many at a time.
        run_id: packets of other runs are counted and dropped.
        devices: packets of devices that are not in it are counted and dropped. It is asked from
            the receiving thread and may change all the time: a ``range``, a ``set``.
        clock: tells when packets arrived.
        queue_packets: packets that may wait for the event loop; more are counted and dropped.
        max_datagram_bytes: longer datagrams count as damaged. Together with ``queue_packets`` it
            bounds the memory.

    Raises:
        OSError: if the address cannot be had.

    """

    def __init__(
        self,
        address: tuple[str, int],
        deliver: Deliver,
        *,
        run_id: int,
        devices: Container[int],
        clock: Clock,
        queue_packets: int = 8192,
        max_datagram_bytes: int = datagram_bytes(),
    ) -> None:
        self._deliver = deliver
        self._run_id = run_id
        self._devices = devices
        self._clock = clock
        self._queue_packets = queue_packets
        # One byte more than is allowed tells a datagram that is too long from one that just fits.
        self._read_bytes = max_datagram_bytes + 1
        self._flows: dict[tuple[int, int], _Flow] = {}
        self._damaged = self._unknown = 0
        # Each of the two is written by one thread only; their difference is what waits.
        self._handed = self._taken = 0
        self._batches: deque[Sequence[ArrivedPacket]] = deque()
        self._socket = _listen(address)
        self._stop_end, self._thread_end = socket.socketpair()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that it listens on."""
        host, port = self._socket.getsockname()
        return host, port

    def start(self) -> None:
        """Begin to receive; packets are delivered in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="datagrams", daemon=True)
        self._thread.start()

    def stop(self) -> ReceiverStatistics:
        """Stop receiving, deliver what was received, release the address; return the last counts.

        Call it in the event loop, once. What still waits in the socket is lost.
        """
        self._stopping = True
        self._stop_end.send(b"\0")
        if self._thread is not None:
            self._thread.join()
        while self._batches:
            self._deliver_next()
        statistics = self.statistics()
        for end in (self._socket, self._stop_end, self._thread_end):
            end.close()
        return statistics

    def statistics(self) -> ReceiverStatistics:
        """Return the counts so far; to be asked between start and stop."""
        return ReceiverStatistics(
            flows={
                key: FlowStatistics(flow.packets, flow.packet_bytes, flow.overrun_packets)
                for key, flow in self._flows.copy().items()
            },
            damaged_packets=self._damaged,
            unknown_packets=self._unknown,
            socket_drops=_drops(self._socket),
            receive_buffer_bytes=self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        )

    # -- in the event loop -----------------------------------------------------------------------

    def _deliver_next(self) -> None:
        # Stopping has delivered the batches that were announced to the loop but not yet its turn.
        if self._batches:
            batch = self._batches.popleft()
            self._taken += len(batch)
            self._deliver(batch)

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        poller = select.poll()
        for end in (self._socket, self._thread_end):
            poller.register(end, select.POLLIN)
        while not self._stopping:
            poller.poll()
            while self._receive_batch() and not self._stopping:
                pass

    def _receive_batch(self) -> bool:
        """Read what waits, up to one batch, and hand it over; return whether more may wait."""
        datagrams = self._read()
        arrived = self._sorted_out(datagrams, self._clock.now_s())
        if arrived:
            self._hand_over(arrived)
        return len(datagrams) == _BATCH

    def _read(self) -> list[bytes]:
        receive, most = self._socket.recv, self._read_bytes
        datagrams: list[bytes] = []
        try:
            while len(datagrams) < _BATCH:
                datagrams.append(receive(most))
        except BlockingIOError:
            pass
        return datagrams

    def _sorted_out(self, datagrams: Sequence[bytes], arrived_s: float) -> list[ArrivedPacket]:
        """Return the packets that are to be delivered; count all others.

        One plain loop: at 100 000 packets per second each call in it costs a hundredth of a core.
        """
        room = self._queue_packets - (self._handed - self._taken)
        arrived: list[ArrivedPacket] = []
        for data in datagrams:
            try:
                packet = parse_packet(data)
            except PacketError:
                self._damaged += 1
                continue
            if packet.run_id != self._run_id or packet.device not in self._devices:
                self._unknown += 1
                continue
            key = (packet.device, packet.packet_class)
            flow = self._flows.get(key)
            if flow is None:
                flow = self._flows[key] = _Flow()
            flow.packets += 1
            flow.packet_bytes += len(data)
            if len(arrived) < room:
                arrived.append(ArrivedPacket(data, packet, arrived_s))
            else:
                flow.overrun_packets += 1
        return arrived

    def _hand_over(self, batch: Sequence[ArrivedPacket]) -> None:
        assert self._loop is not None
        self._handed += len(batch)
        self._batches.append(batch)
        self._loop.call_soon_threadsafe(self._deliver_next)


def _listen(address: tuple[str, int]) -> socket.socket:
    """Return a bound socket that does not block, with the largest buffer the machine allows."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except PermissionError:
            # Cut down to net.core.rmem_max without a word.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.settimeout(0.0)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _drops(sock: socket.socket) -> int:
    """Return how many datagrams the kernel dropped at this socket, modulo 2**32."""
    info = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    drops: int = _MEMINFO.unpack(info)[_MEMINFO_DROPS]
    return drops
