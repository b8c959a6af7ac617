"""Whether links can be made where the user wants them; asked of all before the first is touched."""

from collections.abc import Sequence

from fadelab_emulation.attach.interfaces import Interface, list_disciplines, list_interfaces
from fadelab_emulation.attach.journal import has_living_owner
from fadelab_emulation.attach.places import Place, RefusedPlaceError
from fadelab_emulation.attach.undo import ALIAS, NamespaceName, ShapedInterface
from fadelab_emulation.netlink.filters import CLSACT_HANDLE
from fadelab_emulation.netlink.links import delete_link
from fadelab_emulation.netlink.message import NetlinkSocket

_MTU_BYTES = 1500
_FIRST_IFB_INDEX = 600_000


def check_machine_is_meant(places: Sequence[Place], *, allow_host: bool) -> None:
    """Raise RefusedPlaceError for the machine's own network unless it is allowed."""
    for place in places:
        if place.is_machines and not allow_host:
            raise RefusedPlaceError(
                f"{place.label} is the machine's own network, on which everything else depends; "
                "if it is meant, say `allow_host: true`"
            )


def check_apart(places: Sequence[Place]) -> None:
    """Raise RefusedPlaceError unless the server and every device have a namespace of their own."""
    seen: dict[tuple[int, int], str] = {}
    for place in places:
        if place.identity in seen:
            raise RefusedPlaceError(
                f"{place.label} and {seen[place.identity]} are one network namespace: the server "
                "and every device need one of their own"
            )
        seen[place.identity] = place.label


def remove_orphans(netlink: NetlinkSocket) -> list[str]:
    """Remove interfaces that bear our alias and whose maker left neither life nor journal."""
    removed: list[str] = []
    for one in list_interfaces(netlink):
        if one.alias.startswith(ALIAS) and not has_living_owner(one.alias):
            netlink.change([delete_link(one.index)])
            removed.append(one.name)
    return removed


def check_name_is_free(label: str, netlink: NetlinkSocket, name: str) -> None:
    """Raise RefusedPlaceError if an interface has this name already."""
    for one in list_interfaces(netlink):
        if one.name == name:
            whose = "not Fadelab's"
            if one.alias.startswith(ALIAS):
                whose = "another `fadelab emulate`'s, which is running"
            raise RefusedPlaceError(
                f"{label} has an interface {name} already, and it is {whose}; choose another name "
                "by `interface:`, or remove it"
            )


def check_interface(place: Place, netlink: NetlinkSocket, name: str) -> ShapedInterface:
    """Return what is to be known of an existing interface in order to shape and restore it.

    Args:
        place: where it is.
        netlink: a socket there.
        name: what it is called.

    Raises:
        RefusedPlaceError: it does not exist, or is not one that can be shaped and restored.

    """
    one = _find(place.label, netlink, name)
    if one.is_loopback:
        raise RefusedPlaceError(
            f"{name} in {place.label} is the loopback interface, which no link ends at; attach to "
            "the interface that leads to the server"
        )
    if one.mtu_bytes > _MTU_BYTES:
        raise RefusedPlaceError(
            f"{name} in {place.label} has an MTU of {one.mtu_bytes} bytes, but links carry at most "
            f"{_MTU_BYTES}; set it by `ip link set {name} mtu {_MTU_BYTES}`"
        )
    for discipline in list_disciplines(netlink, one.index):
        if not discipline.is_kernels:
            what = f"the queueing discipline {discipline.kind} {discipline.handle >> 16:x}:"
            if discipline.handle == CLSACT_HANDLE:
                what = f"filters ({discipline.kind})"
            raise RefusedPlaceError(
                f"{name} in {place.label} carries {what} that somebody else has installed and that "
                "would be lost; remove it by `tc qdisc del`, or attach to another interface"
            )
    return ShapedInterface(
        place=describe(place),
        index=one.index,
        name=name,
        queue_packets=one.queue_packets,
        bundled_frames=one.bundled_frames,
        ifb_index=_FIRST_IFB_INDEX + one.index,
        ifb_name=f"fl-in{one.index}",
    )


def describe(place: Place) -> NamespaceName:
    """Return a place as journals name it."""
    return NamespaceName(label=place.label, path=place.path, identity=place.identity)


def _find(label: str, netlink: NetlinkSocket, name: str) -> Interface:
    found = list_interfaces(netlink)
    for one in found:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in found)
    raise RefusedPlaceError(f"{label} has no interface {name}; it has: {names}")
