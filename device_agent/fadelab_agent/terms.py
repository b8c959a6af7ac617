"""What holds for everything that a device does in a run, and what it does it with."""

import asyncio
from dataclasses import dataclass

from fadelab_agent.config import ComputeConfig
from fadelab_agent.downlink import Downlink
from fadelab_agent.error_memory import Memory
from fadelab_agent.keepsake import Keepsake
from fadelab_agent.membership import Membership
from fadelab_agent.policy import Policy
from fadelab_agent.radio import Radio
from fadelab_agent.uplink import Uplink
from fadelab_agent.work import TaskWork
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskParts:
    """What one task's loop works with."""

    work: TaskWork
    """Trains, and knows the model's layout."""
    policy: Policy
    """Decides how each update is sent."""
    memory: Memory
    """What was not sent yet."""
    keepsake: Keepsake
    """Keeps the update that is under way for the case that this process is killed."""
    membership: Membership
    radio: Radio
    uplink: Uplink
    downlink: Downlink
    clock: Clock
    log: EventLog
    compute_lock: asyncio.Lock
    """Held while training, so that tasks of one device share its processor."""
