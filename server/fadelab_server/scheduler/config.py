"""What the scheduling of local periods goes by (DMA-FL, arXiv 2305.13503, tables I and II)."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fadelab_proto.config import StrictModel


def _in_order(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the first number must not be above the second; got {list(limits)}")
    return limits


Interval = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_in_order)]
WholeInterval = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_in_order)]


class PeriodSettings(StrictModel):
    """What is decided about local periods, and by which weights."""

    schedule: Literal["rolling", "at_once", "rounds"] = Field(
        "rolling",
        description="Who receives and uploads when: as the rolling horizon decides; each device as "
        "soon as it can; or all devices in rounds.",
    )
    resources: Literal["optimised", "fixed"] = Field(
        "optimised",
        description="Clock, batch, steps and waiting: as the closed forms decide, or those of "
        "devices.compute and training, without waiting.",
    )
    staleness_cap: int = Field(
        5, ge=0, le=1000, description="K: no update of the rolling schedule is staler."
    )
    learning_weight: NonNegativeFloat = Field(1e-9, description="c1, of the bound.")
    device_energy_weight: NonNegativeFloat = Field(1.0, description="c2, per joule of a device.")
    station_energy_weight: NonNegativeFloat = Field(
        1.0, description="c3, per joule of the base station."
    )
    energy_budget_j: PositiveFloat | None = Field(
        None, description="E_B: what each device may spend on computing and sending; no limit."
    )
    cpu_hz: Interval = Field((1e6, 1e7), description="Least and highest clock of all tasks.")
    steps: WholeInterval = Field((1, 20), description="Fewest and most local steps.")
    probe_samples: int = Field(
        8,
        ge=2,
        le=256,
        description="Samples whose gradients a device looks at in each period, for the bound.",
    )


class TaskScheduling(StrictModel):
    """What the scheduler needs to know of a task."""

    importance: NonNegativeFloat = 1.0
    energy_weight: NonNegativeFloat = 1.0
    learning_rate: PositiveFloat
    proximal: NonNegativeFloat = 0.0
    steps: PositiveInt = Field(description="Of a device's first period, and of fixed resources.")
    batch_size: PositiveInt = Field(description="Likewise.")


class SchedulingConfig(PeriodSettings):
    """Everything that the server needs to schedule local periods."""

    window_s: PositiveFloat = Field(description="T_QoE: seconds after the start.")
    tasks: tuple[TaskScheduling, ...]
    first_cpu_hz: PositiveFloat = Field(
        description="Clock of a device's first period, and of fixed resources."
    )
    capacitance_j_s2: tuple[PositiveFloat, ...] = Field(description="xi of each device.")
    cycles_per_sample: tuple[tuple[PositiveFloat, ...], ...] = Field(
        description="a of each device for each task."
    )

    @property
    def in_rounds(self) -> bool:
        """Return whether devices train in rounds from a common version."""
        return self.schedule == "rounds"

    def check(self, *, devices: int, tasks: int) -> Self:
        """Raise ValueError if this is for other numbers of devices and tasks."""
        shape = (len(self.capacitance_j_s2), {len(row) for row in self.cycles_per_sample})
        if shape != (devices, {tasks}) or len(self.cycles_per_sample) != devices:
            raise ValueError(
                f"scheduling is not for {devices} devices and {tasks} tasks, as the server is"
            )
        return self
