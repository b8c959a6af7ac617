"""The same codec for every update."""

from fadelab_agent.policy.base import Observation, Plan
from fadelab_proto.codecs.config import CodecConfig


class FixedCodec:
    """Whatever is observed, write the update as the experiment says."""

    def __init__(self, codec: CodecConfig) -> None:
        self._codec = codec

    def decide(self, observation: Observation) -> Plan:
        """Return the codec for a model of that size."""
        return Plan(self._codec.build(observation.dimension, observation.layers))
