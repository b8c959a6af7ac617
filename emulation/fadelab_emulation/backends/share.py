"""Some of a world's links on this machine; the others are driven elsewhere, after the same timeline.

Every machine computes the states of all links, for in a radio world one device may matter to another,
and carries out those of its own. Nobody needs to talk: one seed gives one timeline.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from fadelab_emulation.backends.base import (
    ClassCounters,
    DirectionCounters,
    IntArray,
    LinkBackend,
    LinkCounters,
    LinkSample,
    Resume,
)
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss
from fadelab_emulation.namespaces import NetworkNamespace, Setting


class LinkShare:
    """A back-end of ``devices`` links to its users, of ``drives`` to the kernel.

    Counts of links that are driven elsewhere are 0. See :class:`LinkBackend` for the methods.

    Args:
        backend: carries the links of ``drives``, in this order.
        drives: device numbers, each once.
        devices: number of all devices.

    """

    def __init__(self, backend: LinkBackend, drives: Sequence[int], devices: int) -> None:
        self.server_address = backend.server_address
        self._backend = backend
        self._drives = np.array(drives, dtype=np.int64)
        self._devices = devices

    @property
    def name(self) -> str:
        """The word for it in configurations and records."""
        return self._backend.name

    @property
    def namespaces(self) -> Sequence[NetworkNamespace]:
        """Those of the links that are driven."""
        return self._backend.namespaces

    @property
    def settings(self) -> Sequence[Setting]:
        """Kernel settings obtained."""
        return self._backend.settings

    def apply(self, tick: LinkTick) -> None:
        """Bring the links that are driven into their states."""
        self._backend.apply(of_devices(tick, self._drives))

    def sample(self) -> LinkSample:
        """Read shapers, under the world's device numbers."""
        sample = self._backend.sample()
        return replace(sample, devices=self._drives[sample.devices])

    def next_guard_s(self) -> float | None:
        """Return when check_guards is due."""
        return self._backend.next_guard_s()

    def check_guards(self) -> None:
        """Start the leak counts that are due."""
        self._backend.check_guards()

    def resume_fileno(self) -> int:
        """Return the descriptor that tells of resumptions."""
        return self._backend.resume_fileno()

    def drain_resumes(self) -> list[Resume]:
        """Return resumptions under the world's device numbers."""
        return [
            replace(resume, device=int(self._drives[resume.device]))
            for resume in self._backend.drain_resumes()
        ]

    def counters(self) -> LinkCounters:
        """Return all counts since the start."""
        counters = self._backend.counters()
        return LinkCounters(self._spread(counters.up), self._spread(counters.down))

    def waiting_bytes(self) -> IntArray:
        """Return the bytes that wait to be sent."""
        waiting = np.zeros((2, self._devices), dtype=np.int64)
        waiting[:, self._drives] = self._backend.waiting_bytes()
        return waiting

    def class_counters(self) -> ClassCounters:
        """Return what the queue of each packet class has done."""
        found = self._backend.class_counters()
        spread = []
        for counts in (found.sent_bytes, found.sent_packets, found.overflowed_packets):
            wide = np.zeros((*counts.shape[:2], self._devices), dtype=np.int64)
            wide[:, :, self._drives] = counts
            spread.append(wide)
        return ClassCounters(*spread)

    def close(self) -> None:
        """Remove the links."""
        self._backend.close()

    def _spread(self, counters: DirectionCounters) -> DirectionCounters:
        spread = {}
        for field in fields(counters):
            counts = getattr(counters, field.name)
            spread[field.name] = np.zeros(self._devices, dtype=counts.dtype)
            spread[field.name][self._drives] = counts
        return DirectionCounters(**spread)


def of_devices(tick: LinkTick, devices: IntArray) -> LinkTick:
    """Return the tick of some devices, in the order in which they are named."""
    chosen: dict[str, Any] = {"up": _lanes(tick.up, devices), "down": _lanes(tick.down, devices)}
    for field in fields(tick):
        value = getattr(tick, field.name)
        if isinstance(value, np.ndarray):
            chosen[field.name] = value[devices]
    return replace(tick, **chosen)


def _lanes(lanes: tuple[Lane, ...], devices: IntArray) -> tuple[Lane, ...]:
    return tuple(
        Lane(
            lane.rate_bps[devices],
            PacketLoss(*(getattr(lane.loss, field.name)[devices] for field in fields(PacketLoss))),
        )
        for lane in lanes
    )
