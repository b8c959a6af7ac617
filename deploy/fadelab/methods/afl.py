"""Plain asynchronous federated learning over contacts: the baselines of MADS.

With ``upload: {kind: dense}`` a contact that is too short for the whole model yields nothing; with
``upload: {kind: topk, fraction: 0.05, indices: paper}`` every update keeps the same share of entries.
"""

from typing import Literal

from pydantic import Field

from fadelab.methods.base import CutUpdates, MethodPieces, UpdatesConfig
from fadelab_agent.contact_config import ContactConfig
from fadelab_server.config import AflConfig, ConstantStaleness, StalenessConfig


class AflMethod(UpdatesConfig):
    """Devices train between contacts and upload in each; ``w <- w + g delta / N`` at each arrival."""

    name: Literal["afl"]
    contacts: ContactConfig = Field(
        ContactConfig(), description="How long devices train, and what contacts may cost."
    )
    cut_updates: CutUpdates = Field(
        "discard",
        description="What becomes of an update that the end of a contact cuts; as in other "
        "methods.",
    )
    staleness: StalenessConfig = Field(
        ConstantStaleness(), description="How the server weighs stale updates."
    )
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )
    server_rate: float = Field(1.0, gt=0, description="What the server multiplies updates by.")
    error_memory: bool = Field(
        default=True, description="Keep what was not sent for the next update."
    )

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        aggregation = AflConfig(
            staleness=self.staleness,
            max_staleness=self.max_staleness,
            server_rate=self.server_rate,
        )
        return MethodPieces(
            aggregation,
            self.upload,
            self.error_memory,
            self.cut_updates,
            self.stand_in(),
            contacts=self.contacts,
        )
