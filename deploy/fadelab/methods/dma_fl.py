"""DMA-FL (Chang et al., arXiv 2305.13503): several tasks, asynchronous, under drifting data.

What it computes stands in docs/methods/dma_fl.md, and which settings are the baselines.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from fadelab.methods.base import MethodPieces
from fadelab_agent.policy import DenseConfig
from fadelab_server.config import (
    DmaFlConfig,
    FedAvgConfig,
    PolynomialStaleness,
    StalenessConfig,
)
from fadelab_server.scheduler.config import Interval, PeriodSettings


class DmaFlMethod(PeriodSettings):
    """The server tells each device when to receive, compute and upload which task."""

    name: Literal["dma_fl"]
    alpha: float = Field(0.6, gt=0, le=1, description="Mixing weight of an update without delay.")
    staleness: StalenessConfig = Field(
        PolynomialStaleness(), description="How the mixing weight falls with staleness."
    )
    quorum: int | None = Field(
        None,
        ge=1,
        description="With schedule rounds: updates that end one; all devices when left out.",
    )
    capacitance_j_s2: Interval | None = Field(
        None,
        description="xi is drawn uniformly from here for each device; that of devices.compute when "
        "left out.",
    )
    cycles_per_sample: Interval | None = Field(
        None, description="a likewise, for each device and task."
    )

    @model_validator(mode="after")
    def _rounds_alone_have_a_quorum(self) -> Self:
        if self.quorum is not None and self.schedule != "rounds":
            raise ValueError(f"quorum is for schedule rounds, and schedule is {self.schedule}")
        if self.schedule == "rounds" and self.resources != "fixed":
            raise ValueError(
                "with schedule rounds, resources must be fixed: the bound that they are chosen by is "
                "for one aggregation at each arrival"
            )
        return self

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        aggregation: DmaFlConfig | FedAvgConfig = DmaFlConfig(
            alpha=self.alpha,
            staleness=self.staleness,
            max_staleness=self.staleness_cap if self.schedule == "rolling" else None,
        )
        if self.schedule == "rounds":
            aggregation = FedAvgConfig(quorum=self.quorum)
        return MethodPieces(aggregation, DenseConfig(), error_memory=False, periods=self)
