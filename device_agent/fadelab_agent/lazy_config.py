"""Which of its innovations a device sends, as an experiment file names it.

Updates here are what training changed in the model, not gradients, and the server moves the model
by their mean. In the papers' terms that is a step size of ``gain`` = 1, for LAQ times the number of
devices.
"""

from typing import Annotated, Literal

from pydantic import Field

from fadelab_agent.innovation import AlwaysUpload, AquilaRule, LaqRule, UploadRule
from fadelab_proto.config import StrictModel

_GAIN = "How far the model moves for an update, were it that of all devices."


class AlwaysConfig(StrictModel):
    """Send every innovation."""

    kind: Literal["always"]

    def build(self) -> UploadRule:
        """Return the rule."""
        return AlwaysUpload()


class LaqRuleConfig(StrictModel):
    """LAQ's rule: send what outweighs the model's last steps, or after a long silence."""

    kind: Literal["laq"] = "laq"
    gain: float = Field(1.0, gt=0, description=_GAIN)
    steps: int = Field(10, ge=1, le=1000, description="Last steps of the model that count (D).")
    share: float = Field(
        0.8, ge=0, description="Weight of these steps together: the sum of all xi."
    )
    longest_silence: int = Field(
        100, ge=1, description="Rounds after which a device sends in any case (C)."
    )

    def build(self) -> UploadRule:
        """Return the rule."""
        return LaqRule(
            learning_rate=self.gain,
            devices=1,
            weights=(self.share / self.steps,) * self.steps,
            longest_silence=self.longest_silence,
        )


class AquilaRuleConfig(StrictModel):
    """AQUILA's rule: send what outweighs the model's last step."""

    kind: Literal["aquila"]
    gain: float = Field(1.0, gt=0, description=_GAIN)
    beta: float = Field(0.1, gt=0, description="Weight of the step; 0.1 to 0.25 are usual.")

    def build(self) -> UploadRule:
        """Return the rule."""
        return AquilaRule(learning_rate=self.gain, beta=self.beta)


InnovationConfig = Annotated[
    AlwaysConfig | LaqRuleConfig | AquilaRuleConfig, Field(discriminator="kind")
]
