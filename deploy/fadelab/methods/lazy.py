"""Lazily aggregated innovations: LAQ (Sun et al., NeurIPS 2019) and AQUILA (Zhao et al. 2023)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fadelab.methods.base import MethodPieces, UpdatesConfig
from fadelab_agent.lazy_config import InnovationConfig, LaqRuleConfig
from fadelab_proto.substitutes import LastStep
from fadelab_server.config import LazyConfig


class LazyMethod(UpdatesConfig):
    """Synchronous rounds; a device sends how its update changed, and nothing if that is little."""

    name: Literal["lazy"]
    quorum: int | None = Field(
        None,
        ge=1,
        description="Devices that must speak before a round ends; all in the run when left out.",
    )
    innovation: InnovationConfig = Field(
        LaqRuleConfig(), description="Which innovations are worth sending."
    )

    @model_validator(mode="after")
    def _references_agree(self) -> Self:
        if self.substitute == LastStep():
            raise ValueError(
                "substitute is last_step, which a device cannot know; with lazy aggregation it "
                "must know what the server has of it: mean_modulus and constant are allowed"
            )
        return self

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        return MethodPieces(
            LazyConfig(quorum=self.quorum),
            self.upload,
            # Whatever does not arrive stays in the difference to the reference.
            error_memory=False,
            cut_updates=self.cut_updates,
            substitute=self.stand_in(),
            innovation=self.innovation,
        )
