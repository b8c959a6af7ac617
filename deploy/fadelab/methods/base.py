"""What a method is made of."""

from dataclasses import dataclass
from typing import Literal

from fadelab_agent.policy import PolicyConfig
from fadelab_server.config import AggregationConfig

CutUpdates = Literal["resume", "keep", "discard"]
"""What becomes of an update that the end of a contact window cuts: the next window goes on where this
one ended; or it ends, and what has arrived is used, or nothing of it is."""


@dataclass(frozen=True, slots=True)
class MethodPieces:
    """The server's and the devices' parts of a method."""

    aggregation: AggregationConfig
    policy: PolicyConfig
    error_memory: bool
    cut_updates: CutUpdates = "resume"
