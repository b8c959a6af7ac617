"""FedAsync (Xie et al., arXiv 1903.03934): every arriving update is mixed in at once."""

from typing import Literal

from pydantic import Field

from fadelab.methods.base import CutUpdates, MethodPieces
from fadelab_agent.policy import DenseConfig, PolicyConfig
from fadelab_proto.config import StrictModel
from fadelab_server.config import FedAsyncConfig, PolynomialStaleness, StalenessConfig


class FedAsyncMethod(StrictModel):
    """Devices train on their own; ``x <- (1 - a) x + a x_new`` at each arrival."""

    name: Literal["fedasync"]
    alpha: float = Field(0.6, gt=0, le=1, description="Mixing weight of an update without delay.")
    staleness: StalenessConfig = Field(
        PolynomialStaleness(), description="How the mixing weight falls with staleness."
    )
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )
    upload: PolicyConfig = Field(DenseConfig(), description="How updates are sent.")
    error_memory: bool = Field(
        default=True, description="Keep what was not sent for the next update."
    )
    cut_updates: CutUpdates = Field(
        "resume",
        description="What becomes of an update that the end of a contact window cuts: resumed in "
        "the next one; or ended, and what has arrived is kept or discarded.",
    )

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        aggregation = FedAsyncConfig(
            alpha=self.alpha, staleness=self.staleness, max_staleness=self.max_staleness
        )
        return MethodPieces(aggregation, self.upload, self.error_memory, self.cut_updates)
