"""Send everything: the uncompressed baseline."""

from fadelab_agent.policy.base import Observation, Plan
from fadelab_proto.codecs import DenseF32


class Dense:
    """Every entry as float32."""

    def decide(self, observation: Observation) -> Plan:
        """Return the dense codec whatever is observed."""
        return Plan(DenseF32(), k_keep=observation.dimension)
