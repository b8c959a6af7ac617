"""The radio world: moving devices and their links, one tick at a time."""

from dataclasses import dataclass, replace

import numpy as np

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.base import ContactState, Sight
from fadelab_emulation.contact.prediction import Predictor
from fadelab_emulation.link_state import FloatArray, LinkTick
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.packet_class import lanes
from fadelab_emulation.rate.base import Channel, LinkRates
from fadelab_emulation.scene import Geometry


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """Everything about one instant that does not change within a wavelength."""

    motion: Motion
    geometry: Geometry
    gain: FloatArray
    contact: ContactState


class ContactWorld:
    """Where devices are, how strongly they hear every site, and whether they are in contact.

    It knows no rates, so that it can be run ahead of the present at little cost.
    """

    def __init__(self, config: RadioConfig, devices: int, seed: int) -> None:
        """Place the devices; see :class:`RadioWorld` for arguments and errors."""
        if devices < 1:
            raise ValueError(f"a radio world needs at least one device, not {devices}")
        self._config = config
        self.scene = config.scene(devices, seed)
        self._mobility = config.mobility.build(self.scene)
        self._path_loss = config.path_loss.build(self.scene)
        self._shadowing = config.shadowing.build(self.scene)
        self._contact = config.contact.build(self.scene)
        self._noise_w = config.rate.build(self.scene).noise_w
        self._index = 0

    def step(self) -> _Surroundings:
        """Return what holds at the beginning of the next tick, from index 0 on."""
        config = self._config
        motion = self._mobility.advance(config.tick_s if self._index else 0.0)
        geometry = self.scene.geometry(motion.position_m)
        mean = self._path_loss.advance(geometry, motion)
        shadowing_db = self._shadowing.advance(motion.travelled_m, mean.shadowing_std_db)
        loss_db = mean.loss_db + shadowing_db
        sight = Sight(self._index * config.tick_s, motion, geometry, self._snr_db(loss_db))
        contact = self._contact.update(sight)
        if motion.present is not None:
            is_open = contact.is_open & motion.present
            predicted_s = np.where(is_open, contact.predicted_s, 0.0)
            contact = replace(contact, is_open=is_open, predicted_s=predicted_s)
        self._index += 1
        return _Surroundings(motion, geometry, np.power(10, -loss_db / 10), contact)

    def _snr_db(self, loss_db: FloatArray) -> FloatArray:
        """Return the downlink's mean SNR; without a noise power, the gain itself."""
        reference = self._config.downlink_power_w / (self._noise_w or 1.0)
        snr_db: FloatArray = 10 * np.log10(reference) - loss_db
        return snr_db


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
        self._config = config
        self._around = ContactWorld(config, devices, seed)
        scene = self._around.scene
        self._fading = config.fading.build(scene)
        self._law = self._fading.law
        self._rate = config.rate.build(scene)
        self._predictor = Predictor(
            config.prediction, config.tick_s, seed, lambda: ContactWorld(config, devices, seed)
        )
        self._uplink_power_w = np.full(devices, config.uplink_power_w)
        self._devices = devices
        self._index = 0

    def step(self) -> LinkTick:
        """Return the next tick, from index 0 on; its arrays are to be read, not written."""
        config = self._config
        start_s = self._index * config.tick_s
        around = self._around.step()
        motion, contact = around.motion, around.contact
        speed_mps = np.hypot(motion.velocity_mps[:, 0], motion.velocity_mps[:, 1])
        fading = self._fading.during(start_s, config.tick_s, speed_mps)
        rates = self._rates(Channel(around.gain, contact.site, fading.power, fading.share))
        law = self._law
        ergodic = self._rates(Channel(around.gain, contact.site, law.power[:, None], law.weight))
        tick = LinkTick(
            index=self._index,
            t_s=start_s,
            x_m=motion.position_m[:, 0],
            y_m=motion.position_m[:, 1],
            site=contact.site,
            distance_m=around.geometry.horizontal_m[np.arange(self._devices), contact.site],
            snr_up_db=rates.snr_up_db,
            up=lanes(rates.rate_up_bps, config.classes, config.packet_loss_up, uplink=True),
            down=lanes(rates.rate_down_bps, config.classes, config.packet_loss_down, uplink=False),
            delay_up_s=np.full(self._devices, config.delay_up_s),
            delay_down_s=np.full(self._devices, config.delay_down_s),
            jitter_up_s=np.full(self._devices, config.jitter_up_s),
            jitter_down_s=np.full(self._devices, config.jitter_down_s),
            ergodic_up_bps=ergodic.rate_up_bps,
            ergodic_down_bps=ergodic.rate_down_bps,
            is_open=contact.is_open,
            predicted_contact_s=self._predictor.predict(contact),
        )
        self._index += 1
        return tick

    def _rates(self, channel: Channel) -> LinkRates:
        return self._rate.rates(channel, self._uplink_power_w, self._config.downlink_power_w)

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Set one device's transmit power from the next step on; draws no random number.

        Raises:
            ValueError: no such device, or a power outside ``(0, uplink_power_w]`` of the
                configuration.

        """
        if not 0 <= device < self._devices:
            raise ValueError(f"there is no device {device} among {self._devices}")
        most_w = self._config.uplink_power_w
        if not 0 < power_w <= most_w:
            raise ValueError(
                f"device {device} asked for {power_w:g} W, but its transmit power must be "
                f"above 0 and at most {most_w:g} W"
            )
        self._uplink_power_w[device] = power_w
