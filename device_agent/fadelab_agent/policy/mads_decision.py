"""How much to send in one contact, and at which power: the decision of MADS in closed form.

J. Yan, Y. Chen, Y. Sun, Z. Nan, S. Zhou and Z. Niu, "Mobility-aware asynchronous federated learning
with dynamic sparsification", arXiv 2506.07328, chooses the number of kept entries k from contact
time and staleness. Its equations are reconstructed here (docs/methods/mads.md): per contact,

    minimise  V Phi(k) + q p t   subject to  k u <= t B log2(1 + p H),  t <= tau,  p <= p_max,  k <= n

with the cost Phi of what is left out and the queue q of energy that was spent beyond the allowance.
Since ``p / log2(1 + p H)`` grows with p, the whole contact is used: t = tau. What remains has one
unknown and, for the three forms of Phi below, one minimum.

Everything here is arithmetic on float64 numbers: entries are not rounded.
"""

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ContactTerms:
    """What one contact allows, and what energy costs in it.

    Raises:
        ValueError: if a number is negative, or one that must be above 0 is not.

    """

    dimension: int
    """n: entries that there are to send."""
    bits_per_entry: float
    """u: bits on the link for each kept entry."""
    bandwidth_hz: float
    """B: of the uplink, less whatever margin is kept."""
    contact_s: float
    """tau: seconds in which the update may be sent; infinite if there is no end to them."""
    snr_per_w: float
    """H: signal-to-noise ratio per watt of transmit power."""
    max_power_w: float
    queue_j: float
    """q: energy spent beyond the allowance so far; 0 makes energy free."""
    penalty: float
    """V: what a unit of Phi is worth, in J^2."""

    def __post_init__(self) -> None:
        positive = (self.dimension, self.bits_per_entry, self.bandwidth_hz, self.snr_per_w)
        if not all(value > 0 and math.isfinite(value) for value in positive):
            raise ValueError(
                "dimension, bits_per_entry, bandwidth_hz and snr_per_w must be above 0 and finite: "
                f"{positive}"
            )
        others = (self.contact_s, self.max_power_w, self.queue_j, self.penalty)
        if not all(value >= 0 for value in others):
            raise ValueError(
                f"contact_s, max_power_w, queue_j and penalty must not be negative: {others}"
            )

    def entries_at(self, power_w: float) -> float:
        """Return how many entries the contact carries at a power; not more than there are."""
        if self.contact_s == 0 or power_w == 0:
            return 0.0
        bits = self.contact_s * self.bandwidth_hz * math.log1p(power_w * self.snr_per_w)
        return min(float(self.dimension), bits / (self.bits_per_entry * math.log(2)))

    def power_for_w(self, entries: float) -> float:
        """Return the power at which these entries take the whole contact; infinite without one."""
        if entries == 0:
            return 0.0
        if self.contact_s == 0:
            return math.inf
        return _expm1(entries * self.growth) / self.snr_per_w

    def energy_j(self, entries: float) -> float:
        """Return what these entries cost, sent over the whole contact."""
        if math.isinf(self.contact_s):
            # The limit of p(k) tau as tau grows: the least energy that bits can be sent with.
            per_entry_j = self.bits_per_entry * math.log(2) / (self.bandwidth_hz * self.snr_per_w)
            return entries * per_entry_j
        return self.power_for_w(entries) * self.contact_s if entries else 0.0

    @property
    def growth(self) -> float:
        """``u ln 2 / (B tau)``: the power grows by e for every 1 / growth entries."""
        if self.contact_s == 0:
            return math.inf
        return self.bits_per_entry * math.log(2) / (self.bandwidth_hz * self.contact_s)

    @property
    def marginal_j(self) -> float:
        """``u ln 2 / (B H)``: the energy of the first entry."""
        return self.bits_per_entry * math.log(2) / (self.bandwidth_hz * self.snr_per_w)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to send and at which power."""

    entries: float
    """Not rounded; 0 if the contact is better left unused."""
    power_w: float


class CostForm(Protocol):
    """Phi: what it costs to leave entries out."""

    def cost(self, entries: float, dimension: int) -> float:
        """Return Phi of keeping ``entries`` of ``dimension``, without unit."""
        ...

    def best(self, terms: ContactTerms) -> Choice:
        """Return the minimum of ``V Phi(k) + q p tau``."""
        ...


def objective(form: CostForm, terms: ContactTerms, entries: float) -> float:
    """Return ``V Phi(k) + q p(k) tau`` in J^2."""
    spent = terms.queue_j * terms.energy_j(entries) if terms.queue_j else 0.0
    return terms.penalty * form.cost(entries, terms.dimension) + spent


@dataclass(frozen=True, slots=True)
class Linear:
    """``Phi = w (1 - k/n)``: the contraction of top-k. The power is found by water-filling.

    ``p = V w B / (n q u ln 2) - 1/H``, between 0 and its maximum; the same shape as proposition 3 of
    FedPGT by the same authors.
    """

    weight: float

    def cost(self, entries: float, dimension: int) -> float:
        """Return ``w (1 - k/n)``."""
        return self.weight * (1 - entries / dimension)

    def best(self, terms: ContactTerms) -> Choice:
        """Return the water-filling solution."""
        gain = terms.penalty * self.weight / terms.dimension
        debt = terms.queue_j * terms.marginal_j
        if gain <= debt:
            return Choice(0.0, 0.0)
        level_w = math.inf if debt == 0 else (gain / debt - 1) / terms.snr_per_w
        return _whole_contact(terms, terms.entries_at(min(level_w, terms.max_power_w)))


@dataclass(frozen=True, slots=True)
class InverseSquare:
    """``Phi = w (n/k)^2``: how the error memory's bound grows. Solved by Lambert's W.

    Karimireddy, Rebjock, Stich and Jaggi, "Error feedback fixes SignSGD and other gradient
    compression schemes", ICML 2019, bound the memory by a multiple of ``(n/k)^2``.
    """

    weight: float

    def cost(self, entries: float, dimension: int) -> float:
        """Return ``w (n/k)^2``; infinite if nothing is sent."""
        return math.inf if entries == 0 else self.weight * (dimension / entries) ** 2

    def best(self, terms: ContactTerms) -> Choice:
        """Return the solution of ``k^3 e^(k growth) = 2 V w n^2 / (q marginal)``, at least 1."""
        from scipy.special import lambertw  # noqa: PLC0415 -- see load_solvers

        most = terms.entries_at(terms.max_power_w)
        gain = 2 * terms.penalty * self.weight * float(terms.dimension) ** 2
        debt = terms.queue_j * terms.marginal_j
        if most < 1 or gain == 0:
            return Choice(0.0, 0.0)
        if debt == 0 or not math.isfinite(gain / debt):
            return _whole_contact(terms, most)
        root = math.cbrt(gain / debt)
        third = terms.growth / 3
        entries = float(lambertw(third * root).real) / third if third else root
        return _whole_contact(terms, min(most, max(1.0, entries)))


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """``Phi = w 2 C^2 a (k+1)^-(2a-1) / (2a-1)``: magnitudes that fall like ``C i^-a``.

    FedPGT's lemma 1 bounds the error of top-k so. The minimum is where the marginal gain meets the
    marginal energy; both are compared by their logarithms, whose difference falls steadily.
    """

    weight: float
    scale: float
    """C."""
    exponent: float
    """a, above 1/2."""

    def __post_init__(self) -> None:
        if not self.exponent > 0.5:
            raise ValueError(f"the exponent is {self.exponent}; it must be above 1/2")

    def cost(self, entries: float, dimension: int) -> float:  # noqa: ARG002
        """Return the bound of the error."""
        tail = 2 * self.exponent - 1
        return self.weight * 2 * self.scale**2 * self.exponent * math.pow(entries + 1, -tail) / tail

    def best(self, terms: ContactTerms) -> Choice:
        """Return the root, or the end of the range that it lies beyond."""
        from scipy.optimize import brentq  # noqa: PLC0415 -- see load_solvers

        most = terms.entries_at(terms.max_power_w)
        gain = terms.penalty * self.weight * 2 * self.exponent * self.scale**2
        debt = terms.queue_j * terms.marginal_j
        if gain <= debt or most == 0:
            return Choice(0.0, 0.0)
        if debt == 0:
            return _whole_contact(terms, most)
        level, slope, growth = math.log(gain / debt), 2 * self.exponent, terms.growth

        def surplus(entries: float) -> float:
            return level - slope * math.log1p(entries) - growth * entries

        if surplus(most) >= 0:
            return _whole_contact(terms, most)
        return _whole_contact(terms, float(brentq(surplus, 0.0, most, xtol=1e-9, rtol=1e-14)))


def load_solvers() -> None:
    """Import what two of the forms are solved with, so that the first decision need not wait.

    scipy takes a second of processor time, which reading an experiment need not pay.
    """
    import scipy.optimize  # noqa: PLC0415
    import scipy.special  # noqa: PLC0415, F401


def _whole_contact(terms: ContactTerms, entries: float) -> Choice:
    # Rounding must not lead beyond the maximum.
    return Choice(entries, min(terms.power_for_w(entries), terms.max_power_w))


def _expm1(value: float) -> float:
    """Return ``e^value - 1``, infinite where float64 ends."""
    return math.expm1(value) if value < 700 else math.inf
