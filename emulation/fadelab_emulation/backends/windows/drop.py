"""Drop: packets vanish where they arrive, at both ends of the link."""

from collections.abc import Sequence

from fadelab_emulation.backends.impairment.base import Direction, Port
from fadelab_emulation.backends.topology import Star, open_gates
from fadelab_emulation.backends.windows.base import Passed
from fadelab_emulation.namespaces import Setting
from fadelab_emulation.netlink import filters, traffic
from fadelab_emulation.netlink.classic_bpf import Operation, Step
from fadelab_emulation.netlink.message import NetlinkSocket, Request

_PRIORITY = 1
_ATTEMPTS = 5
_DROP_ALL = (Step(Operation.RETURN, filters.DROP),)
_LET_ALL_GO_ON = (Step(Operation.RETURN, filters.GO_ON),)
_Ends = tuple[traffic.ShaperCounters, traffic.ShaperCounters]


class DropWindow:
    """A filter in front of all others at both receiving ends.

    Senders go on sending at the link's rate and learn nothing: a packet dropped where it is sent
    would tell TCP that its own queue is full. Frames still cross the link; what gets through is
    what arrives less what the hook drops while closed.
    """

    settings: tuple[Setting, ...] = ()

    def __init__(self, star: Star) -> None:
        self._star = star
        self._devices = range(len(star.ends))
        self._dropped = {(d, direction): 0 for d in self._devices for direction in Direction}
        """By closed windows, those that are closed now excepted."""
        self._dropped_before: dict[tuple[int, Direction], int] = {}
        """What had been dropped when a window that is closed now was closed."""
        for device in self._devices:
            self.renew(device)

    def open(self, device: int) -> None:
        """Let packets go on."""
        for direction, counters in zip(Direction, self._read([device])[0], strict=True):
            before = self._dropped_before.pop((device, direction))
            self._dropped[device, direction] += counters.dropped_packets - before
        self._move(device, is_open=True)

    def close(self, device: int) -> None:
        """Have packets vanish."""
        self._move(device, is_open=False)
        for direction, counters in zip(Direction, self._read([device])[0], strict=True):
            self._dropped_before[device, direction] = counters.dropped_packets

    def renew(self, device: int) -> None:
        """Have the new link's packets vanish; its hooks have counted nothing so far."""
        for direction in Direction:
            self._dropped[device, direction] = 0
        self.close(device)
        open_gates(self._star, device)

    def passed(self, devices: Sequence[int]) -> list[Passed]:
        """Return how many packets no closed window dropped."""
        return [
            Passed(*(self._let_go(d, *end) for end in zip(Direction, ends, strict=True)))
            for d, ends in zip(devices, self._read(devices), strict=True)
        ]

    def release(self) -> None:
        """Release nothing: filters vanish with their interfaces."""

    def _let_go(self, device: int, direction: Direction, counters: traffic.ShaperCounters) -> int:
        key = (device, direction)
        by_windows = self._dropped[key]
        if key in self._dropped_before:
            by_windows += counters.dropped_packets - self._dropped_before[key]
        return counters.sent_packets - by_windows

    def _move(self, device: int, *, is_open: bool) -> None:
        for direction in Direction:
            port = self._star.port(device, direction)
            port.netlink.change([_judge(port, is_open=is_open)])

    def _read(self, devices: Sequence[int]) -> list[_Ends]:
        """Read the hooks at both ends of links."""
        up = [self._star.port(device, Direction.UP).index for device in devices]
        at_hub = _read_settled(self._star.hub, up)
        ends = [self._star.ends[device] for device in devices]
        at_devices = [_read_settled(end.namespace.netlink, [end.index])[0] for end in ends]
        return list(zip(at_hub, at_devices, strict=True))


def _judge(port: Port, *, is_open: bool) -> Request:
    # The filter stays in place: exchanging programs is quicker than adding and deleting one.
    program = _LET_ALL_GO_ON if is_open else _DROP_ALL
    return filters.set_ingress_filter(
        port.index, _PRIORITY, program, name="window", protocol=filters.ETH_P_ALL
    )


def _read_settled(netlink: NetlinkSocket, indexes: Sequence[int]) -> list[traffic.ShaperCounters]:
    """Read the hooks of interfaces between two packets.

    The kernel counts a packet first and its being dropped a moment later. Two equal readings in a
    row are of the same moment; on a link that is busy all the time, a few attempts must do.
    """
    requests = [filters.read_ingress_hook(index) for index in indexes for _ in range(2)]
    for _ in range(_ATTEMPTS):
        found = [traffic.parse_shaper(answer) for answer in netlink.query(requests)]
        if found[::2] == found[1::2]:
            break
    return found[1::2]
