"""Send the same share of entries every time: the classical sparsification baseline."""

from fadelab_agent.policy.base import Observation, Plan
from fadelab_proto.codecs import TopK


class FixedFraction:
    """Keep ``fraction`` of the entries, rounded, at least one."""

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction

    def decide(self, observation: Observation) -> Plan:
        """Return top-k with ``k_keep = max(1, round(fraction * dimension))``."""
        return Plan(TopK(max(1, round(self._fraction * observation.dimension))))
