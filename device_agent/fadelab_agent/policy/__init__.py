"""Device policies, one file each."""

from typing import Annotated, Literal

from pydantic import Field

from fadelab_agent.policy.base import ContactObservation, Observation, Plan, Policy
from fadelab_agent.policy.dense import Dense
from fadelab_agent.policy.emq import EmqPolicy, EmqPolicyConfig
from fadelab_agent.policy.fixed_codec import FixedCodec
from fadelab_agent.policy.fixed_fraction import FixedFraction
from fadelab_agent.policy.mads import Mads, MadsConfig
from fadelab_proto.codecs.config import CodecConfig
from fadelab_proto.config import StrictModel

__all__ = [
    "ContactObservation",
    "Dense",
    "DenseConfig",
    "EmqPolicy",
    "EmqPolicyConfig",
    "FixedCodec",
    "FixedCodecConfig",
    "FixedFraction",
    "FixedFractionConfig",
    "Mads",
    "MadsConfig",
    "Observation",
    "Plan",
    "Policy",
    "PolicyConfig",
    "build_policy",
]


class DenseConfig(StrictModel):
    """Send every entry."""

    kind: Literal["dense"] = "dense"


class FixedFractionConfig(StrictModel):
    """Send a fixed share of the entries, those of largest magnitude."""

    kind: Literal["topk"] = "topk"
    fraction: float = Field(gt=0, le=1, description="Share of the entries that is kept.")
    indices: Literal["best", "paper"] = Field(
        "best", description="The smallest code of the indices, or ceil(log2 n) bits for each."
    )


class FixedCodecConfig(StrictModel):
    """Write every update with the same codec."""

    kind: Literal["codec"] = "codec"
    codec: CodecConfig


PolicyConfig = Annotated[
    DenseConfig | FixedFractionConfig | FixedCodecConfig | EmqPolicyConfig | MadsConfig,
    Field(discriminator="kind"),
]


def build_policy(config: PolicyConfig) -> Policy:
    """Return a fresh policy."""
    match config:
        case DenseConfig():
            return Dense()
        case FixedFractionConfig(fraction=fraction, indices=indices):
            return FixedFraction(fraction, indices)
        case FixedCodecConfig(codec=codec):
            return FixedCodec(codec)
        case EmqPolicyConfig():
            return EmqPolicy(config)
        case MadsConfig():
            return Mads(config)
