"""The ``radio`` section of an experiment: every radio model's settings, one union per concern.

A new model is one new file with a configuration class and one more member of a union below.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from fadelab_emulation.contact.always import AlwaysConfig
from fadelab_emulation.contact.coverage import CoverageConfig
from fadelab_emulation.contact.exponential import ExponentialConfig
from fadelab_emulation.contact.outages import OutageConfig, check_outages
from fadelab_emulation.contact.prediction import AnyPrediction, ForecastConfig
from fadelab_emulation.contact.snr_threshold import SnrThresholdConfig
from fadelab_emulation.links_config import LinksConfig
from fadelab_emulation.mobility.gauss_markov import GaussMarkovConfig
from fadelab_emulation.mobility.highway import HighwayConfig
from fadelab_emulation.mobility.manhattan import ManhattanConfig
from fadelab_emulation.mobility.random_direction import RandomDirectionConfig
from fadelab_emulation.mobility.random_waypoint import RandomWaypointConfig
from fadelab_emulation.mobility.static import StaticConfig
from fadelab_emulation.mobility.traces.csv_file import CsvConfig
from fadelab_emulation.mobility.traces.ns2 import Ns2Config
from fadelab_emulation.mobility.traces.sumo_fcd import SumoFcdConfig
from fadelab_emulation.propagation.free_space import FreeSpaceConfig
from fadelab_emulation.propagation.log_distance import LogDistanceConfig
from fadelab_emulation.propagation.nakagami import NakagamiConfig
from fadelab_emulation.propagation.no_fading import NoFadingConfig
from fadelab_emulation.propagation.rayleigh import RayleighConfig
from fadelab_emulation.propagation.rician import RicianConfig
from fadelab_emulation.propagation.shadowing import ShadowingConfig
from fadelab_emulation.propagation.three_slope import ThreeSlopeConfig
from fadelab_emulation.propagation.tr37885 import Tr37885Config
from fadelab_emulation.propagation.tr38901 import Tr38901UmaConfig, Tr38901UmiConfig
from fadelab_emulation.rate.cell_free.model import CellFreeConfig
from fadelab_emulation.rate.fixed import FixedRateConfig
from fadelab_emulation.rate.mcs import McsConfig
from fadelab_emulation.rate.shannon import ShannonConfig
from fadelab_emulation.scene import Scene
from fadelab_emulation.sites import AnySites, GridSites, ListedSites

AnyMobility = Annotated[
    StaticConfig
    | RandomWaypointConfig
    | RandomDirectionConfig
    | GaussMarkovConfig
    | ManhattanConfig
    | HighwayConfig
    | SumoFcdConfig
    | CsvConfig
    | Ns2Config,
    Field(discriminator="kind"),
]
AnyPathLoss = Annotated[
    FreeSpaceConfig
    | LogDistanceConfig
    | Tr38901UmiConfig
    | Tr38901UmaConfig
    | Tr37885Config
    | ThreeSlopeConfig,
    Field(discriminator="kind"),
]
AnyFading = Annotated[
    NoFadingConfig | RayleighConfig | RicianConfig | NakagamiConfig, Field(discriminator="kind")
]
AnyRate = Annotated[
    ShannonConfig | McsConfig | CellFreeConfig | FixedRateConfig, Field(discriminator="kind")
]
AnyContact = Annotated[
    AlwaysConfig | CoverageConfig | SnrThresholdConfig | ExponentialConfig,
    Field(discriminator="kind"),
]

_Side = Annotated[float, Field(gt=0, le=1e6)]


class RadioConfig(LinksConfig):
    """Where devices move, what their radio channel does, and when they are in contact."""

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
    outages: list[OutageConfig] = Field(
        default=[], description="Times at which links are closed whatever contact says."
    )
    prediction: AnyPrediction = Field(
        default=ForecastConfig(), description="What devices are told of their remaining contact."
    )

    @model_validator(mode="after")
    def _models_fit_together(self) -> Self:
        if self.sites is not None and self.base_station_m is not None:
            raise ValueError("give either sites or base_station_m, not both")
        check_outages(self.outages, self.tick_s)
        self.fading.check_tick(self.tick_s)
        self.contact.check_tick(self.tick_s)
        self._check_models()
        return self

    def _check_models(self) -> None:
        """Let the models say for themselves whether they hold here, with whichever devices."""
        scene = self._scene(self._even_sites(), devices=1, seed=0)
        self.path_loss.build(scene)
        rate = self.rate.build(scene)
        if self.contact.needs_snr and rate.noise_w is None:
            raise ValueError(
                f"contact of kind {self.contact.kind} needs a signal-to-noise ratio, which a rate "
                f"of kind {self.rate.kind} does not have"
            )

    @property
    def base_station_place_m(self) -> tuple[float, float]:
        """The first base station's place in metres, the area's centre unless another is given.

        Of sites that are placed at random it is the place without that.
        """
        x_m, y_m = self._even_sites().place(self.area_m, seed=0)[0].tolist()
        return x_m, y_m

    def _placed_sites(self) -> AnySites:
        if self.sites is not None:
            return self.sites
        centre_m = (self.area_m[0] / 2, self.area_m[1] / 2)
        return ListedSites(positions_m=[self.base_station_m or centre_m])

    def _even_sites(self) -> AnySites:
        """Return the sites without what the seed does to their places."""
        sites = self._placed_sites()
        return sites.model_copy(update={"jitter": 0.0}) if isinstance(sites, GridSites) else sites

    def scene(self, devices: int, seed: int) -> Scene:
        """Return what all models of this radio world are built for.

        Raises:
            ValueError: a device would stand outside the area, which only the seed decides where
                sites are placed at random and devices round them.

        """
        return self._scene(self._placed_sites(), devices, seed)

    def _scene(self, sites: AnySites, devices: int, seed: int) -> Scene:
        sites_m = sites.place(self.area_m, seed)
        first_x_m, first_y_m = sites_m[0].tolist()
        self.mobility.check_fits(self.area_m, (first_x_m, first_y_m))
        return Scene(
            area_m=self.area_m,
            sites_m=sites_m,
            site_height_m=self.site_height_m,
            device_height_m=self.device_height_m,
            carrier_hz=self.carrier_hz,
            devices=devices,
            seed=seed,
            wrap_around=self.wrap_around,
        )
