"""SP-FL on the server: rounds with a deadline, signs and moduli apart, resources divided by rounds."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fadelab_proto.config import StrictModel
from fadelab_proto.substitutes import ConstantModulus

LossMode = Literal["deadline", "datagram", "bernoulli", "error_free"]
"""How packets get lost: what is incomplete at the deadline; datagrams, by the link; at the receiver,
drawn from the formula; or not at all."""


class RunningMean(StrictModel):
    """By coordinate, the mean over devices of the moduli that arrived, and over past rounds."""

    kind: Literal["running_mean"] = "running_mean"
    memory: float = Field(
        0.5, ge=0, lt=1, description="Weight of past rounds; 0 is the last round alone."
    )


class LastOfDevice(StrictModel):
    """The moduli that arrived last from the same device."""

    kind: Literal["last_device"]


class LastGlobal(StrictModel):
    """By coordinate, how far the last round moved the global model."""

    kind: Literal["last_global"]


class NoModulus(StrictModel):
    """Nothing: signs alone do not move the model."""

    kind: Literal["zero"]


CompensationConfig = Annotated[
    RunningMean | LastOfDevice | LastGlobal | ConstantModulus | NoModulus,
    Field(discriminator="kind"),
]

AllocationConfig = Literal["equal", "power", "bandwidth", "full", "signs_first"]
"""What is decided in each round: nothing; the power split; the bandwidth; all; or nearly everything
is the signs' as soon as there is something to stand in for moduli."""


class SpFlSettings(StrictModel):
    """Synchronous rounds in which signs and moduli arrive, or do not, each for themselves."""

    packets: Literal["split", "joint", "signs"] = Field(
        "split",
        description="Signs and moduli count apart; or an update counts only if both arrived; or "
        "signs alone are sent.",
    )
    loss: LossMode = Field("deadline", description="How packets get lost.")
    deadline_s: float = Field(
        1.0, gt=0, description="Emulated seconds that the uploads of a round have."
    )
    slot_s: float | None = Field(
        None,
        gt=0,
        description="Uploads begin at multiples of this, such as the channel's coherence time; "
        "left out: as soon as the round is decided.",
    )
    access: Literal["fdm", "tdm", "parallel"] = Field(
        "fdm",
        description="Both classes of a device divide its band, or its time, or each has all of "
        "both, which is spectrum for nothing.",
    )
    fading: Literal["common", "independent"] = Field(
        "common", description="Whether both classes of a device meet one fade."
    )
    allocation: AllocationConfig = Field("full", description="What is decided in each round.")
    decides_class_share: bool = Field(
        default=True, description="Whether the bands of the two classes are decided too."
    )
    scheduled: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Part of the devices that send in a round: those with the best channels.",
    )
    least_success: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Devices whose signs would arrive less often, with an equal band to themselves, "
        "stay silent where resources are decided.",
    )
    scaling: Literal["ipw", "clipped", "received"] = Field(
        "received",
        description="Updates are divided by their probability; by that, but by no less than "
        "least_scale; or the mean is over those that arrived.",
    )
    least_scale: float = Field(0.15, gt=0, le=1, description="For scaling: clipped.")
    compensation: CompensationConfig = Field(
        RunningMean(), description="What stands in for moduli that did not arrive."
    )
    vote: Literal["mean", "majority"] = Field(
        "mean", description="Majority: by coordinate, a constant step to where most signs point."
    )
    lost: Literal["drop", "last_global"] = Field(
        "drop",
        description="What an update counts of which not even the signs arrived: nothing, or the "
        "last global step again.",
    )
    server_rate: float = Field(1.0, gt=0, description="What the mean update is multiplied by.")
    modulus_bits: int = Field(3, ge=1, le=16, description="Bits of each modulus on its way.")
    wire_factor: float = Field(
        1.06,
        ge=1,
        description="Bytes on the wire over bytes of payload: the headers of TCP/IP, Ethernet and "
        "gRPC. Used for predictions and the allocation.",
    )
    ahead_bytes: int = Field(
        1514,
        ge=0,
        description="With loss deadline: bytes of a class that do not take time at its rate. A link's "
        "shaper lets two full frames through at once after a pause; what calls and connections cost "
        "beside wire_factor is less than one.",
    )
    kappa: float | None = Field(
        None,
        gt=0,
        le=1,
        description="How compensation errors of different devices add up; left out: estimated "
        "from the moduli that arrive.",
    )
    step: float = Field(
        1.0, gt=0, le=1, description="L eta: what variance counts beside bias when deciding."
    )
    report_wait_s: float = Field(
        10.0, gt=0, description="Emulated seconds that a round waits for the reports of all."
    )

    @model_validator(mode="after")
    def _lone_signs_need_a_modulus(self) -> Self:
        if self.packets == "signs" and not isinstance(self.compensation, ConstantModulus):
            raise ValueError(
                "packets is signs, so that no moduli ever arrive: compensation must be of kind "
                f"constant, not {self.compensation.kind}; packets: split with allocation: "
                "signs_first remembers the moduli of the first rounds"
            )
        if self.vote == "majority" and not isinstance(self.compensation, ConstantModulus):
            raise ValueError(
                "vote is majority, whose step is compensation: {kind: constant, modulus: ...}"
            )
        return self

    @model_validator(mode="after")
    def _only_the_split_is_decided(self) -> Self:
        if self.packets != "split" and self.allocation != "equal":
            raise ValueError(
                f"packets is {self.packets}, which leaves nothing to divide between classes: "
                f"allocation must be equal, not {self.allocation}"
            )
        if self.packets == "joint" and self.loss == "datagram":
            raise ValueError(
                "packets is joint and loss is datagram: one lost datagram would cost an update; "
                "take loss: bernoulli or deadline"
            )
        return self

    @property
    def has_deadline(self) -> bool:
        """Whether rounds end at a time, whatever has arrived."""
        return self.loss in ("deadline", "datagram")

    @property
    def needs_channels(self) -> bool:
        """Whether the server must know and divide the radio's resources."""
        return self.loss != "error_free"


class SpFlConfig(SpFlSettings):
    """The same as an aggregation rule."""

    kind: Literal["sp_fl"] = "sp_fl"
