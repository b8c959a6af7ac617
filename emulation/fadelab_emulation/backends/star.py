"""A star as the kernel back-end drives it: with its windows, in a sandbox if nothing else is said."""

from collections.abc import Callable, Sequence

from fadelab_emulation.backends.topology import DeviceEnd, Star
from fadelab_emulation.backends.windows.base import Window
from fadelab_emulation.backends.windows.down import DownWindow
from fadelab_emulation.backends.windows.drop import DropWindow
from fadelab_emulation.backends.windows.hold import HoldWindow
from fadelab_emulation.backends.windows.reject import RejectWindow
from fadelab_emulation.namespaces import apply_settings, create_namespaces
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.sandbox import assert_private_namespace
from fadelab_emulation.window import WindowMode

_WINDOWS: dict[WindowMode, Callable[[Star], Window]] = {
    WindowMode.HOLD: HoldWindow,
    WindowMode.REJECT: RejectWindow,
    WindowMode.DROP: DropWindow,
    WindowMode.DOWN: DownWindow,
}


class StarLinks(Star):
    """See :class:`~fadelab_emulation.backends.kernel_links.KernelLinks`."""

    uplinks_arrive_here = True

    def window(self, mode: WindowMode) -> Window:
        """Return what opens and closes the links, once they are made."""
        return _WINDOWS[mode](self)


def private_star(devices: int, given: Sequence[int] | None = None) -> StarLinks:
    """Return a star in a sandbox, its links yet to be made.

    Args:
        devices: how many.
        given: descriptors of the devices' namespaces, where these are not to be made.

    Raises:
        ForeignNamespaceError: outside a sandbox.

    """
    assert_private_namespace()
    settings = apply_settings()
    made = create_namespaces(devices, lambda: None, given)
    star = StarLinks(NetlinkSocket(), [DeviceEnd(namespace) for namespace, _ in made])
    star.settings = settings
    return star
