"""The back-end that shapes nothing: processes can talk to each other, the timeline is recorded."""

import os
from collections.abc import Sequence

import numpy as np

from fadelab_emulation.backends.base import (
    ClassCounters,
    DirectionCounters,
    DirectionSample,
    LinkCounters,
    LinkSample,
    Resume,
)
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.topology import (
    DEVICE_INDEX,
    SERVER_ADDRESS,
    device_address,
    hub_index,
)
from fadelab_emulation.link_state import IntArray, LinkTick
from fadelab_emulation.namespaces import (
    NetworkNamespace,
    Setting,
    apply_settings,
    create_namespaces,
)
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket, Request
from fadelab_emulation.sandbox import ForeignNamespaceError, assert_private_namespace
from fadelab_proto.clock import Clock

_LOOPBACK_ADDRESS = "127.0.0.1"


class DryBackend:
    """Links that are always open and as fast as the machine; see :class:`LinkBackend`.

    Inside a sandbox every device has a namespace and a plain veth pair to the server, and the
    bytes on it are counted. Outside there are no links at all: whoever is to talk to the server
    does so over the loopback interface, and nothing is counted.
    """

    name = "dry"

    def __init__(
        self,
        plan: LinkPlan,
        clock: Clock,  # noqa: ARG002 -- as all back-ends
        given: Sequence[int] | None = None,
    ) -> None:
        self._devices = plan.devices
        self._lanes = 1 + len(plan.classes)
        self._never = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._hub: NetlinkSocket | None = None
        self.server_address = _LOOPBACK_ADDRESS
        self.settings: Sequence[Setting] = ()
        self.namespaces: Sequence[NetworkNamespace] = ()
        if _in_sandbox():
            self._hub = NetlinkSocket()
            self.server_address = SERVER_ADDRESS
            self.settings = apply_settings()
            made = create_namespaces(plan.devices, lambda: None, given)
            self.namespaces = [namespace for namespace, _ in made]
            _create_links(self._hub, self.namespaces)

    def apply(self, tick: LinkTick) -> None:
        """Do nothing."""

    def sample(self) -> LinkSample:
        """Return zeros: there is no shaper to read."""
        zeros = self._zeros()
        nothing = DirectionSample(zeros, zeros, zeros, zeros, zeros)
        return LinkSample(np.arange(self._devices), up=nothing, down=nothing)

    def next_guard_s(self) -> float | None:
        """Return None: no link is ever closed."""
        return None

    def check_guards(self) -> None:
        """Do nothing."""

    def resume_fileno(self) -> int:
        """Return a descriptor that never becomes readable."""
        return self._never

    def drain_resumes(self) -> list[Resume]:
        """Return nothing: what never stops does not resume."""
        return []

    def counters(self) -> LinkCounters:
        """Return what crossed the interfaces since the start; all accounts are empty."""
        wire = np.zeros((4, self._devices), dtype=np.int64)
        if self._hub is not None:
            ask = [links.read_counters(hub_index(device)) for device in range(self._devices)]
            for device, answer in enumerate(self._hub.query(ask)):
                wire[:, device] = links.parse_counters(answer)[1:]
        rx_packets, tx_packets, rx_bytes, tx_bytes = wire
        return LinkCounters(
            up=self._direction(rx_bytes, rx_packets), down=self._direction(tx_bytes, tx_packets)
        )

    def waiting_bytes(self) -> IntArray:
        """Return zeros: nothing is ever held up."""
        return np.stack([self._zeros(), self._zeros()])

    def class_counters(self) -> ClassCounters:
        """Return zeros: packets are not told apart."""
        nothing = np.zeros((2, self._lanes, self._devices), dtype=np.int64)
        return ClassCounters(nothing, nothing, nothing)

    def close(self) -> None:
        """Release every descriptor; the links vanish with the last process in each namespace."""
        os.close(self._never)
        for namespace in self.namespaces:
            namespace.close()
        if self._hub is not None:
            self._hub.close()

    def _zeros(self) -> IntArray:
        return np.zeros(self._devices, dtype=np.int64)

    def _direction(self, wire_bytes: IntArray, wire_packets: IntArray) -> DirectionCounters:
        return DirectionCounters(
            wire_bytes=wire_bytes,
            wire_packets=wire_packets,
            programmed_bytes=np.zeros(self._devices),
            achieved_bytes=self._zeros(),
            stretches=self._zeros(),
            leaked_packets=self._zeros(),
            arrived_packets=self._zeros(),
            lost_packets=self._zeros(),
            expected_losses=np.zeros(self._devices),
        )


def _in_sandbox() -> bool:
    try:
        assert_private_namespace()
    except ForeignNamespaceError:
        return False
    return True


def _create_links(hub: NetlinkSocket, namespaces: Sequence[NetworkNamespace]) -> None:
    requests: list[Request] = [links.add_address(links.LOOPBACK_INDEX, SERVER_ADDRESS)]
    for device, namespace in enumerate(namespaces):
        index, address = hub_index(device), device_address(device)
        here = links.VethEnd(f"fl{device}", index, _mac(device, 0))
        there = links.VethEnd("eth0", DEVICE_INDEX, _mac(device, 1))
        requests += [
            links.create_veth(here, there, namespace.descriptor),
            links.add_neighbour(index, address, there.mac),
            links.add_route(index, address, SERVER_ADDRESS),
        ]
    hub.change(requests)
    for device, namespace in enumerate(namespaces):
        address = device_address(device)
        namespace.netlink.change(
            [
                links.set_up(links.LOOPBACK_INDEX),
                links.set_up(DEVICE_INDEX),
                links.add_address(DEVICE_INDEX, address),
                links.add_neighbour(DEVICE_INDEX, SERVER_ADDRESS, _mac(device, 0)),
                links.add_route(DEVICE_INDEX, SERVER_ADDRESS, address),
            ]
        )


def _mac(device: int, end: int) -> bytes:
    """Return a locally administered address, the same in every run."""
    return bytes((0x02, 0xFA, 0xDE, end)) + device.to_bytes(2, "big")
