"""What a method is made of."""

from dataclasses import dataclass

from fadelab_agent.policy import PolicyConfig
from fadelab_server.config import AggregationConfig


@dataclass(frozen=True, slots=True)
class MethodPieces:
    """The server's and the devices' parts of a method."""

    aggregation: AggregationConfig
    policy: PolicyConfig
    error_memory: bool
