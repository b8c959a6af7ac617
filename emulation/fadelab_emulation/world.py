"""The radio world: moving devices and their links, one tick at a time."""

import math
from dataclasses import dataclass, replace

import numpy as np

from fadelab_emulation.class_division import ClassDivision
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.base import ContactState, Sight
from fadelab_emulation.contact.outages import Outages
from fadelab_emulation.link_state import FloatArray, LinkTick
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.packet_class import split_down, split_up
from fadelab_emulation.rate.base import Channel, LinkRates
from fadelab_emulation.rate.cell_free.model import CellFree, UplinkTerms
from fadelab_emulation.scene import Geometry, Scene


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything about one instant that does not change within a wavelength."""

    t_s: float
    motion: Motion
    geometry: Geometry
    loss_db: FloatArray
    """Path loss and shadowing, shape ``(devices, sites)``."""
    contact: ContactState


class ContactWorld:
    """Where devices are, what lies between them and every site, and whether they are in contact.

    It knows no rates, so that it can be run ahead of the present at little cost.
    """

    def __init__(self, config: RadioConfig, scene: Scene, noise_w: float | None) -> None:
        """Place the devices of ``scene``, whose receivers have the noise power ``noise_w``."""
        self._tick_s = config.tick_s
        self._scene = scene
        self._mobility = config.mobility.build(scene)
        self._path_loss = config.path_loss.build(scene)
        self._shadowing = config.shadowing.build(scene)
        self._contact = config.contact.build(scene)
        self._outages = Outages(config.outages, scene.devices)
        # The downlink's SNR without any loss; without a noise power there is no such thing.
        self._lossless_snr_db = (
            math.nan if noise_w is None else 10 * math.log10(config.downlink_power_w / noise_w)
        )
        self._index = 0

    def step(self) -> Surroundings:
        """Return what holds at the beginning of the next tick, from index 0 on."""
        t_s = self._index * self._tick_s
        motion = self._mobility.advance(self._tick_s if self._index else 0.0)
        geometry = self._scene.geometry(motion.position_m)
        mean = self._path_loss.advance(geometry, motion)
        loss_db = mean.loss_db + self._shadowing.advance(motion.travelled_m, mean.shadowing_std_db)
        sight = Sight(t_s, motion, geometry, self._lossless_snr_db - loss_db)
        contact = self._outages.apply(t_s, self._contact.update(sight))
        if motion.present is not None:
            contact = contact.only(motion.present)
        self._index += 1
        return Surroundings(t_s, motion, geometry, loss_db, contact)

    def next_contact(self) -> ContactState:
        """Return the contact at the beginning of the next tick alone."""
        return self.step().contact


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
        scene = config.scene(devices, seed)
        self._rate = config.rate.build(scene)
        noise_w = self._rate.noise_w
        self._around = ContactWorld(config, scene, noise_w)
        self._fading = config.fading.build(scene)
        self._law = self._fading.law
        self.division = ClassDivision.of(config, scene)
        """What a server may divide between signs and moduli; None where there are no such classes."""
        self._predictor = config.prediction.build(
            devices, seed, config.tick_s, lambda: ContactWorld(config, scene, noise_w)
        )
        self._split_up = split_up(config.classes, config.packet_loss_up, devices)
        self._split_down = split_down(config.classes, config.packet_loss_down, devices)
        self._delay_up_s = np.full(devices, config.delay_up_s)
        self._delay_down_s = np.full(devices, config.delay_down_s)
        self._jitter_up_s = np.full(devices, config.jitter_up_s)
        self._jitter_down_s = np.full(devices, config.jitter_down_s)
        self._uplink_power_w = np.full(devices, config.uplink_power_w)
        self._config = config
        self._devices = devices
        self._index = 0

    def step(self) -> LinkTick:
        """Return the next tick, from index 0 on; its arrays are to be read, not written."""
        around = self._around.step()
        motion, contact = around.motion, around.contact
        channel, speed_mps = self._channel(around)
        now, ergodic = self._rates(channel)
        up = self._split_up.lanes(now.rate_up_bps)
        if self.division is not None:
            up = self.division.apply(up, channel, self._uplink_power_w, speed_mps)
        tick = LinkTick(
            index=self._index,
            t_s=around.t_s,
            x_m=motion.position_m[:, 0],
            y_m=motion.position_m[:, 1],
            site=contact.site,
            distance_m=around.geometry.horizontal_m[np.arange(self._devices), contact.site],
            snr_up_db=now.snr_up_db,
            up=up,
            down=self._split_down.lanes(now.rate_down_bps),
            delay_up_s=self._delay_up_s,
            delay_down_s=self._delay_down_s,
            jitter_up_s=self._jitter_up_s,
            jitter_down_s=self._jitter_down_s,
            ergodic_up_bps=ergodic.rate_up_bps,
            ergodic_down_bps=ergodic.rate_down_bps,
            is_open=contact.is_open,
            predicted_contact_s=self._predictor.predict(contact),
        )
        self._index += 1
        return tick

    def _channel(self, around: Surroundings) -> tuple[Channel, FloatArray]:
        """Return the tick's channel, and the devices' speeds."""
        gain = np.exp(around.loss_db * (-math.log(10) / 10))
        velocity_mps = around.motion.velocity_mps
        speed_mps = np.hypot(velocity_mps[:, 0], velocity_mps[:, 1])
        fading = self._fading.during(around.t_s, self._config.tick_s, speed_mps)
        site = around.contact.site
        return Channel(gain, site, fading.power, fading.share, around.t_s), speed_mps

    def _rates(self, channel: Channel) -> tuple[LinkRates, LinkRates]:
        """Return the rates of the tick's fading, and their expectation over all fading."""
        now = self._rates_of(channel)
        law = self._law
        if len(law.weight) == 1:
            return now, now
        return now, self._rates_of(replace(channel, fading=law.power[:, None], share=law.weight))

    def _rates_of(self, channel: Channel) -> LinkRates:
        return self._rate.rates(channel, self._uplink_power_w, self._config.downlink_power_w)

    def uplink_terms(self) -> UplinkTerms | None:
        """Return what powers make of the uplink at the last tick; None where no formula says it."""
        if not isinstance(self._rate, CellFree):
            return None
        return self._rate.uplink_terms(self._config.uplink_power_w)

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
