"""Hold: packets wait where they are sent, at a gate in front of the shaper."""

from collections.abc import Callable, Sequence

from fadelab_emulation.backends import topology
from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.backends.nudge import Nudger
from fadelab_emulation.backends.topology import Star
from fadelab_emulation.backends.windows.base import Passed
from fadelab_emulation.backends.windows.counting import crossed
from fadelab_emulation.namespaces import Setting
from fadelab_emulation.netlink import traffic


class HoldWindow:
    """A token bucket that nothing can pass while closed, nudged when it opens.

    Queues keep their packets and senders notice nothing but a long delay.
    """

    settings: tuple[Setting, ...] = ()

    def __init__(self, star: Star) -> None:
        # Links are made with their gates closed.
        self._star = star
        self._uplink_nudgers = [self._uplink_nudger(device) for device in range(len(star.ends))]
        self._downlink_nudger = Nudger(topology.SHAPER)

    def open(self, device: int) -> None:
        """Open both gates and have them look at their queues at once."""
        self._set_gate(device, Direction.DOWN, topology.gate_open)
        self._downlink_nudger.nudge(self._star.layout.device_address(device))
        self._set_gate(device, Direction.UP, topology.gate_open)
        self._uplink_nudgers[device].nudge(self._star.server_address)

    def close(self, device: int) -> None:
        """Close both gates."""
        self._set_gate(device, Direction.UP, topology.gate_closed)
        self._set_gate(device, Direction.DOWN, topology.gate_closed)

    def renew(self, device: int) -> None:
        """Nudge from where the device is now."""
        self._uplink_nudgers[device].close()
        self._uplink_nudgers[device] = self._uplink_nudger(device)

    def passed(self, devices: Sequence[int]) -> list[Passed]:
        """Return how many packets crossed the link."""
        return crossed(self._star, devices)

    def release(self) -> None:
        """Close the nudging sockets."""
        self._downlink_nudger.close()
        for nudger in self._uplink_nudgers:
            nudger.close()

    def _uplink_nudger(self, device: int) -> Nudger:
        return self._star.ends[device].namespace.run(lambda: Nudger(topology.SHAPER))

    def _set_gate(self, device: int, direction: Direction, state: Callable[[int], bytes]) -> None:
        netlink, index = self._star.sender(device, direction)
        netlink.change([traffic.change_tbf(state(index))])
