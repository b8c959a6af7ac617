"""What the links carried by the accounts of those at their ends: TCP, interfaces, shapers, probes.

The back-end counts what crosses a link. Here is what should add up to it, and what it is made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fadelab_emulation.backends.base import IntArray, LinkBackend
from fadelab_emulation.backends.topology import DEVICE_INDEX, device_address
from fadelab_emulation.delay_probe import PROBE_FRAME_BYTES
from fadelab_emulation.delay_watch import DelayWatch
from fadelab_emulation.namespaces import run_in_each
from fadelab_emulation.netlink import links
from fadelab_emulation.tcp_watch import TcpWatch
from fadelab_emulation.window import BackendChoice
from fadelab_proto.events import EventLog

_ETHERNET_BYTES = 14
Fields = dict[str, int]


@dataclass(frozen=True, slots=True)
class WatchedEnd:
    """The interface at a device's end of its link."""

    index: int
    address: str
    """As the server sees it."""


class ByteWatch:
    """Counts from its making on, which is to be before the first connection.

    Where the kernel does not tell of TCP connections, an event ``connections_unseen`` says why and
    accounts lack what would be known of them.

    Args:
        backend: the links.
        log: where the event goes.
        delay_watch: what sends probes over the links, if anything does.
        ends: the devices' ends, if they are not those of links in a sandbox.

    """

    def __init__(
        self,
        backend: LinkBackend,
        log: EventLog,
        delay_watch: DelayWatch | None = None,
        ends: Sequence[WatchedEnd] | None = None,
    ) -> None:
        self._backend = backend
        self._delay_watch = delay_watch
        self._tcp: TcpWatch | None = None
        self._ends = ends or [
            WatchedEnd(DEVICE_INDEX, device_address(device))
            for device in range(len(backend.namespaces))
        ]
        addresses = [end.address for end in self._ends]
        try:
            self._tcp = TcpWatch(backend.namespaces, addresses)
        except OSError as error:
            log.write("connections_unseen", reason=str(error))
        self._classes_before = backend.class_counters()
        self._before = self._device_ends()
        self._datagrams_before = self._datagrams()

    def update(self) -> None:
        """Take in what the kernel has told of TCP connections; never waits."""
        if self._tcp is not None:
            self._tcp.update()

    def leave(self, device: int) -> None:
        """Note what a device's end has counted, for it is about to be replaced."""
        self.update()
        self._before[device] -= self._device_end(device)
        self._datagrams_before[device] -= self._device_datagrams(device)

    def arrive(self, device: int) -> None:
        """Go on counting at an end that was just made in another namespace."""
        if self._tcp is not None:
            self._tcp.add(device, self._backend.namespaces[device])
        self._before[device] += self._device_end(device)
        self._datagrams_before[device] += self._device_datagrams(device)

    def accounts(self) -> list[Fields]:
        """Return each device's account in fields of its ``link_account`` event."""
        ends = self._device_ends() - self._before
        waiting = self._backend.waiting_bytes()
        now, before = self._backend.class_counters(), self._classes_before
        overflowed = (now.overflowed_packets - before.overflowed_packets).sum(axis=1)
        probes = np.zeros(len(ends), dtype=np.int64)
        if self._delay_watch is not None:
            probes = self._delay_watch.sent_bytes
        datagrams = self._datagrams() - self._datagrams_before - probes // PROBE_FRAME_BYTES
        found: list[Fields] = []
        for device in range(len(ends)):
            fields: Fields = {"up_datagrams": int(datagrams[device])}
            for way, direction in enumerate(("up", "down")):
                fields |= {
                    f"{direction}_device_end_bytes": int(ends[device, way]),
                    f"{direction}_waiting_bytes": int(waiting[way, device]),
                    f"{direction}_probe_bytes": int(probes[device]),
                    f"{direction}_overflowed_packets": int(overflowed[way, device]),
                }
            found.append(fields)
        if self._tcp is not None:
            for device, fields in enumerate(_tcp_fields(self._tcp)):
                found[device] |= fields
        return found

    def by_class(self) -> list[dict[str, list[int]]]:
        """Return for each device what the queues of its packet classes have done, in their order.

        The default class is the first one. Packets that are then lost on the air count.
        """
        now, before = self._backend.class_counters(), self._classes_before
        sizes = now.sent_bytes - before.sent_bytes
        counts = now.sent_packets - before.sent_packets
        overflowed = now.overflowed_packets - before.overflowed_packets
        return [
            {
                f"{direction}_class_{name}": found[way, :, device].tolist()
                for way, direction in enumerate(("up", "down"))
                for name, found in (
                    ("bytes", sizes),
                    ("packets", counts),
                    ("overflowed", overflowed),
                )
            }
            for device in range(sizes.shape[2])
        ]

    def close(self) -> None:
        """Close all sockets."""
        if self._tcp is not None:
            self._tcp.close()

    def _device_ends(self) -> IntArray:
        """Return layer-2 bytes that left and came to each device's interface."""
        found = [self._device_end(device) for device in range(len(self._ends))]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def _device_end(self, device: int) -> IntArray:
        netlink = self._backend.namespaces[device].netlink
        (answer,) = netlink.query([links.read_counters(self._ends[device].index)])
        found = links.parse_counters(answer)
        # A TUN interface counts packets without the header that the links' rates include.
        extra = _ETHERNET_BYTES if self._backend.name == BackendChoice.RELAY else 0
        return np.array(
            (found.tx_bytes + extra * found.tx_packets, found.rx_bytes + extra * found.rx_packets),
            dtype=np.int64,
        )

    def _datagrams(self) -> IntArray:
        """Return how many datagrams each device has sent, shape ``(devices,)``."""
        return np.array(run_in_each(self._backend.namespaces, _datagrams_sent), dtype=np.int64)

    def _device_datagrams(self, device: int) -> int:
        return self._backend.namespaces[device].run(_datagrams_sent)


def _datagrams_sent() -> int:
    """Return how many UDP datagrams the calling thread's network has taken for sending."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, counts = (line.split() for line in lines if line.startswith("Udp:"))
    return int(counts[names.index("OutDatagrams")])


def _tcp_fields(tcp: TcpWatch) -> list[Fields]:
    up, down = tcp.sent()
    return [
        {"connections": tcp.connections(device), "connections_missed": int(not tcp.is_complete)}
        | sent.event_fields("up_")
        | received.event_fields("down_")
        for device, (sent, received) in enumerate(zip(up, down, strict=True))
    ]
