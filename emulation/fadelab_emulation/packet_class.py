"""Packet classes: parts of a device's traffic that get a rate and a loss of their own."""

import math
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from fadelab_emulation.backends.plan import ClassMark
from fadelab_emulation.link_state import FloatArray, Lane, PacketLoss
from fadelab_emulation.rate.base import MIN_RATE_BPS
from fadelab_proto.config import StrictModel

_Probability = Annotated[float, Field(ge=0, le=1)]


class GilbertElliott(StrictModel):
    """Losses that come in bursts: a good and a bad state, moved once per packet."""

    to_bad: float = Field(gt=0, le=1, description="Probability per packet: good to bad state.")
    to_good: float = Field(
        gt=0,
        le=1,
        description="Probability per packet: bad to good; its inverse is the mean "
        "number of packets that a bad spell lasts.",
    )
    in_good: float = Field(default=0.0, ge=0, le=1, description="Loss in the good state.")
    in_bad: float = Field(default=1.0, ge=0, le=1, description="Loss in the bad state.")


def _kind_of_loss(value: object) -> str:
    return "probability" if isinstance(value, int | float | str) else "gilbert_elliott"


# Told apart by form, so that a wrong value is refused for one reason and not for two.
AnyLoss = Annotated[
    Annotated[_Probability, Tag("probability")] | Annotated[GilbertElliott, Tag("gilbert_elliott")],
    Discriminator(_kind_of_loss),
]
"""A probability for independent losses, or the four numbers of a Gilbert-Elliott chain."""


class PacketClassConfig(StrictModel):
    """A packet class, told apart by its DSCP or its port, with its share of the rate."""

    name: str = Field(
        min_length=1, max_length=32, pattern="^[a-z0-9_-]+$", description="What to call it."
    )
    dscp: int | None = Field(
        default=None, ge=1, le=63, description="Differentiated-services code point (RFC 2474)."
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="TCP or UDP port at either end."
    )
    rate_share_up: float = Field(
        gt=0, lt=1, description="Part of the uplink's rate; the default class gets what is left."
    )
    rate_share_down: float = Field(
        gt=0, lt=1, description="Part of the downlink's rate; the default class gets what is left."
    )
    packet_loss_up: AnyLoss = Field(default=0.0, description="Packet loss of the uplink.")
    packet_loss_down: AnyLoss = Field(default=0.0, description="Packet loss of the downlink.")

    @model_validator(mode="after")
    def _one_mark(self) -> Self:
        if (self.dscp is None) == (self.port is None):
            raise ValueError(f"class {self.name!r} needs either a dscp or a port")
        return self


def check_classes(classes: Sequence[PacketClassConfig]) -> None:
    """Raise ValueError where classes cannot be told apart or leave nothing to the default one."""
    for what, values in (
        ("name", [c.name for c in classes]),
        ("dscp", [str(c.dscp) for c in classes if c.dscp is not None]),
        ("port", [str(c.port) for c in classes if c.port is not None]),
    ):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise ValueError(f"two packet classes have the {what} {min(twice)}")
    if any(c.name == "default" for c in classes):
        raise ValueError("no packet class may be named 'default': that is all other traffic")
    for direction, total in (
        ("up", sum(c.rate_share_up for c in classes)),
        ("down", sum(c.rate_share_down for c in classes)),
    ):
        if total >= 1:
            raise ValueError(
                f"the packet classes' rate_share_{direction} add up to {total:g} and leave nothing "
                "to the default class"
            )


def packet_loss(loss: AnyLoss, devices: int) -> PacketLoss:
    """Return a configured loss for every device."""
    if isinstance(loss, GilbertElliott):
        values = (loss.in_good, loss.in_bad, loss.to_bad, loss.to_good)
        return PacketLoss(*(np.full(devices, value) for value in values))
    return PacketLoss.independent(np.full(devices, loss))


class LaneSplit:
    """Splits one direction's rate among the default class and the others, in their order."""

    def __init__(self, shares: Sequence[float], losses: Sequence[AnyLoss], devices: int) -> None:
        """Take the other classes' shares of the rate, and all losses, the default class's first."""
        self._shares = (1 - math.fsum(shares), *shares)
        self._losses = [packet_loss(loss, devices) for loss in losses]

    def lanes(self, rate_bps: FloatArray) -> tuple[Lane, ...]:
        """Return the lanes of a rate of shape ``(devices,)``.

        Lanes have queues of their own, so each gets at least :data:`MIN_RATE_BPS`, for the reason
        told at :class:`fadelab_emulation.rate.base.RateModel`.
        """
        return tuple(
            Lane(np.maximum(rate_bps * share, MIN_RATE_BPS), loss)
            for share, loss in zip(self._shares, self._losses, strict=True)
        )


def split_up(classes: Sequence[PacketClassConfig], default: AnyLoss, devices: int) -> LaneSplit:
    """Return the uplink's split; ``default`` is the default class's loss."""
    shares = [c.rate_share_up for c in classes]
    return LaneSplit(shares, [default, *(c.packet_loss_up for c in classes)], devices)


def split_down(classes: Sequence[PacketClassConfig], default: AnyLoss, devices: int) -> LaneSplit:
    """Return the downlink's split; ``default`` is the default class's loss."""
    shares = [c.rate_share_down for c in classes]
    return LaneSplit(shares, [default, *(c.packet_loss_down for c in classes)], devices)


def class_marks(classes: Sequence[PacketClassConfig]) -> tuple[ClassMark, ...]:
    """Return how back-ends tell the classes apart, in their order."""
    return tuple(ClassMark(c.dscp, c.port) for c in classes)
