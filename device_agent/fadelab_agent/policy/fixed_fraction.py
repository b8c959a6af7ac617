"""Send the same share of entries every time: the classical sparsification baseline."""

from typing import Literal

from fadelab_agent.policy.base import Observation, Plan
from fadelab_proto.codecs import TopK


class FixedFraction:
    """Keep ``fraction`` of the entries, rounded, at least one."""

    def __init__(self, fraction: float, indices: Literal["best", "paper"] = "best") -> None:
        self._fraction = fraction
        self._indices: Literal["best", "paper"] = indices

    def decide(self, observation: Observation) -> Plan:
        """Return top-k with ``k_keep = max(1, round(fraction * dimension))``."""
        k_keep = max(1, round(self._fraction * observation.dimension))
        return Plan(TopK(k_keep, indices=self._indices), k_keep=k_keep)
