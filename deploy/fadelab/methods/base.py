"""What a method is made of, and what all methods say of updates."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.lazy_config import InnovationConfig
from fadelab_agent.policy import DenseConfig, FixedCodecConfig, MadsConfig, PolicyConfig
from fadelab_proto.codecs.config import SignModulusConfig, SignOnlyConfig
from fadelab_proto.config import StrictModel
from fadelab_proto.substitutes import ConstantModulus, MeanModulus, SubstituteConfig
from fadelab_server.config import AggregationConfig
from fadelab_server.rounds.config import AllocationConfig
from fadelab_server.scheduler.config import PeriodSettings

CutUpdates = Literal["resume", "keep", "discard", "substitute"]
"""What becomes of an update that the end of a contact window cuts: the next window goes on where this
one ended; or it ends, and what has arrived is used, or nothing of it is, or what has arrived is used
with something in the place of missing moduli."""


@dataclass(frozen=True, slots=True)
class MethodPieces:
    """The server's and the devices' parts of a method."""

    aggregation: AggregationConfig
    policy: PolicyConfig
    error_memory: bool
    cut_updates: CutUpdates = "resume"
    substitute: SubstituteConfig | None = None
    innovation: InnovationConfig | None = None
    contacts: ContactConfig | None = None
    """How devices behave that train between contacts; None for those that take turns."""
    reports: bool = False
    """Whether devices report each update's figures first, and send within the round's time."""
    divides_radio: bool = False
    """Whether the server divides the radio's resources, for which it needs the radio plane."""
    allocation: AllocationConfig | None = None
    """What the server gives devices in each round, once they have told of their updates."""
    periods: PeriodSettings | None = None
    """How the server schedules devices' local periods; None where they train as they like."""


class UpdatesConfig(StrictModel):
    """How updates are sent, and what the server makes of those that did not arrive as a whole."""

    upload: PolicyConfig = Field(DenseConfig(), description="How updates are sent.")
    cut_updates: CutUpdates = Field(
        "resume",
        description="What becomes of an update that the end of a contact window cuts: resumed in "
        "the next one; or ended, and what has arrived is kept or discarded, or kept with a "
        "substitute for moduli that did not arrive.",
    )
    substitute: SubstituteConfig | None = Field(
        None,
        description="What stands in for the modulus of an entry of which only the sign arrived; "
        "with cut_updates: substitute the mean of those that did arrive when left out.",
    )

    @model_validator(mode="after")
    def _upload_can_be_chosen(self) -> Self:
        if isinstance(self.upload, MadsConfig):
            raise ValueError(  # noqa: TRY004 -- the value of a key, to pydantic
                "upload is of kind mads, which has a method of its own: name: mads"
            )
        return self

    @model_validator(mode="after")
    def _substitute_is_of_use(self) -> Self:
        codec = self.upload.codec if isinstance(self.upload, FixedCodecConfig) else None
        lone_signs = isinstance(codec, SignOnlyConfig)
        if lone_signs and not isinstance(self.substitute, ConstantModulus):
            raise ValueError(
                "the codec sign_only sends no moduli from which others could be guessed: give "
                "substitute: {kind: constant, modulus: ...}"
            )
        if self.cut_updates == "substitute" and not isinstance(
            codec, SignModulusConfig | SignOnlyConfig
        ):
            raise ValueError(
                "cut_updates is substitute, which is for signs without their moduli; the upload's "
                "codec must be sign_modulus or sign_only"
            )
        if self.substitute is not None and not lone_signs and self.cut_updates != "substitute":
            raise ValueError(
                "substitute has no effect without cut_updates: substitute: moduli are waited for, "
                "or entries without one do not count"
            )
        return self

    def stand_in(self) -> SubstituteConfig | None:
        """Return what stands in for missing moduli."""
        if self.substitute is None and self.cut_updates == "substitute":
            return MeanModulus()
        return self.substitute
