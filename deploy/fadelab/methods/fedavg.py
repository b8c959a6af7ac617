"""FedAvg (McMahan et al. 2017) and FedAvg-Partial: synchronous rounds."""

from typing import Literal

from pydantic import Field

from fadelab.methods.base import CutUpdates, MethodPieces
from fadelab_agent.policy import DenseConfig, PolicyConfig
from fadelab_proto.config import StrictModel
from fadelab_server.config import FedAvgConfig


class FedAvgMethod(StrictModel):
    """All devices train from the same version; their updates are averaged by samples."""

    name: Literal["fedavg"]
    quorum: int | None = Field(
        None, ge=1, description="Updates that end a round; all devices in the run when left out."
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
        return MethodPieces(
            FedAvgConfig(quorum=self.quorum), self.upload, self.error_memory, self.cut_updates
        )
