"""The ``radio`` section of an experiment: every radio model's settings, one union per concern.

A new model is one new file with a configuration class and one more member of a union below.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from fadelab_emulation.contact.always import AlwaysConfig
from fadelab_emulation.contact.coverage import CoverageConfig
from fadelab_emulation.mobility.random_waypoint import RandomWaypointConfig
from fadelab_emulation.mobility.static import StaticConfig
from fadelab_emulation.propagation.log_distance import LogDistanceConfig
from fadelab_emulation.propagation.no_fading import NoFadingConfig
from fadelab_emulation.propagation.rayleigh import RayleighConfig
from fadelab_emulation.propagation.shadowing import ShadowingConfig
from fadelab_emulation.rate.fixed import FixedRateConfig
from fadelab_emulation.rate.shannon import ShannonConfig
from fadelab_emulation.scene import Scene
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
    packet_loss_up: float = Field(
        default=0.0, ge=0, le=1, description="Probability that an uplink packet is lost."
    )
    packet_loss_down: float = Field(
        default=0.0, ge=0, le=1, description="Probability that a downlink packet is lost."
    )

    @model_validator(mode="after")
    def _models_fit_together(self) -> Self:
        (x_m, y_m), (width_m, height_m) = self.base_station_place_m, self.area_m
        if not (0 <= x_m <= width_m and 0 <= y_m <= height_m):
            raise ValueError(
                f"the base station at ({x_m:g}, {y_m:g}) stands outside the area of "
                f"{width_m:g} m x {height_m:g} m"
            )
        self.mobility.check_fits(self.area_m, self.base_station_place_m)
        self.fading.check_tick(self.tick_s)
        return self

    @property
    def base_station_place_m(self) -> tuple[float, float]:
        """The base station's place in metres, the area's centre unless another is given."""
        return self.base_station_m or (self.area_m[0] / 2, self.area_m[1] / 2)

    def scene(self, devices: int, seed: int) -> Scene:
        """Return what all models of this radio world are built for."""
        return Scene(
            area_m=self.area_m,
            base_station_m=self.base_station_place_m,
            carrier_hz=self.carrier_hz,
            devices=devices,
            seed=seed,
        )
