"""How a device's local samples change while a run goes on; read without torch.

DMA-FL (arXiv 2305.13503) tells drift while a device computes (active) from drift while it waits or
transfers (idle), and expects the latter to be larger: a device may gather more data when it has
nothing else to do. Here both make one drift time pass, each at its own pace.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from fadelab_proto.config import StrictModel


class NoDrift(StrictModel):
    """Local samples stay as they are."""

    kind: Literal["none"] = "none"


class DriftPaceConfig(StrictModel):
    """When samples change: whenever another ``period_s`` of drift time has passed.

    A second of waiting or transferring is ``idle_pace`` seconds of drift time, a second of
    computing ``active_pace``.
    """

    period_s: PositiveFloat
    idle_pace: float = Field(default=1.0, ge=0.0)
    active_pace: float = Field(default=1.0, ge=0.0)


class GrowingDrift(DriftPaceConfig):
    """Samples are added, as in DMA-FL's simulations: the device begins with a share of its part.

    With ``order: by_class`` one class follows the other, so that new samples differ from old ones.
    """

    kind: Literal["growing"] = "growing"
    initial_share: float = Field(default=0.5, gt=0.0, le=1.0)
    samples_per_period: PositiveInt
    order: Literal["random", "by_class"] = "random"


class LabelShiftDrift(DriftPaceConfig):
    """The mix of classes moves from one end of the device's classes to the other.

    The device holds ``share`` of its part at any time. At first a class counts the more the earlier
    it comes in a random order of the device's classes, after ``periods`` the more the later.
    """

    kind: Literal["label_shift"] = "label_shift"
    share: float = Field(default=0.5, gt=0.0, le=1.0)
    periods: PositiveInt = 10


class RotationDrift(DriftPaceConfig):
    """Pictures turn by ``degrees_per_period``, at most to ``most_degrees``."""

    kind: Literal["rotation"] = "rotation"
    degrees_per_period: float = Field(ge=-180.0, le=180.0)
    most_degrees: float = Field(default=90.0, gt=0.0, le=180.0)


DriftConfig = Annotated[
    NoDrift | GrowingDrift | LabelShiftDrift | RotationDrift, Field(discriminator="kind")
]
