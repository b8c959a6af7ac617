"""Where a radio world divides devices' power and band between signs and moduli."""

from dataclasses import replace

import numpy as np

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import FloatArray, Lane
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_emulation.rate.base import Channel
from fadelab_emulation.rate.class_rates import (
    MODULUS,
    SIGN,
    ClassAllocation,
    ClassRates,
    merged,
)
from fadelab_emulation.rate.shannon import ShannonConfig
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator


class ClassDivision:
    """The lanes of signs and moduli, once a server has divided resources.

    Args:
        config: the radio section; with classes ``sign`` and ``modulus`` and Shannon's rates.
        scene: the devices.

    """

    def __init__(self, config: RadioConfig, scene: Scene) -> None:
        assert isinstance(config.rate, ShannonConfig)
        names = config.lane_names
        self._lanes = names.index(SIGN), names.index(MODULUS)
        self._tick_s = config.tick_s
        self.rates = ClassRates(config.rate, scene.devices)
        self.noise_per_hz: FloatArray = np.zeros(scene.devices)
        """At the last tick, on average over fading; 1/Hz."""
        self._allocation: ClassAllocation | None = None
        # Moduli may meet a fade of their own: the same model with other random numbers.
        draw = generator(scene.seed, Stream.CHANNEL, ChannelDraw.SECOND_FADING)
        other = replace(scene, seed=int(draw.integers(2**62)))
        self._second = config.fading.build(other)

    @classmethod
    def of(cls, config: RadioConfig, scene: Scene) -> "ClassDivision | None":
        """Return the division; None where links have no such classes, or rates no bandwidth."""
        has_classes = {SIGN, MODULUS} <= set(config.lane_names)
        if not (has_classes and isinstance(config.rate, ShannonConfig)):
            return None
        return cls(config, scene)

    def allocate(self, allocation: ClassAllocation) -> None:
        """Divide from the next tick on."""
        before = self._allocation
        self._allocation = allocation if before is None else before.updated(allocation)

    def apply(
        self,
        lanes: tuple[Lane, ...],
        channel: Channel,
        power_w: FloatArray,
        speed_mps: FloatArray,
    ) -> tuple[Lane, ...]:
        """Return a tick's uplink lanes; called once per tick, in order.

        Args:
            lanes: as they are without any division.
            channel: of the tick.
            power_w: the devices' powers.
            speed_mps: their speeds, which the second fade depends on.

        """
        self.noise_per_hz = self.rates.noise_per_hz(channel, power_w)
        second = self._second.during(channel.t_s, self._tick_s, speed_mps)
        allocation = self._allocation
        if allocation is None:
            return lanes
        own = channel
        if not allocation.common_fading:
            own = replace(channel, fading=second.power, share=second.share)
        divided = self.rates.lanes(allocation, channel, own, power_w)
        result = list(lanes)
        for index, lane in zip(self._lanes, divided, strict=True):
            result[index] = merged(lanes[index], lane, allocation.divided)
        return tuple(result)
