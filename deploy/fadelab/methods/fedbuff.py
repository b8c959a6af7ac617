"""FedBuff (Nguyen et al., AISTATS 2022): asynchronous updates, applied a few at a time."""

from typing import Literal

from pydantic import Field

from fadelab.methods.base import MethodPieces, UpdatesConfig
from fadelab_agent.contact_config import ContactConfig
from fadelab_server.config import FedBuffConfig, PolynomialStaleness, StalenessConfig


class FedBuffMethod(UpdatesConfig):
    """Devices train on their own; every few arrivals make a new version, whoever they are from."""

    name: Literal["fedbuff"]
    buffer: int = Field(10, ge=1, description="Updates that make a new version.")
    server_rate: float = Field(1.0, gt=0, description="What their mean is multiplied by.")
    staleness: StalenessConfig = Field(
        PolynomialStaleness(), description="How the server weighs stale updates."
    )
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )
    error_memory: bool = Field(
        default=True, description="Keep what was not sent for the next update."
    )
    contacts: ContactConfig | None = Field(
        None,
        description="Train between contacts and upload in each; when left out, devices upload "
        "whenever they have trained for their local steps.",
    )

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        aggregation = FedBuffConfig(
            buffer=self.buffer,
            server_rate=self.server_rate,
            staleness=self.staleness,
            max_staleness=self.max_staleness,
        )
        return MethodPieces(
            aggregation,
            self.upload,
            self.error_memory,
            self.cut_updates,
            self.stand_in(),
            contacts=self.contacts,
        )
