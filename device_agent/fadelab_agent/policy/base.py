"""What a device policy is: an observation in, a plan out, no I/O.

The same policy runs on the wire, in a formula twin and in tests. It sees only what a device could
know at that moment.
"""

from dataclasses import dataclass
from typing import Protocol

from fadelab_proto.codecs import Codec


@dataclass(frozen=True, slots=True)
class Observation:
    """What a device knows when it has an update to send."""

    dimension: int
    """Number of model parameters."""
    update_number: int
    """The device's count of this task's updates, from 1."""
    base_age_s: float
    """Seconds since the base model was downloaded."""
    rate_up_bps: float
    """Present uplink rate, layer 2, as the modem reports it."""
    snr_db: float
    predicted_contact_s: float
    """Predicted remaining contact time; 0 outside a window."""
    squared_norm: float
    """Squared Euclidean norm of what waits to be sent, error memory included."""
    layers: tuple[int, ...] = ()
    """Parameters of each of the model's tensors, in order; empty where they are not known."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the device will do with this update."""

    codec: Codec


class Policy(Protocol):
    """Decide how an update is sent."""

    def decide(self, observation: Observation) -> Plan:
        """Return the plan for one update; the same observation gives the same plan."""
        ...
