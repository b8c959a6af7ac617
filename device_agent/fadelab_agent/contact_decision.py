"""What a device knows at the beginning of a contact, put before its policy and written down."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.contact_history import ContactHistory
from fadelab_agent.policy import ContactObservation, Observation, Plan, Policy
from fadelab_agent.policy.energy_queue import EnergyQueue
from fadelab_agent.policy.magnitude_fit import MagnitudeFit, fit_magnitudes
from fadelab_agent.radio import LinkView
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_proto.events import Value

F32 = NDArray[np.float32]
_LONGEST_CONTACT_S = 3600.0
"""What a contact without end counts as in the mean."""
_FRAMING = 1.06
"""Link bytes for each byte of a model: packet headers, gRPC, TCP, IP and Ethernet, rounded up."""
_CONTACT_FIELDS = tuple(field.name for field in fields(ContactObservation) if field.name != "fit")
_OBSERVED = (
    "dimension",
    "layers",
    "base_age_s",
    "rate_up_bps",
    "snr_db",
    "predicted_contact_s",
    "squared_norm",
)
_DECIDED = ("codec", "estimated_bits", "k_keep", "planned_power_w", "safe_contact_s", "weight")
"""What an event holds of the plan; the rest is what the plan was made from."""


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


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a decision is told of the vector that waits to be sent."""

    squared_norm: float
    fit: MagnitudeFit | None = None
    """How fast its magnitudes fall; None if that was not looked at."""


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
        return observe_contact(
            Waiting(squared_norm, fit),
            self._radio.view,
            self._clock.now_s(),
            terms=self._terms,
            layers=self._work.layers,
            dimension=self._work.dimension,
            history=history,
            queue=queue,
            update_number=update_number,
            base_age_s=base_age_s,
        )


def observe_contact(
    waiting: Waiting,
    view: LinkView,
    now_s: float,
    *,
    terms: DeviceTerms,
    dimension: int,
    layers: tuple[int, ...],
    history: ContactHistory,
    queue: EnergyQueue,
    update_number: int,
    base_age_s: float,
) -> Observation:
    """Return what a device knows at ``now_s``; the history hears of the contact.

    Args:
        waiting: what is known of the vector to be sent.
        view: what the modem reports.
        now_s: the device's time.
        terms: what holds for all its updates.
        dimension: number of model parameters.
        layers: parameters of each of the model's tensors.
        history: of past contacts.
        queue: energy owed.
        update_number: the number that the update would have.
        base_age_s: seconds since the base model was downloaded.

    """
    predicted_s = view.remaining_contact_s(now_s)
    history.began(min(predicted_s, _LONGEST_CONTACT_S), waiting.squared_norm)
    link = link_terms(view, terms.uplink_power_w)
    download_bytes = history.download_bytes
    if download_bytes is None:
        download_bytes = 4.0 * dimension
    down_bps = max(view.rate_down_bps, 1.0)
    return Observation(
        dimension=dimension,
        update_number=update_number,
        base_age_s=base_age_s,
        rate_up_bps=view.rate_up_bps,
        snr_db=view.snr_db,
        predicted_contact_s=predicted_s,
        squared_norm=waiting.squared_norm,
        layers=layers,
        contact=ContactObservation(
            power_w=view.power_w,
            max_power_w=terms.uplink_power_w,
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
            max_payload_bytes=terms.max_payload_bytes,
            fit=waiting.fit,
        ),
    )


def decision_event(
    task: str, observation: Observation, plan: Plan, *, base_version: int
) -> dict[str, Value]:
    """Return everything that was known and decided, from which the decision can be made again."""
    contact = observation.contact
    assert contact is not None
    known = {key: getattr(contact, key) for key in _CONTACT_FIELDS}
    fit = {} if contact.fit is None else asdict(contact.fit)
    event: dict[str, Value] = {
        "task": task,
        "update_id": observation.update_number,
        "base_version": base_version,
        "dimension": observation.dimension,
        "layers": list(observation.layers),
        "base_age_s": observation.base_age_s,
        "rate_up_bps": observation.rate_up_bps,
        "snr_db": observation.snr_db,
        "predicted_contact_s": observation.predicted_contact_s,
        "squared_norm": observation.squared_norm,
        **known,
        **{f"fit_{key}": value for key, value in fit.items()},
        **_decided(observation, contact, plan),
    }
    return {key: _finite(value) for key, value in event.items()}


def decides_alike(policy: Policy, event: Mapping[str, Value], *, skipped: bool) -> bool | None:
    """Make a logged decision again; return whether the outcome is the same, to the last bit.

    Args:
        policy: a policy as the device had it.
        event: what :func:`decision_event` returned, read back.
        skipped: whether the device decided not to send.

    Returns:
        None if the event does not hold everything that was known.

    """
    if not all(key in event for key in (*_OBSERVED, *_CONTACT_FIELDS, *_DECIDED)):
        return None
    observation = _observation(event)
    assert observation.contact is not None
    plan = policy.decide(observation)
    decided = _decided(observation, observation.contact, plan)
    return plan.skip == skipped and all(
        _finite(value) == event[key] for key, value in decided.items()
    )


def _decided(observation: Observation, contact: ContactObservation, plan: Plan) -> dict[str, Value]:
    bits = plan.codec.estimate_bits(
        observation.dimension, max_payload_bytes=contact.max_payload_bytes
    )
    return {
        "codec": type(plan.codec).__name__,
        "estimated_bits": 0 if plan.skip else bits,
        "k_keep": plan.k_keep,
        "planned_power_w": plan.power_w,
        "safe_contact_s": plan.safe_contact_s,
        "weight": plan.weight,
    }


def _observation(event: Mapping[str, Any]) -> Observation:
    """Return what an event's decision was made from."""
    # An event has no word for what is not finite.
    endless = {"predicted_contact_s": math.inf, "snr_db": -math.inf}
    known: dict[str, Any] = {
        key: endless[key] if key in endless and event[key] is None else event[key]
        for key in (*_OBSERVED, *_CONTACT_FIELDS)
    }
    fit = None
    if event.get("fit_scale") is not None:
        fit = MagnitudeFit(
            **{field.name: event[f"fit_{field.name}"] for field in fields(MagnitudeFit)}
        )
    return Observation(
        update_number=event["update_id"],
        layers=tuple(known.pop("layers")),
        contact=ContactObservation(**{key: known.pop(key) for key in _CONTACT_FIELDS}, fit=fit),
        **known,
    )


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
