"""Anonymous network namespaces, one per device: they have no name and vanish with their users."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fadelab_emulation import linux
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.sandbox import assert_private_namespace

Result = TypeVar("Result")
Furniture = TypeVar("Furniture")

TCP_SETTINGS: Mapping[str, Sequence[str]] = {
    # Loss-based congestion control: what is allowed in a namespace is the machine's decision.
    "net/ipv4/tcp_congestion_control": ("cubic", "reno"),
    # After a gap between contact windows the path is the same as before it.
    "net/ipv4/tcp_slow_start_after_idle": ("0",),
    # Runs must not learn from connections of the same run.
    "net/ipv4/tcp_no_metrics_save": ("1",),
    # Retransmissions before a connection is given up: 15 are more than 900 s (RFC 1122, 4.2.3.5).
    "net/ipv4/tcp_retries2": ("15",),
    # Router and neighbour solicitations would count as traffic.
    "net/ipv6/conf/all/disable_ipv6": ("1",),
}
"""Per setting the values to try, best first."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What became of one kernel setting."""

    name: str
    value: str | None
    """The value in force; None if the kernel does not have the setting."""
    as_wished: bool


def apply_settings(wishes: Mapping[str, Sequence[str]] = TCP_SETTINGS) -> tuple[Setting, ...]:
    """Write settings below /proc/sys for the calling thread's network; report what was obtained.

    A setting that the machine refuses (restricted congestion control, read-only /proc/sys) is
    reported, never an error: the run records it.
    """
    return tuple(_apply(name, values) for name, values in wishes.items())


def _apply(name: str, values: Sequence[str]) -> Setting:
    path = f"/proc/sys/{name}"
    for rank, value in enumerate(values):
        try:
            descriptor = os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            return Setting(name, None, as_wished=False)
        except OSError:
            break
        try:
            os.write(descriptor, value.encode())
        except OSError:
            continue
        finally:
            os.close(descriptor)
        return Setting(name, value, as_wished=rank == 0)
    found = Path(path).read_text().strip()
    return Setting(name, found, as_wished=found == values[0])


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace, held open by a descriptor."""

    descriptor: int
    netlink: NetlinkSocket
    """A socket inside it; one thread at a time may use it."""
    settings: tuple[Setting, ...]

    def enter(self) -> None:
        """Move the calling thread into it; meant for a forked agent that stays there."""
        linux.setns(self.descriptor, linux.CLONE_NEWNET)

    def run(self, action: Callable[[], Result]) -> Result:
        """Return ``action()`` as seen from inside; sockets it opens stay inside."""

        def inside() -> Result:
            self.enter()
            return action()

        return in_new_thread(inside)

    def close(self) -> None:
        """Let go of it; it vanishes once no process and no socket is left in it."""
        self.netlink.close()
        os.close(self.descriptor)


def create_namespaces(
    count: int, furnish: Callable[[], Furniture], given: Sequence[int] | None = None
) -> list[tuple[NetworkNamespace, Furniture]]:
    """Make ``count`` empty network namespaces; the calling thread stays where it is.

    Args:
        count: how many.
        furnish: called inside each of them, for sockets that have to be opened there.
        given: descriptors of as many namespaces that are to be used instead of new ones; they
            remain the caller's.

    Raises:
        ForeignNamespaceError: outside a sandbox.
        ValueError: another number of namespaces was given.

    """
    assert_private_namespace()
    if given is None:
        return in_new_thread(lambda: [(_create_namespace(), furnish()) for _ in range(count)])
    if len(given) != count:
        raise ValueError(f"{len(given)} network namespaces were given for {count} devices")
    return in_new_thread(lambda: [(_take_namespace(one), furnish()) for one in given])


def _create_namespace() -> NetworkNamespace:
    linux.unshare(linux.CLONE_NEWNET)
    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return NetworkNamespace(descriptor, NetlinkSocket(), apply_settings())


def _take_namespace(descriptor: int) -> NetworkNamespace:
    linux.setns(descriptor, linux.CLONE_NEWNET)
    return NetworkNamespace(os.dup(descriptor), NetlinkSocket(), apply_settings())


def run_in_each(
    namespaces: Sequence[NetworkNamespace], action: Callable[[], Result]
) -> list[Result]:
    """Return ``action()`` as seen from inside each of them, one after the other.

    All in one thread: to end one in a namespace takes the kernel longer than to enter the next.
    """

    def inside() -> list[Result]:
        found = []
        for namespace in namespaces:
            namespace.enter()
            found.append(action())
        return found

    return in_new_thread(inside)


def in_new_thread(action: Callable[[], Result]) -> Result:
    """Run ``action`` in a thread of its own and return its result or raise its exception.

    A network namespace belongs to a thread; one that ends afterwards cannot carry it elsewhere.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 -- handed to the caller, whatever it is
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
