"""How a device behaves whose local periods the server schedules; read without torch."""

from pydantic import Field, PositiveFloat

from fadelab_proto.config import StrictModel


class PeriodConfig(StrictModel):
    """What a device needs besides the plans that it is told (DMA-FL, arXiv 2305.13503)."""

    cycles_per_sample: tuple[PositiveFloat, ...] = Field(
        description="a of each task, in the order in which the agent has them; it replaces that of "
        "the device's compute."
    )
    probe_samples: int = Field(
        8, ge=2, le=256, description="Samples whose gradients are looked at in each period."
    )
