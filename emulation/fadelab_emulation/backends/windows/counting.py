"""Counts of packets that got through a link, from the interfaces at its ends."""

from collections.abc import Sequence
from typing import Protocol

from fadelab_emulation.backends.topology import Crossing
from fadelab_emulation.backends.windows.base import Passed


class Crossed(Protocol):
    """Links whose traffic can be counted."""

    def crossings(self, devices: Sequence[int]) -> list[Crossing]:
        """Return what went over links so far."""
        ...


def crossed(links: Crossed, devices: Sequence[int]) -> list[Passed]:
    """Return how many packets went from one end to the other."""
    return [Passed(c.up_packets, c.down_packets) for c in links.crossings(devices)]
