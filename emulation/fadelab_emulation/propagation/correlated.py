"""Standard normal variables that change along a device's path: the root of all slow randomness."""

import numpy as np

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator


class CorrelatedNormal:
    """One standard normal per device and site, correlated by ``exp(-travelled / correlation_m)``.

    A first-order autoregressive walk over the length of path, stationary from its first value.
    Links are independent of each other, a device's numbers do not depend on how many others there
    are, and a device that stands keeps them.
    """

    def __init__(self, scene: Scene, correlation_m: float, draw: ChannelDraw, *keys: int) -> None:
        """Prepare the walk; see :class:`CorrelatedNormal`.

        Args:
            scene: gives the seed and the numbers of devices and sites.
            correlation_m: length of path after which the correlation has fallen to 1/e.
            draw: what the numbers are for.
            keys: further distinctions between walks for the same purpose.

        """
        self._shape = (scene.devices, scene.sites)
        self._correlation_m = correlation_m
        self._seed = scene.seed
        self._keys = (draw, *keys)
        self._steps = 0
        self._normal = np.zeros(self._shape)

    def advance(self, travelled_m: FloatArray) -> FloatArray:
        """Return the values at the next instant, shape ``(devices, sites)``; not to be written to.

        ``travelled_m``, shape ``(devices,)``, is how far each device went since the last call; the
        first call has nothing to go on from and ignores it.
        """
        if self._steps == 0:
            self._normal = self._fresh()
        elif travelled_m.any():
            way = travelled_m[:, None] / self._correlation_m
            moved = self._fresh() * np.sqrt(-np.expm1(-2 * way))
            moved += np.exp(-way) * self._normal
            self._normal = moved
        self._steps += 1
        return self._normal

    def _fresh(self) -> FloatArray:
        draw = generator(self._seed, Stream.CHANNEL, *self._keys, self._steps)
        return draw.standard_normal(self._shape)
