"""MADS: keep as many entries as contact time, staleness, channel and energy make worth while.

Yan, Chen, Sun, Nan, Zhou and Niu, arXiv 2506.07328, as reconstructed in docs/methods/mads.md. The
arithmetic is in :mod:`fadelab_agent.policy.mads_decision`; here it meets what a device observes, the
margins that real sockets need, and the ablations.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from fadelab_agent.policy.base import ContactObservation, Observation, Plan
from fadelab_agent.policy.mads_decision import (
    Choice,
    ContactTerms,
    CostForm,
    InverseSquare,
    Linear,
    PowerLaw,
    load_solvers,
)
from fadelab_proto.codecs import TopK
from fadelab_proto.config import StrictModel

_VALUE_BITS = 32
_LONGEST_CONTACT_S = 3600.0
_HALVINGS = 50
_BEST_CODE_PASSES = 4
"""How often the best code's bits per entry are computed anew from the entries they lead to."""


class MadsConfig(StrictModel):
    """Keep what the contact's predicted remainder carries, at a power that energy is worth."""

    kind: Literal["mads"] = "mads"
    form: Literal["linear", "inverse_square", "power_law"] = Field(
        "linear", description="What it is taken to cost to leave entries out."
    )
    tradeoff: float = Field(
        0.002,
        gt=0,
        description="What learning is worth against energy, without unit: V over that V at which "
        "a first update without staleness is sent at full power when one allowance is owed.",
    )
    v_j2: float | None = Field(
        None, gt=0, description="V itself in square joules, in the place of tradeoff."
    )
    debt: Literal["projected", "present"] = Field(
        "projected",
        description="The energy queue that a contact's energy is weighed by: as it will be after "
        "the contact, which keeps to the allowance from the first one on; or as it is before, which "
        "makes energy free whenever nothing is owed.",
    )
    power: Literal["decided", "full"] = Field(
        "decided", description="Whether the power is decided too, or always the maximum."
    )
    staleness: Literal["expected", "present", "off"] = Field(
        "expected",
        description="Staleness that updates are weighed by: the mean of past ones, the present "
        "model's, or none.",
    )
    contact: Literal["predicted", "mean"] = Field(
        "predicted",
        description="Contact time that is counted on: the predicted one, or the mean of all "
        "predictions so far.",
    )
    codec: Literal["paper", "best"] = Field(
        "paper",
        description="A value of 32 bits and an index of ceil(log2 n) for each entry, or the "
        "smallest code of the same entries.",
    )
    prediction_margin: float = Field(
        0.1, ge=0, lt=1, description="Share of the predicted contact that is not counted on."
    )
    transport_margin: float = Field(
        0.1, ge=0, lt=1, description="Share of the rate that headers and TCP are taken to need."
    )
    reserve_download: bool = Field(
        default=True, description="Leave time for the model's download in the same contact."
    )


