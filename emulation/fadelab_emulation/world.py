"""The radio world: moving devices and their links, one tick at a time."""

import numpy as np

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.rate.base import ChannelGain


class RadioWorld:
    """Steps all models together and yields the state of every link.

    A tick holds from ``index * tick_s`` to ``(index + 1) * tick_s``; positions, path loss,
    shadowing and contact are those of its beginning, fading is averaged over it. Everything
    random is keyed by the seed, the device and the tick (or leg, or fading block), so that the
    same configuration and seed give the same bits, whatever powers devices ask for meanwhile, and
    the first devices of a larger world do what they do in a smaller one.
    """

    def __init__(self, config: RadioConfig, devices: int, seed: int) -> None:
        """Place the devices.

        Args:
            config: the models and their settings.
            devices: number of devices, >= 1.
            seed: the experiment's seed, >= 0.

        Raises:
            ValueError: the number of devices is not one the configuration has places for.

        """
        if devices < 1:
            raise ValueError(f"a radio world needs at least one device, not {devices}")
        self._config = config
        self._scene = config.scene(devices, seed)
        self._mobility = config.mobility.build(self._scene)
        self._path_loss = config.path_loss.build(self._scene)
        self._shadowing = config.shadowing.build(self._scene)
        self._fading = config.fading.build(self._scene)
        self._rate = config.rate.build(self._scene)
        self._contact = config.contact.build(self._scene)
        self._uplink_power_w = np.full(devices, config.uplink_power_w)
        self._index = 0

    def step(self) -> LinkTick:
        """Return the next tick, from index 0 on; its arrays are to be read, not written."""
        config = self._config
        start_s = self._index * config.tick_s
        motion = self._mobility.advance(config.tick_s if self._index else 0.0)
        offset_m = self._scene.offset_m(motion.position_m)
        distance_m = np.hypot(offset_m[:, 0], offset_m[:, 1])
        loss_db = self._path_loss.loss_db(distance_m) + self._shadowing.advance(motion.travelled_m)
        fading = self._fading.during(start_s, config.tick_s)
        gain = ChannelGain(np.power(10, -loss_db / 10) * fading.power, fading.share)
        rates = self._rate.rates(gain, self._uplink_power_w, config.downlink_power_w)
        contact = self._contact.update(motion)
        tick = LinkTick(
            index=self._index,
            t_s=start_s,
            x_m=motion.position_m[:, 0],
            y_m=motion.position_m[:, 1],
            distance_m=distance_m,
            snr_up_db=rates.snr_up_db,
            rate_up_bps=rates.rate_up_bps,
            rate_down_bps=rates.rate_down_bps,
            loss_up=np.full(self._scene.devices, config.packet_loss_up),
            loss_down=np.full(self._scene.devices, config.packet_loss_down),
            is_open=contact.is_open,
            predicted_contact_s=contact.predicted_s,
        )
        self._index += 1
        return tick

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Set one device's transmit power from the next step on; draws no random number.

        Raises:
            ValueError: no such device, or a power outside ``(0, uplink_power_w]`` of the
                configuration.

        """
        if not 0 <= device < self._scene.devices:
            raise ValueError(f"there is no device {device} among {self._scene.devices}")
        most_w = self._config.uplink_power_w
        if not 0 < power_w <= most_w:
            raise ValueError(
                f"device {device} asked for {power_w:g} W, but its transmit power must be "
                f"above 0 and at most {most_w:g} W"
            )
        self._uplink_power_w[device] = power_w
