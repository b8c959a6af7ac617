"""What was made in a namespace that is not ours, in words that outlive the maker, and its removal.

Removal may come twice, half-way through making, or after somebody else has changed things: it
takes away what is there and is ours, and nothing else.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from fadelab_emulation.attach.interfaces import (
    Interface,
    list_disciplines,
    list_interfaces,
    remove_hooks,
    remove_shaper,
    set_bundled_frames,
    set_queue_packets,
)
from fadelab_emulation.backends import topology
from fadelab_emulation.netlink.filters import CLSACT_HANDLE
from fadelab_emulation.netlink.links import delete_link
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_proto.config import StrictModel

ALIAS = "fadelab emulate"
"""How the alias of every interface begins that we make in networks of others."""


class NamespaceName(StrictModel):
    """A network namespace, for finding it again."""

    label: str
    path: Path
    identity: tuple[int, int] = Field(description="Device and inode number.")


class MadeLink(StrictModel):
    """The end of a veth pair that we made; its other end goes with it."""

    kind: Literal["made"] = "made"
    place: NamespaceName
    index: int
    name: str

    def undo(self, netlink: NetlinkSocket) -> bool:
        """Remove it if it is there; say whether it was."""
        return _delete(netlink, self.index, self.name)


class ShapedInterface(StrictModel):
    """An interface that was there before, and the IFB that shapes what arrives on it."""

    kind: Literal["shaped"] = "shaped"
    place: NamespaceName
    index: int
    name: str
    queue_packets: int = Field(description="Its queue length (txqueuelen) before.")
    bundled_frames: int = Field(description="Its gso_max_segs before.")
    ifb_index: int
    ifb_name: str

    def undo(self, netlink: NetlinkSocket) -> bool:
        """Give it its own queueing discipline back; say whether there was anything of ours."""
        found = False
        if any(one.index == self.index for one in list_interfaces(netlink)):
            there = list_disciplines(netlink, self.index)
            if any(one.kind == "tbf" and one.handle == topology.GATE for one in there):
                netlink.change([remove_shaper(self.index)])
                found = True
            # Only with an IFB of ours can the hook be ours: it was refused if it had been there.
            if _find(netlink, self.ifb_index, self.ifb_name) is not None and any(
                one.handle == CLSACT_HANDLE for one in there
            ):
                netlink.change([remove_hooks(self.index)])
            netlink.change(
                [
                    set_queue_packets(self.index, self.queue_packets),
                    set_bundled_frames(self.index, self.bundled_frames),
                ]
            )
        return _delete(netlink, self.ifb_index, self.ifb_name) or found


def _delete(netlink: NetlinkSocket, index: int, name: str) -> bool:
    if _find(netlink, index, name) is None:
        return False
    netlink.change([delete_link(index)])
    return True


def _find(netlink: NetlinkSocket, index: int, name: str) -> Interface | None:
    """Return an interface that we made; one of ours may have been killed before its alias."""
    for one in list_interfaces(netlink):
        if (one.index, one.name) == (index, name) and (
            not one.alias or one.alias.startswith(ALIAS)
        ):
            return one
    return None
