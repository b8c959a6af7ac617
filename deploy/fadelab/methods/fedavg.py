"""FedAvg (McMahan et al. 2017) and FedAvg-Partial: synchronous rounds."""

from typing import Literal

from pydantic import Field

from fadelab.methods.base import MethodPieces, UpdatesConfig
from fadelab_server.config import FedAvgConfig, Missing


class FedAvgMethod(UpdatesConfig):
    """All devices train from the same version; their updates are averaged by samples."""

    name: Literal["fedavg"]
    quorum: int | None = Field(
        None, ge=1, description="Updates that end a round; all devices in the run when left out."
    )
    error_memory: bool = Field(
        default=True, description="Keep what was not sent for the next update."
    )
    missing: Missing | None = Field(
        None,
        description="Coordinates that did not arrive count as zero, or the mean is over the "
        "devices whose packets cover them; when left out, zero with error memory, else reweigh.",
    )

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        missing = self.missing or ("zero" if self.error_memory else "reweigh")
        return MethodPieces(
            FedAvgConfig(quorum=self.quorum, missing=missing),
            self.upload,
            self.error_memory,
            self.cut_updates,
            self.stand_in(),
        )
