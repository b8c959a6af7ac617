"""FedAsync (Xie et al., arXiv 1903.03934): every arriving update is mixed in at once."""

from typing import Literal

from pydantic import Field

from fadelab.methods.base import MethodPieces, UpdatesConfig
from fadelab_server.config import FedAsyncConfig, Missing, PolynomialStaleness, StalenessConfig


class FedAsyncMethod(UpdatesConfig):
    """Devices train on their own; ``x <- (1 - a) x + a x_new`` at each arrival."""

    name: Literal["fedasync"]
    alpha: float = Field(0.6, gt=0, le=1, description="Mixing weight of an update without delay.")
    staleness: StalenessConfig = Field(
        PolynomialStaleness(), description="How the mixing weight falls with staleness."
    )
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )
    error_memory: bool = Field(
        default=True, description="Keep what was not sent for the next update."
    )
    missing: Missing = Field(
        "reweigh",
        description="Coordinates that did not arrive stay as they are, or are mixed in as "
        "unchanged since the base version (zero).",
    )

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        aggregation = FedAsyncConfig(
            alpha=self.alpha,
            staleness=self.staleness,
            max_staleness=self.max_staleness,
            missing=self.missing,
        )
        return MethodPieces(
            aggregation, self.upload, self.error_memory, self.cut_updates, self.stand_in()
        )
