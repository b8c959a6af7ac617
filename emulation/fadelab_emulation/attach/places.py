"""Network namespaces that the user has named: opened, told apart, entered."""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from fadelab_emulation import linux
from fadelab_emulation.namespaces import TCP_SETTINGS, NetworkNamespace, Setting, in_new_thread
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.sandbox import adopt_network, may_administer

NAMED_NAMESPACES = Path("/run/netns")
"""Where `ip netns add` keeps names."""
_NS_GET_NSTYPE = 0xB703
_MACHINE = Path("/proc/1/ns/net")
_CAPABILITIES = (
    "links in named network namespaces need the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN: run "
    "as root, or in a container with `--cap-add NET_ADMIN --cap-add SYS_ADMIN --pid host`"
)


class RefusedPlaceError(Exception):
    """A place or an interface cannot be used; one sentence that says why and what helps."""


class MissingCapabilityError(Exception):
    """This process may not enter or change the place; one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace under one of its names, held open."""

    label: str
    """What sentences call it: ``the container agent-1``."""
    path: Path
    descriptor: int
    identity: tuple[int, int]
    """Device and inode number: the same for every name of one namespace, as long as it lives."""

    @property
    def is_machines(self) -> bool:
        """Whether it is the network that the machine itself (its process 1) lives in."""
        return self.identity == _identity(_MACHINE)

    def namespace(self) -> NetworkNamespace:
        """Return the namespace for links to be made in; from now on the place belongs to it.

        Its settings are read, not changed. Raises MissingCapabilityError.
        """
        adopt_network(self.descriptor)

        def look() -> tuple[NetlinkSocket, tuple[Setting, ...]]:
            linux.setns(self.descriptor, linux.CLONE_NEWNET)
            return NetlinkSocket(), observe_settings()

        try:
            netlink, settings = in_new_thread(look)
        except PermissionError:
            raise MissingCapabilityError(
                f"{self.label} cannot be entered: {_CAPABILITIES}"
            ) from None
        return NetworkNamespace(self.descriptor, netlink, settings)

    def close(self) -> None:
        """Let go of it, unless :meth:`namespace` has handed it on."""
        os.close(self.descriptor)


def check_capabilities() -> None:
    """Raise MissingCapabilityError unless this process may change other network namespaces."""
    if not may_administer():
        raise MissingCapabilityError(_CAPABILITIES)


def open_place(label: str, path: Path) -> Place:
    """Open the network namespace behind a file such as ``/proc/123/ns/net``.

    Raises:
        RefusedPlaceError: there is none.
        MissingCapabilityError: it may not be opened.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RefusedPlaceError(_no_place(label, path)) from None
    except PermissionError:
        raise MissingCapabilityError(
            f"{label} cannot be opened ({path}): {_CAPABILITIES}"
        ) from None
    status = os.fstat(descriptor)
    if not _is_network(descriptor):
        os.close(descriptor)
        raise RefusedPlaceError(
            f"{label}: {path} is not a network namespace; name a file such as "
            f"{NAMED_NAMESPACES}/NAME or /proc/PID/ns/net"
        )
    return Place(label, path, descriptor, (status.st_dev, status.st_ino))


def find_place(label: str, path: Path, identity: tuple[int, int]) -> Place | None:
    """Return the namespace of this identity, by the path it had or any other; None if it is gone."""
    processes = (entry / "ns" / "net" for entry in Path("/proc").glob("[0-9]*"))
    for candidate in (path, *NAMED_NAMESPACES.glob("*"), *processes):
        if _identity(candidate) == identity:
            with contextlib.suppress(RefusedPlaceError):
                return open_place(label, candidate)
    return None


def observe_settings() -> tuple[Setting, ...]:
    """Return the TCP settings of the calling thread's network, which are not ours to change."""
    found: list[Setting] = []
    for name, wishes in TCP_SETTINGS.items():
        try:
            value = Path(f"/proc/sys/{name}").read_text().strip()
        except OSError:
            found.append(Setting(name, None, as_wished=False))
        else:
            found.append(Setting(name, value, as_wished=value == wishes[0]))
    return tuple(found)


def _is_network(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == linux.CLONE_NEWNET
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _no_place(label: str, path: Path) -> str:
    if path.parent == NAMED_NAMESPACES:
        with contextlib.suppress(OSError):
            names = ", ".join(sorted(entry.name for entry in NAMED_NAMESPACES.iterdir()))
            return f"there is no {label.removeprefix('the ')}; {NAMED_NAMESPACES} has: {names or 'none'}"
    return f"there is no {label.removeprefix('the ')}: {path} does not exist"
