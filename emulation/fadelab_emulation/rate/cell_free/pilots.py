"""Which device sends which pilot."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from fadelab_emulation.link_state import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Pilots:
    """The pilots of all devices; those in use are numbered from 0 without gaps."""

    number: IntArray
    """Each device's pilot, shape ``(devices,)``."""
    members: tuple[IntArray, ...]
    """The devices that share each pilot, in ascending order."""

    @classmethod
    def of(cls, number: IntArray) -> Self:
        """Return the pilots of the given numbers; ValueError if one below the highest is unused."""
        count = int(number.max()) + 1
        members = tuple(np.flatnonzero(number == pilot) for pilot in range(count))
        if not all(map(len, members)):
            raise ValueError(f"the {count} pilots are not all in use")
        return cls(number, members)

    def total(self, per_device: FloatArray) -> FloatArray:
        """Add up rows of shape ``(devices, sites)`` by pilot; shape ``(pilots, sites)``."""
        return np.stack([per_device[shared].sum(axis=0) for shared in self.members])


def assign_pilots(gain: FloatArray, pilot_length: int) -> Pilots:
    """Give the first ``pilot_length`` devices pilots of their own, the others the least disturbed.

    Each further device looks at the access point that hears it best and takes the pilot that is
    received there with the least power, all devices sending alike (O. T. Demir, E. Bjornson,
    L. Sanguinetti, "Foundations of User-Centric Cell-Free Massive MIMO", 2021, algorithm 4.1). A
    device's pilot does not depend on those after it.

    Args:
        gain: power gains, shape ``(devices, sites)``.
        pilot_length: number of orthogonal pilots, >= 1.

    """
    devices = len(gain)
    number = np.minimum(np.arange(devices), pilot_length - 1)
    received = np.zeros((gain.shape[1], pilot_length))
    alone = min(pilot_length, devices)
    received[:, :alone] = gain[:alone].T
    strongest = gain.argmax(axis=1)
    for device in range(alone, devices):
        pilot = int(received[strongest[device]].argmin())
        number[device] = pilot
        received[:, pilot] += gain[device]
    return Pilots.of(number)
