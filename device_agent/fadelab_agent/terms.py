"""What holds for everything that a device does in a run."""

from dataclasses import dataclass

from fadelab_agent.config import ComputeConfig
from fadelab_proto.substitutes import SubstituteConfig


@dataclass(frozen=True, slots=True)
class DeviceTerms:
    """What holds for every update of a device."""

    run_id: int
    seed: int
    device: int
    max_payload_bytes: int
    uplink_power_w: float
    downlink_power_w: float
    compute: ComputeConfig
    gives_up: bool = False
    """Whether an update ends with the contact window that it was sent in."""
    substitute: SubstituteConfig | None = None
    """What the server puts in the place of moduli that did not arrive."""
