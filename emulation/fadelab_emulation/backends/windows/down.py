"""Down: the device's interface goes down, and its routes with it."""

from collections.abc import Sequence

from fadelab_emulation.backends.topology import Star, open_gates
from fadelab_emulation.backends.windows.base import Passed
from fadelab_emulation.backends.windows.counting import crossed
from fadelab_emulation.namespaces import Setting
from fadelab_emulation.netlink import links


class DownWindow:
    """Programs on the device get errors at once; the server's end only loses its carrier.

    What waits in either queue is lost.
    """

    settings: tuple[Setting, ...] = ()

    def __init__(self, star: Star) -> None:
        self._star = star
        for device in range(len(star.ends)):
            self.renew(device)

    def open(self, device: int) -> None:
        """Bring the interface up and give it back the neighbour and the route that it lost."""
        end = self._star.ends[device]
        restored = [links.set_up(end.index), *self._star.device_routes(device)]
        end.namespace.netlink.change(restored)

    def close(self, device: int) -> None:
        """Take the interface down."""
        end = self._star.ends[device]
        end.namespace.netlink.change([links.set_down(end.index)])

    def renew(self, device: int) -> None:
        """Take the new interface down; the gate is no obstacle from then on."""
        self.close(device)
        open_gates(self._star, device)

    def passed(self, devices: Sequence[int]) -> list[Passed]:
        """Return how many packets crossed the link."""
        return crossed(self._star, devices)

    def release(self) -> None:
        """Release nothing."""
