"""Motion made of legs: straight and even for a while, then something else."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.random import Generator

from fadelab_emulation.link_state import BoolArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator


class Legs(ABC):
    """Devices on legs, each of constant velocity, that end at instants of their own.

    A device's path depends on the seed and its own number alone: neither the number of devices nor
    the tick changes it (beyond rounding), for each leg draws from a generator of its own.
    """

    def __init__(self, scene: Scene) -> None:
        self._seed = scene.seed
        self._area_m = np.asarray(scene.area_m)
        self._position_m = np.zeros((scene.devices, 2))
        self._velocity_mps = np.zeros((scene.devices, 2))
        self._travelled_m = np.zeros(scene.devices)  # since the last call of advance
        self._left_s = np.zeros(scene.devices)  # until the present leg ends
        self._leg = np.zeros(scene.devices, dtype=np.int64)

    def advance(self, duration_s: float) -> Motion:
        """Move every device by ``duration_s``, through as many ends of legs as it reaches."""
        remaining_s = np.full(len(self._leg), duration_s)
        self._travelled_m[:] = 0.0
        while True:
            step_s = np.minimum(remaining_s, self._left_s)
            moved_m = self._velocity_mps * step_s[:, None]
            self._position_m += moved_m
            self._travelled_m += np.hypot(moved_m[:, 0], moved_m[:, 1])
            remaining_s -= step_s
            self._left_s -= step_s
            ended = np.flatnonzero(self._left_s == 0)
            if ended.size == 0:
                return self._motion()
            for device in ended.tolist():
                self._turn(device)

    @abstractmethod
    def _turn(self, device: int) -> None:
        """Begin what comes after the leg that has just ended, setting velocity and time left."""

    def _motion(self, present: BoolArray | None = None) -> Motion:
        # Rounding may carry a device past an edge it moves along by one unit in the last place.
        np.clip(self._position_m, 0.0, self._area_m, out=self._position_m)
        return Motion(
            self._position_m.copy(), self._velocity_mps.copy(), self._travelled_m.copy(), present
        )

    def _draw(self, device: int) -> Generator:
        """Return the generator of the device's present leg."""
        return generator(self._seed, Stream.MOBILITY, device, int(self._leg[device]))

    def _draw_next(self, device: int) -> Generator:
        """Count one leg on and return its generator."""
        self._leg[device] += 1
        return self._draw(device)