@dataclass(frozen=True, slots=True)
class Mads:
    """The policy; it keeps nothing between decisions."""

    config: MadsConfig

    def __post_init__(self) -> None:
        if self.config.form != "linear":
            # Now, not in the first contact, of which importing it would take a good part.
            load_solvers()

    def decide(self, observation: Observation) -> Plan:
        """Return k, power and codec, or the decision not to send in this contact.

        Raises:
            ValueError: if the observation is not one of a contact.

        """
        contact = observation.contact
        if contact is None:
            raise ValueError("MADS decides at the beginning of a contact")
        safe_s = self._safe_s(observation, contact)
        weight = self._weight(contact)
        codec, choice = self._choose(observation, contact, safe_s, weight)
        k_keep = min(observation.dimension, math.floor(choice.entries))
        return Plan(
            TopK(max(1, k_keep), indices=codec),
            power_w=choice.power_w if k_keep and self._decides_power(contact) else None,
            skip=k_keep == 0,
            k_keep=k_keep,
            safe_contact_s=safe_s,
            weight=weight,
        )

    def _safe_s(self, observation: Observation, contact: ContactObservation) -> float:
        """Return the seconds in which the update may travel."""
        counted_s = (
            observation.predicted_contact_s
            if self.config.contact == "predicted"
            else contact.mean_contact_s
        )
        kept_s = contact.setup_s + contact.acknowledgement_s
        if self.config.reserve_download:
            kept_s += contact.download_s
        sure_s = min(counted_s, _LONGEST_CONTACT_S) * (1 - self.config.prediction_margin)
        return max(0.0, sure_s - kept_s)

    def _weight(self, contact: ContactObservation) -> float:
        """Return how many versions what is left out will wait for, its own included."""
        match self.config.staleness:
            case "expected":
                return 1 + contact.expected_staleness
            case "present":
                return 1 + contact.staleness
            case "off":
                return 1.0

    def _decides_power(self, contact: ContactObservation) -> bool:
        return self.config.power == "decided" and contact.snr_per_w is not None

    def _choose(
        self, observation: Observation, contact: ContactObservation, safe_s: float, weight: float
    ) -> tuple[Literal["paper", "best"], Choice]:
        n = observation.dimension
        paper_bits = float(_VALUE_BITS + (n - 1).bit_length())
        choice = self._with_bits(observation, contact, safe_s, weight, paper_bits)
        if self.config.codec == "paper":
            return "paper", choice
        # Fewer entries need more bits each: what is chosen and its price are found in turns.
        for _ in range(_BEST_CODE_PASSES):
            keep = max(1, math.floor(choice.entries))
            bits = TopK(keep).estimate_bits(n, max_payload_bytes=contact.max_payload_bytes)
            choice = self._with_bits(observation, contact, safe_s, weight, bits / keep)
        return "best", choice

    def _with_bits(
        self,
        observation: Observation,
        contact: ContactObservation,
        safe_s: float,
        weight: float,
        bits_per_entry: float,
    ) -> Choice:
        """Return the decision for entries that take so many bits each."""
        n, share = observation.dimension, 1 - self.config.transport_margin
        if not self._decides_power(contact):
            fits = safe_s * share * contact.full_rate_bps / bits_per_entry
            return Choice(min(float(n), fits), contact.max_power_w)
        assert contact.snr_per_w is not None
        terms = ContactTerms(
            dimension=n,
            bits_per_entry=bits_per_entry,
            bandwidth_hz=share * contact.bandwidth_hz,
            contact_s=safe_s,
            snr_per_w=contact.snr_per_w,
            max_power_w=contact.max_power_w,
            queue_j=contact.queue_j,
            penalty=self._penalty(contact, n, bits_per_entry),
        )
        form = self._form(observation, contact, weight)
        if self.config.debt == "present" or contact.allowance_j is None:
            return form.best(terms)
        return _with_projected_queue(form, terms, contact.allowance_j)

    def _penalty(self, contact: ContactObservation, n: int, bits_per_entry: float) -> float:
        """Return V: given, or such that ``tradeoff`` has the meaning that it has."""
        if self.config.v_j2 is not None:
            return self.config.v_j2
        allowance_j = contact.allowance_j or 1.0
        full = contact.max_power_w * n * bits_per_entry * math.log(2) / contact.bandwidth_hz
        return self.config.tradeoff * full * allowance_j

    def _form(
        self, observation: Observation, contact: ContactObservation, weight: float
    ) -> CostForm:
        """Return Phi; what waits is measured by what waited at the device's first contact."""
        first = contact.first_squared_norm
        size = observation.squared_norm / first if first > 0 else 0.0
        match self.config.form:
            case "linear":
                return Linear(weight * size)
            case "inverse_square":
                return InverseSquare(weight * size)
            case "power_law":
                fit = contact.fit
                if fit is None or first <= 0:
                    return Linear(weight * size)
                return PowerLaw(weight / first, fit.scale, fit.exponent)


def _with_projected_queue(form: CostForm, terms: ContactTerms, allowance_j: float) -> Choice:
    """Return the best choice if the queue is what it will be after this contact.

    The whole drift of the queue's square, ``q (E - E_allowed) + (E - E_allowed)^2 / 2``, instead of
    its first part alone, has the same minimum as the first part with the queue ``q + E - E_allowed``.
    A larger queue leads to less energy, so there is one queue that leads to itself.
    """

    def after_j(queue_j: float) -> float:
        entries = form.best(replace(terms, queue_j=queue_j)).entries
        return max(0.0, terms.queue_j + terms.energy_j(entries) - allowance_j)

    low_j, high_j = 0.0, after_j(0.0)
    for _ in range(_HALVINGS):
        middle_j = (low_j + high_j) / 2
        if after_j(middle_j) > middle_j:
            low_j = middle_j
        else:
            high_j = middle_j
    return form.best(replace(terms, queue_j=high_j))
