"""The ``radio`` section of an experiment: every radio model's settings, one union per concern.

A new model is one new file with a configuration class and one more member of a union below.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from fadelab_emulation.contact.always import AlwaysConfig
from fadelab_emulation.contact.coverage import CoverageConfig
from fadelab_emulation.contact.prediction import AnyPrediction, ForecastConfig
from fadelab_emulation.mobility.random_waypoint import RandomWaypointConfig
from fadelab_emulation.mobility.static import StaticConfig
from fadelab_emulation.packet_class import AnyLoss, PacketClassConfig, check_classes
from fadelab_emulation.propagation.log_distance import LogDistanceConfig
from fadelab_emulation.propagation.no_fading import NoFadingConfig
from fadelab_emulation.propagation.rayleigh import RayleighConfig
from fadelab_emulation.propagation.shadowing import ShadowingConfig
from fadelab_emulation.rate.fixed import FixedRateConfig
from fadelab_emulation.rate.shannon import ShannonConfig
from fadelab_emulation.scene import Scene
from fadelab_emulation.sites import AnySites, ListedSites
from fadelab_emulation.window import BackendChoice, WindowMode
from fadelab_proto.config import StrictModel

AnyMobility = Annotated[StaticConfig | RandomWaypointConfig, Field(discriminator="kind")]
# A union of one takes no discriminator; the second path-loss model brings it.
AnyPathLoss = LogDistanceConfig
AnyFading = Annotated[NoFadingConfig | RayleighConfig, Field(discriminator="kind")]
AnyRate = Annotated[ShannonConfig | FixedRateConfig, Field(discriminator="kind")]
AnyContact = Annotated[AlwaysConfig | CoverageConfig, Field(discriminator="kind")]

_Side = Annotated[float, Field(gt=0, le=1e6)]


class RadioConfig(StrictModel):
    """Where devices move, what their radio channel does, and when they are in contact."""

    tick_s: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="Time from one link state to the next; positions and rates hold for a tick.",
    )
    area_m: tuple[_Side, _Side] = Field(
        default=(600.0, 600.0), description="Width and height of the area that devices move in."
    )
    base_station_m: tuple[float, float] | None = Field(
        default=None,
        description="x and y of the base station, inside the area; left out: its centre.",
    )
    sites: AnySites | None = Field(
        default=None,
        description="Several base stations, or the access points of a cell-free network, instead "
        "of base_station_m.",
    )
    site_height_m: float = Field(
        default=10.0, ge=0, le=1000, description="Height of base stations' antennas."
    )
    device_height_m: float = Field(
        default=1.5, ge=0, le=1000, description="Height of devices' antennas."
    )
    wrap_around: bool = Field(
        default=False,
        description="Measure distances over the area's edges, as if it were repeated on all "
        "sides: no device then stands at the rim of the network.",
    )
    carrier_hz: float = Field(
        default=5.9e9, ge=1e6, le=1e12, description="Carrier frequency; 5.9 GHz is the V2X band."
    )
    mobility: AnyMobility = Field(description="How devices move.")
    path_loss: AnyPathLoss = Field(
        default=LogDistanceConfig(), description="Mean loss over distance."
    )
    shadowing: ShadowingConfig = Field(
        default=ShadowingConfig(), description="Slow loss by obstacles, along a device's path."
    )
    fading: AnyFading = Field(default=NoFadingConfig(), description="Fast fading.")
    rate: AnyRate = Field(description="From the channel to bits per second.")
    contact: AnyContact = Field(
        default=AlwaysConfig(), description="When a link is open and when it is closed."
    )
    uplink_power_w: float = Field(
        default=0.2,
        gt=0,
        le=1000,
        description="A device's transmit power at the start, and the most it may ask for.",
    )
    downlink_power_w: float = Field(
        default=1.0, gt=0, le=1000, description="The base station's transmit power per device."
    )
    packet_loss_up: AnyLoss = Field(
        default=0.0, description="Loss of uplink packets, of the default class."
    )
    packet_loss_down: AnyLoss = Field(
        default=0.0, description="Loss of downlink packets, of the default class."
    )
    delay_up_s: float = Field(
        default=0.0, ge=0, le=60, description="One-way delay of the uplink besides its queue."
    )
    delay_down_s: float = Field(
        default=0.0, ge=0, le=60, description="One-way delay of the downlink besides its queue."
    )
    jitter_up_s: float = Field(
        default=0.0, ge=0, le=10, description="Standard deviation of the uplink's delay."
    )
    jitter_down_s: float = Field(
        default=0.0, ge=0, le=10, description="Standard deviation of the downlink's delay."
    )
    classes: list[PacketClassConfig] = Field(
        default=[], max_length=7, description="Packet classes besides the default one."
    )
    prediction: AnyPrediction = Field(
        default=ForecastConfig(), description="What devices are told of their remaining contact."
    )
    window: WindowMode = Field(
        default=WindowMode.HOLD, description="What becomes of packets while a link is closed."
    )
    backend: BackendChoice = Field(
        default=BackendChoice.AUTO,
        description="What carries the links; auto: the cheapest that can do what is asked.",
    )

    @model_validator(mode="after")
    def _models_fit_together(self) -> Self:
        if self.sites is not None and self.base_station_m is not None:
            raise ValueError("give either sites or base_station_m, not both")
        self._placed_sites().place(self.area_m, seed=0)
        self.mobility.check_fits(self.area_m, self.base_station_place_m)
        check_classes(self.classes)
        for direction, delay_s, jitter_s in (
            ("up", self.delay_up_s, self.jitter_up_s),
            ("down", self.delay_down_s, self.jitter_down_s),
        ):
            if 3 * jitter_s > delay_s:
                raise ValueError(
                    f"a jitter of {jitter_s:g} s needs a delay of at least three times as much: "
                    f"delay_{direction}_s is {delay_s:g}"
                )
        self.fading.check_tick(self.tick_s)
        return self

    @property
    def base_station_place_m(self) -> tuple[float, float]:
        """The first base station's place in metres, the area's centre unless another is given."""
        if isinstance(self.sites, ListedSites):
            return self.sites.positions_m[0]
        return self.base_station_m or (self.area_m[0] / 2, self.area_m[1] / 2)

    def _placed_sites(self) -> AnySites:
        return self.sites or ListedSites(positions_m=[self.base_station_place_m])

    def scene(self, devices: int, seed: int) -> Scene:
        """Return what all models of this radio world are built for."""
        return Scene(
            area_m=self.area_m,
            sites_m=self._placed_sites().place(self.area_m, seed),
            site_height_m=self.site_height_m,
            device_height_m=self.device_height_m,
            carrier_hz=self.carrier_hz,
            devices=devices,
            seed=seed,
            wrap_around=self.wrap_around,
        )
