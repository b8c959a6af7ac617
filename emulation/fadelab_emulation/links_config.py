"""What is said of links whatever decides their states: radio models, a recording, a trace."""

from typing import Self

from pydantic import Field, model_validator

from fadelab_emulation.packet_class import AnyLoss, PacketClassConfig, check_classes
from fadelab_emulation.timeline.time_scale import Timescale
from fadelab_emulation.window import BackendChoice, WindowMode
from fadelab_proto.config import StrictModel


class LinksConfig(StrictModel):
    """The settings that radio models and timelines have in common."""

    tick_s: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="Time from one link state to the next; positions and rates hold for a tick.",
    )
    time_scale: float = Field(
        default=1.0,
        ge=0.1,
        le=100,
        description="Emulated seconds per second of the wall clock: durations shrink and rates "
        "grow together, while computing takes as long as ever.",
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
    window: WindowMode = Field(
        default=WindowMode.HOLD, description="What becomes of packets while a link is closed."
    )
    backend: BackendChoice = Field(
        default=BackendChoice.AUTO,
        description="What carries the links; auto: the cheapest that can do what is asked.",
    )

    @property
    def timescale(self) -> Timescale:
        """The arithmetic of :attr:`time_scale`."""
        return Timescale(self.time_scale)

    @property
    def lane_names(self) -> tuple[str, ...]:
        """The default class and the others in their order."""
        return "default", *(c.name for c in self.classes)

    @model_validator(mode="after")
    def _links_can_be(self) -> Self:
        for direction, delay_s, jitter_s in (
            ("up", self.delay_up_s, self.jitter_up_s),
            ("down", self.delay_down_s, self.jitter_down_s),
        ):
            if 3 * jitter_s > delay_s:
                raise ValueError(
                    f"a jitter of {jitter_s:g} s needs a delay of at least three times as much: "
                    f"delay_{direction}_s is {delay_s:g}"
                )
        check_classes(self.classes)
        return self
