"""What a device knows at the beginning of a contact, put before its policy and written down."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.contact_history import ContactHistory
from fadelab_agent.policy import ContactObservation, Observation, Plan
from fadelab_agent.policy.energy_queue import EnergyQueue
from fadelab_agent.policy.magnitude_fit import fit_magnitudes
from fadelab_agent.radio import LinkView
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_proto.events import Value

F32 = NDArray[np.float32]
_LONGEST_CONTACT_S = 3600.0
"""What a contact without end counts as in the mean."""
_FRAMING = 1.06
"""Link bytes for each byte of a model: packet headers, gRPC, TCP, IP and Ethernet, rounded up."""


@dataclass(frozen=True, slots=True)
class LinkTerms:
    """How the uplink's rate depends on power, as far as its present state tells."""

    bandwidth_hz: float
    """0 where no SNR is known."""
    snr_per_w: float | None
    full_rate_bps: float


def link_terms(view: LinkView, max_power_w: float) -> LinkTerms:
    """Return bandwidth and SNR per watt by which ``r(p) = B log2(1 + p H)`` gives the present rate.

    The bandwidth holds what the rate model leaves of it. Where the modem reports no SNR or no power,
    the rate is all that is known.
    """
    snr = 10 ** (view.snr_db / 10) if math.isfinite(view.snr_db) else 0.0
    if not (snr > 0 and view.power_w > 0 and view.rate_up_bps > 0 and math.log2(1 + snr) > 0):
        return LinkTerms(0.0, None, view.rate_up_bps)
    bandwidth_hz = view.rate_up_bps / math.log2(1 + snr)
    snr_per_w = snr / view.power_w
    full_bps = bandwidth_hz * math.log2(1 + snr_per_w * max_power_w)
    return LinkTerms(bandwidth_hz, snr_per_w, full_bps)


class ContactDecision:
    """A policy, and where its observations come from."""

    def __init__(self, terms: DeviceTerms, parts: TaskParts, *, fits_magnitudes: bool) -> None:
        self._terms = terms
        self._work = parts.work
        self._policy = parts.policy
        self._radio = parts.radio
        self._clock = parts.clock
        self._fits_magnitudes = fits_magnitudes

    def decide(self, observation: Observation) -> Plan:
        """Return what the policy makes of it."""
        return self._policy.decide(observation)

    def observe(
        self,
        waiting: F32,
        *,
        history: ContactHistory,
        queue: EnergyQueue,
        update_number: int,
        base_age_s: float,
    ) -> Observation:
        """Return what the device knows now; the history hears of the contact."""
        squared_norm = float(np.dot(waiting, waiting))
        fit = fit_magnitudes(waiting) if self._fits_magnitudes else None
        # Looked at last: what was computed before has taken its time of the contact.
        view = self._radio.view
        predicted_s = view.remaining_contact_s(self._clock.now_s())
        history.began(min(predicted_s, _LONGEST_CONTACT_S), squared_norm)
        link = link_terms(view, self._terms.uplink_power_w)
        download_bytes = history.download_bytes
        if download_bytes is None:
            download_bytes = 4.0 * self._work.dimension
        down_bps = max(view.rate_down_bps, 1.0)
        return Observation(
            dimension=self._work.dimension,
            update_number=update_number,
            base_age_s=base_age_s,
            rate_up_bps=view.rate_up_bps,
            snr_db=view.snr_db,
            predicted_contact_s=predicted_s,
            squared_norm=squared_norm,
            layers=self._work.layers,
            contact=ContactObservation(
                power_w=view.power_w,
                max_power_w=self._terms.uplink_power_w,
                bandwidth_hz=link.bandwidth_hz,
                snr_per_w=link.snr_per_w,
                full_rate_bps=link.full_rate_bps,
                staleness=history.versions_per_s * base_age_s,
                expected_staleness=history.staleness or 0.0,
                mean_contact_s=history.mean_contact_s,
                first_squared_norm=history.first_squared_norm,
                queue_j=queue.level_j,
                allowance_j=queue.allowance_j,
                setup_s=history.setup_s,
                acknowledgement_s=history.acknowledgement_s,
                download_s=8 * _FRAMING * download_bytes / down_bps + history.acknowledgement_s,
                max_payload_bytes=self._terms.max_payload_bytes,
                fit=fit,
            ),
        )


def decision_event(
    task: str, observation: Observation, plan: Plan, *, base_version: int
) -> dict[str, Value]:
    """Return everything that was known and decided, from which the decision can be made again."""
    contact = observation.contact
    assert contact is not None
    known = {key: value for key, value in asdict(contact).items() if key != "fit"}
    fit = {} if contact.fit is None else asdict(contact.fit)
    bits = plan.codec.estimate_bits(
        observation.dimension, max_payload_bytes=contact.max_payload_bytes
    )
    event: dict[str, Value] = {
        "task": task,
        "update_id": observation.update_number,
        "base_version": base_version,
        "dimension": observation.dimension,
        "base_age_s": observation.base_age_s,
        "rate_up_bps": round(observation.rate_up_bps),
        "snr_db": observation.snr_db,
        "predicted_contact_s": observation.predicted_contact_s,
        "squared_norm": observation.squared_norm,
        **known,
        **{f"fit_{key}": value for key, value in fit.items()},
        "codec": type(plan.codec).__name__,
        "estimated_bits": 0 if plan.skip else bits,
        "k_keep": plan.k_keep,
        "planned_power_w": plan.power_w,
        "safe_contact_s": plan.safe_contact_s,
        "weight": plan.weight,
    }
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in event.items()
    }
