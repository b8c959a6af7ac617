"""How a server allocates in rounds, as an experiment file names it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fadelab_proto.config import StrictModel


class SqpBudgetConfig(StrictModel):
    """Most rounds inside the energy and latency budgets, by SQP; needs both budgets."""

    kind: Literal["sqp_budget"] = "sqp_budget"


class SqpWeightedConfig(StrictModel):
    """Least ``energy_weight * energy + latency_weight * latency`` of a round, by SQP."""

    kind: Literal["sqp_weighted"]
    energy_weight: float = Field(1.0, ge=0, description="Weight of a joule, theta 1.")
    latency_weight: float = Field(1.0, gt=0, description="Weight of a second, theta 2.")


class DinkelbachConfig(StrictModel):
    """Largest least energy efficiency, by Dinkelbach's generalised method."""

    kind: Literal["dinkelbach"]
    radiated_per_w: float = Field(1.0, gt=0, description="Weight of the radiated power, z0.")
    constant: float = Field(1.0, gt=0, description="Power that is spent anyway, z1.")


class MinMaxConfig(StrictModel):
    """Shortest round: all uploads take equally long."""

    kind: Literal["min_max"]


class FullPowerConfig(StrictModel):
    """Everybody sends with full power."""

    kind: Literal["full"]


class WmmseConfig(StrictModel):
    """Largest sum of rates; devices that are heard badly may get no power at all."""

    kind: Literal["wmmse"]


class CoordinateDescentConfig(StrictModel):
    """Weighted energy and latency, one device's power after the other."""

    kind: Literal["coordinate_descent"]
    energy_weight: float = Field(1.0, ge=0, description="Weight of a joule, theta 1.")
    latency_weight: float = Field(1.0, gt=0, description="Weight of a second, theta 2.")


PowerControlConfig = Annotated[
    SqpBudgetConfig
    | SqpWeightedConfig
    | DinkelbachConfig
    | MinMaxConfig
    | FullPowerConfig
    | WmmseConfig
    | CoordinateDescentConfig,
    Field(discriminator="kind"),
]


class BudgetConfig(StrictModel):
    """What training may cost; the run ends with the first round that goes beyond it."""

    energy_j: float | None = Field(
        None, gt=0, description="Radiated and computing energy of all devices; no limit without."
    )
    latency_s: float | None = Field(
        None,
        gt=0,
        description="Sum of the rounds' computing and longest uploads; no limit without.",
    )
    counts: Literal["planned", "measured"] = Field(
        "planned",
        description="Whether uploads count with the times that the formulas give or with those "
        "that were measured.",
    )


def check_budgets(power_control: PowerControlConfig, budget: BudgetConfig) -> None:
    """Raise ValueError where a power control needs budgets that are not given."""
    if isinstance(power_control, SqpBudgetConfig) and None in (budget.energy_j, budget.latency_s):
        raise ValueError(
            "power_control is sqp_budget, which looks at what is left of both budgets: give "
            "budget: {energy_j: ..., latency_s: ...}"
        )


class CellFreeAllocationConfig(StrictModel):
    """Power coefficients of all devices of a cell-free uplink, decided once for each round."""

    kind: Literal["cell_free"] = "cell_free"
    power_control: PowerControlConfig = MinMaxConfig(kind="min_max")
    budget: BudgetConfig = BudgetConfig()
    during_round: Literal["hold", "recompute"] = Field(
        "hold",
        description="Whether powers hold until the round is over, or are decided anew for the "
        "others whenever a device has finished.",
    )

    @model_validator(mode="after")
    def _budgets_are_given(self) -> Self:
        check_budgets(self.power_control, self.budget)
        return self


AllocationConfig = CellFreeAllocationConfig
