"""EMQ (Mahmoudi, Xiao and Bjornson, arXiv 2412.20785): adaptive quantisation and power control.

What it computes stands in docs/methods/emq.md. Synchronous rounds over a cell-free uplink: devices
train and report the bits of their coded updates, the server decides all power coefficients, devices
upload. Baselines are settings: of ``power_control``, of ``upload`` (``dense`` is FedAvg with 32 bit)
and of ``innovation`` (LAQ and AQUILA, lazy or not).
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from fadelab.methods.base import MethodPieces, UpdatesConfig
from fadelab_agent.lazy_config import InnovationConfig
from fadelab_agent.policy import FixedCodecConfig, PolicyConfig
from fadelab_proto.codecs.config import EmqConfig
from fadelab_server.config import FedAvgConfig, LazyConfig
from fadelab_server.rounds.config import (
    BudgetConfig,
    CellFreeAllocationConfig,
    MinMaxConfig,
    PowerControlConfig,
    check_budgets,
)


class EmqMethod(UpdatesConfig):
    """Rounds in which the server sets all devices' powers once their updates' sizes are known."""

    name: Literal["emq"]
    upload: PolicyConfig = Field(
        FixedCodecConfig(codec=EmqConfig(kind="emq")), description="How updates are sent."
    )
    power_control: PowerControlConfig = Field(
        MinMaxConfig(kind="min_max"), description="How the server divides power among devices."
    )
    budget: BudgetConfig = Field(BudgetConfig(), description="What training may cost.")
    during_round: Literal["hold", "recompute"] = Field(
        "hold", description="Whether powers change when a device has finished its upload."
    )
    innovation: InnovationConfig | None = Field(
        None,
        description="Send how updates changed, as far as this rule finds it worth sending: LAQ and "
        "AQUILA. Takes the error memory's place.",
    )
    error_memory: bool = Field(
        default=False, description="Keep what was not sent for the next update."
    )

    @model_validator(mode="after")
    def _budgets_are_given(self) -> Self:
        check_budgets(self.power_control, self.budget)
        return self

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        return MethodPieces(
            FedAvgConfig(missing="zero") if self.innovation is None else LazyConfig(),
            self.upload,
            error_memory=self.error_memory and self.innovation is None,
            cut_updates=self.cut_updates,
            substitute=self.stand_in(),
            innovation=self.innovation,
            allocation=CellFreeAllocationConfig(
                power_control=self.power_control,
                budget=self.budget,
                during_round=self.during_round,
            ),
        )
