"""What a device policy is: an observation in, a plan out, no I/O.

The same policy runs on the wire, in a formula twin and in tests. It sees only what a device could
know at that moment.
"""

from dataclasses import dataclass
from typing import Protocol

from fadelab_agent.policy.magnitude_fit import MagnitudeFit
from fadelab_proto.codecs import Codec


@dataclass(frozen=True, slots=True)
class ContactObservation:
    """What a device that sends once in each contact knows besides, when one begins."""

    power_w: float
    """Transmit power in force, at which the observed rate and SNR hold."""
    max_power_w: float
    bandwidth_hz: float
    """Of the uplink, as it follows from its present rate and SNR; 0 where no SNR is known."""
    snr_per_w: float | None
    """Signal-to-noise ratio per watt of transmit power; None where no SNR is known."""
    full_rate_bps: float
    """What the uplink would have at the maximum power."""
    staleness: float
    """Versions that the device's model is estimated to be behind now."""
    expected_staleness: float
    """Versions that its model has been behind when it got a new one, on average."""
    mean_contact_s: float
    """Mean of the contact times that were predicted at their beginnings, this one included."""
    first_squared_norm: float
    """Squared norm of what waited at the device's first contact."""
    queue_j: float
    """Energy spent beyond the allowance so far."""
    allowance_j: float | None
    """Energy that a contact may cost on average; None without a bound."""
    setup_s: float
    """From the decision to the first byte, as measured in past contacts."""
    acknowledgement_s: float
    """What past uploads took beyond the time that their bits explain: round trip and server."""
    download_s: float
    """What the next model will take to arrive, by the size of past ones and the present rate."""
    max_payload_bytes: int
    """Largest payload of a packet."""
    fit: MagnitudeFit | None = None
    """How fast the magnitudes of what waits fall; None if it was not looked at."""


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
    contact: ContactObservation | None = None
    """What devices that send once in each contact know besides; None for others."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the device will do with this update."""

    codec: Codec
    power_w: float | None = None
    """Transmit power to send with; None for the maximum."""
    skip: bool = False
    """Send nothing in this contact; the codec does not matter then."""
    k_keep: int | None = None
    """Entries kept; None where the codec decides that."""
    safe_contact_s: float | None = None
    """Seconds of contact that the plan counts on; None if it counts on none in particular."""
    weight: float | None = None
    """How much the plan made of staleness; None if nothing."""


class Policy(Protocol):
    """Decide how an update is sent."""

    def decide(self, observation: Observation) -> Plan:
        """Return the plan for one update; the same observation gives the same plan."""
        ...
