"""EMQ's adaptation over rounds: an error that falls from update to update, or a budget of bits.

Early updates point roughly the right way whatever their error, late ones have to be exact. The
quantiser's principle is that of arXiv 2412.20785; this schedule is ours.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from fadelab_agent.policy.base import Observation, Plan
from fadelab_proto.codecs.emq_fitted import EmqWithinBits, EmqWithinError
from fadelab_proto.config import StrictModel


class EmqPolicyConfig(StrictModel):
    """EMQ with bits by the significance of entries (``nmse``) or by a budget (``bits_per_entry``)."""

    kind: Literal["emq"] = "emq"
    adaptive: bool = Field(
        default=True, description="Whether small entries get fewer mantissa bits than large ones."
    )
    nmse: float | None = Field(
        None, gt=0, lt=1, description="Error of the first update at most, relative to its square."
    )
    nmse_decay: float = Field(
        1.0, gt=0, le=1, description="What the error is multiplied by from update to update."
    )
    least_nmse: float = Field(1e-6, gt=0, lt=1, description="Where it stops falling.")
    bits_per_entry: float | None = Field(
        None, ge=2, le=16, description="Nominal bits of an entry at most, on average."
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.nmse is None) == (self.bits_per_entry is None):
            raise ValueError("give either nmse or bits_per_entry, not both and not neither")
        return self


class EmqPolicy:
    """Choose what the code of an update has to keep."""

    def __init__(self, config: EmqPolicyConfig) -> None:
        self._config = config

    def decide(self, observation: Observation) -> Plan:
        """Return the codec for the device's n-th update."""
        config = self._config
        if config.nmse is None:
            assert config.bits_per_entry is not None
            return Plan(EmqWithinBits(config.bits_per_entry, config.adaptive))
        allowed = config.nmse * config.nmse_decay ** (observation.update_number - 1)
        return Plan(EmqWithinError(max(allowed, config.least_nmse), config.adaptive))
