"""Clock, batch and steps of one local period: closed forms for problem P of DMA-FL (2305.13503).

The paper leaves P to a general solver. One local period of one device and task adds to its
objective, times the number of aggregations::

    k [eta e delta + 2 beta eta^2 e N(B) + 2 rho eta^2 e V2 (rho eta (e-1) / 2 + e)
       + 2 (Delta_AC T_C + Delta_ID (slot - T_C))] + chi c2 xi e a B f^2

with ``k = c1 gamma / eta_min``, ``T_C = a e B / f <= slot`` and ``N(B) = 2 (D-1)/D Theta^2 S~ (1/B -
1/D)``, where ``slot`` is what is left of the period without transfers: waiting and computing. Each
variable has a closed form for given others (reconstructed here, not the paper's):

* f: ``p/f + q f^2`` is least at ``(k (Delta_AC - Delta_ID) / (chi c2 xi))^(1/3)``; if computing drifts
  less than waiting, as slow as the slot allows;
* B: ``n/B + l B`` is least at ``sqrt(n/l)``; where the slot fixes the clock, at ``(n slot^2 / (3 chi c2
  xi (e a)^3))^(1/4)``;
* e: quadratic.
"""

from dataclasses import dataclass

import numpy as np

from fadelab_server.scheduler.tensors import F64


@dataclass(frozen=True, slots=True)
class PeriodTerms:
    """What decides about a local period of one device and task."""

    learning: float
    """``k = c1 gamma / eta_min``."""
    per_j: float
    """``chi c2``."""
    learning_rate: float
    dissimilarity: float
    smoothness: float
    variability: float
    data_variance: float
    proximal: float
    regularised_gradient_sq: float
    samples: int
    """D."""
    idle_drift_per_s: float
    active_drift_per_s: float
    cycles_per_sample: float
    capacitance_j_s2: float
    cpu_min_hz: float
    cpu_max_hz: float
    steps_min: int
    steps_max: int

    def __post_init__(self) -> None:
        """Refuse what has no optimum; ValueError says why."""
        if not (self.learning >= 0 and self.per_j >= 0):
            raise ValueError("weights of learning and energy cannot be negative")
        if not (self.idle_drift_per_s >= 0 and self.active_drift_per_s >= 0):
            raise ValueError("drifts are upper bounds of what a loss may rise: at least 0")
        if not (0 < self.cpu_min_hz <= self.cpu_max_hz and 1 <= self.steps_min <= self.steps_max):
            raise ValueError("limits of clock and steps must be positive and in order")
        if self.samples < 1 or self.cycles_per_sample <= 0 or self.learning_rate <= 0:
            raise ValueError("samples, cycles and learning rate must be positive")

    @property
    def noise_n(self) -> float:
        """Return n: what a step's noise costs for batches of one sample, less that of all samples."""
        spread = 2 * (self.samples - 1) / self.samples * self.variability**2 * self.data_variance
        return self.learning * 2 * self.smoothness * self.learning_rate**2 * spread

    @property
    def haste(self) -> float:
        """Return what a second of computing costs, beside energy, more than one of waiting."""
        return 2 * self.learning * (self.active_drift_per_s - self.idle_drift_per_s)


@dataclass(frozen=True, slots=True)
class Resources:
    """A decision about one local period, and what it costs."""

    cpu_hz: float
    batch_size: int
    steps: int
    compute_s: float
    compute_j: float
    cost: float
    """What the period adds to the objective, times the number of aggregations."""


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """The best resources for each of some slots; arrays of shape ``(slots,)``."""

    cpu_hz: F64
    batch_size: F64
    steps: F64
    compute_j: F64
    cost: F64
    """Infinite where not even the least computing fits into the slot."""


def period_cost(
    terms: PeriodTerms,
    cpu_hz: F64,
    batch_size: F64,
    steps: F64,
    slot_s: F64 | float,
    *,
    per_j: F64 | float | None = None,
) -> F64:
    """Return the cost above, infinite where computing takes longer than the slot; broadcasts.

    Args:
        terms: of the period.
        cpu_hz: f.
        batch_size: B.
        steps: e.
        slot_s: time for waiting and computing.
        per_j: what a joule counts, if not ``terms.per_j``.

    """
    eta, rho = terms.learning_rate, terms.proximal
    cycles = terms.cycles_per_sample * steps * batch_size
    compute_s = cycles / cpu_hz
    wander = rho * eta * (steps - 1) / 2 + steps
    learning = eta * steps * terms.dissimilarity
    learning = learning + 2 * rho * eta**2 * steps * terms.regularised_gradient_sq * wander
    cost = terms.learning * (learning + 2 * terms.idle_drift_per_s * slot_s)
    cost = cost + terms.noise_n * steps * (1 / batch_size - 1 / terms.samples)
    cost = cost + terms.haste * compute_s
    joule = terms.per_j if per_j is None else per_j
    cost = cost + joule * terms.capacitance_j_s2 * cycles * cpu_hz**2
    # Rounding of a computing time that fills the slot is no overrun.
    return np.where(compute_s <= slot_s * (1 + 1e-9), cost, np.inf)


def best_clock(
    terms: PeriodTerms,
    batch_size: F64,
    steps: F64,
    slot_s: F64 | float,
    *,
    per_j: F64 | float | None = None,
) -> F64:
    """Return the best f within its limits for given B and e."""
    needed = terms.cycles_per_sample * steps * batch_size / slot_s
    joule = terms.per_j if per_j is None else per_j
    free = np.maximum(_free_clock(terms, np.asarray(joule)), needed)
    return np.clip(free, terms.cpu_min_hz, terms.cpu_max_hz)


def best_batch(terms: PeriodTerms, cpu_hz: float) -> float:
    """Return the best B for a given f, not rounded, from 1 to D; the slot is not looked at.

    Whatever the number of steps: noise and cost of a sample both grow with it.
    """
    return float(_free_batch(terms, np.array(cpu_hz), np.array(terms.per_j)))


def best_steps(terms: PeriodTerms, cpu_hz: float, batch_size: int) -> float:
    """Return the best e for given f and B, not rounded, within its limits; the slot is not looked at.

    The only reward for a step is that computing takes the place of waiting; it counts when data
    drift less meanwhile.
    """
    eta, rho, v2 = terms.learning_rate, terms.proximal, terms.regularised_gradient_sq
    square = terms.learning * rho * eta**2 * v2 * (rho * eta + 2)
    linear = terms.learning * (eta * terms.dissimilarity - rho**2 * eta**3 * v2)
    linear += terms.noise_n * (1 / batch_size - 1 / terms.samples)
    linear += float(_per_sample(terms, np.array(cpu_hz), np.array(terms.per_j))) * batch_size
    if square <= 0:
        return float(terms.steps_min if linear >= 0 else terms.steps_max)
    return float(np.clip(-linear / (2 * square), terms.steps_min, terms.steps_max))


def best_choices(terms: PeriodTerms, slot_s: F64, per_j: F64) -> Choices:
    """Return the best f, B and e for slots at which a joule counts differently.

    For every number of steps each branch of the closed forms (clock free, at a limit, or fixed by
    the slot) gives one batch size; the best of all, rounded both ways, is the best there is.

    Args:
        terms: of the period.
        slot_s: positive, shape ``(slots,)``.
        per_j: what a joule counts for each slot, the same shape.

    """
    steps = np.arange(terms.steps_min, terms.steps_max + 1, dtype=np.float64)[:, None]
    fitting = terms.cpu_max_hz * slot_s / (terms.cycles_per_sample * steps) * (1 + 1e-12)
    most = np.clip(np.floor(fitting), 1, terms.samples)
    wanted = np.concatenate([_batches_of_branches(terms, steps, slot_s, per_j), most[None]])
    batches = np.clip(np.concatenate([np.floor(wanted), np.ceil(wanted)]), 1, most)
    clocks = best_clock(terms, batches, steps, slot_s, per_j=per_j)
    costs = period_cost(terms, clocks, batches, steps, slot_s, per_j=per_j)
    ways = costs.reshape(-1, len(slot_s))
    row, slots = np.argmin(ways, axis=0), np.arange(len(slot_s))
    batch, clock = batches.reshape(ways.shape)[row, slots], clocks.reshape(ways.shape)[row, slots]
    step = np.broadcast_to(steps, costs.shape).reshape(ways.shape)[row, slots]
    cycles = terms.cycles_per_sample * step * batch
    energy_j = terms.capacitance_j_s2 * cycles * clock**2
    return Choices(clock, batch, step, energy_j, ways[row, slots])


def best_resources(
    terms: PeriodTerms, slot_s: float, per_j: float | None = None
) -> Resources | None:
    """Return the best f, B and e for a slot; None if not even the least computing fits into it.

    Args:
        terms: of the period.
        slot_s: time for waiting and computing.
        per_j: what a joule counts, if not ``terms.per_j``.

    """
    if slot_s <= 0:
        return None
    joule = terms.per_j if per_j is None else per_j
    found = best_choices(terms, np.array([slot_s]), np.array([joule]))
    if not np.isfinite(found.cost[0]):
        return None
    batch, steps = int(found.batch_size[0]), int(found.steps[0])
    return resources(terms, float(found.cpu_hz[0]), batch, steps, slot_s)


def resources(
    terms: PeriodTerms, cpu_hz: float, batch_size: int, steps: int, slot_s: float
) -> Resources:
    """Return what given f, B and e cost."""
    cycles = terms.cycles_per_sample * steps * batch_size
    cost = period_cost(
        terms, np.array(cpu_hz), np.array(float(batch_size)), np.array(float(steps)), slot_s
    )
    return Resources(
        cpu_hz=cpu_hz,
        batch_size=batch_size,
        steps=steps,
        compute_s=cycles / cpu_hz,
        compute_j=terms.capacitance_j_s2 * cycles * cpu_hz**2,
        cost=float(cost),
    )


def _free_clock(terms: PeriodTerms, per_j: F64) -> F64:
    """Return the best f of a slot without end."""
    if terms.haste <= 0:
        return np.full(per_j.shape, terms.cpu_min_hz)
    price = np.maximum(2 * per_j * terms.capacitance_j_s2, np.finfo(np.float64).tiny)
    clock: F64 = np.cbrt(terms.haste / price)
    return clock


def _per_sample(terms: PeriodTerms, cpu_hz: F64, per_j: F64) -> F64:
    """Return l: what one more sample in a step costs at a given clock."""
    cost: F64 = terms.cycles_per_sample * (
        per_j * terms.capacitance_j_s2 * cpu_hz**2 + terms.haste / cpu_hz
    )
    return cost


def _free_batch(terms: PeriodTerms, cpu_hz: F64, per_j: F64) -> F64:
    per_sample = _per_sample(terms, cpu_hz, per_j)
    # Where samples cost nothing, all of them.
    least = np.maximum(per_sample, terms.noise_n / terms.samples**2)
    with np.errstate(invalid="ignore"):
        batch = np.sqrt(terms.noise_n / least)
    bounded: F64 = np.clip(np.nan_to_num(batch, nan=1.0), 1, terms.samples)
    return bounded


def _batches_of_branches(terms: PeriodTerms, steps: F64, slot_s: F64, per_j: F64) -> F64:
    """Return the best B, not rounded, of each branch; shape ``(branches, steps, slots)``."""
    limits = np.full((2, len(slot_s)), [[terms.cpu_min_hz], [terms.cpu_max_hz]])
    free_clock = np.clip(_free_clock(terms, per_j), *limits)
    clocks = np.concatenate([limits, free_clock[None]])[:, None]
    free = np.broadcast_to(_free_batch(terms, clocks, per_j), (3, len(steps), len(slot_s)))
    # The largest batch for which the clock is still free.
    cycles = terms.cycles_per_sample * steps
    filled = clocks * slot_s / cycles
    cubic = 3 * per_j * terms.capacitance_j_s2 * cycles**3 / slot_s**2
    with np.errstate(divide="ignore", invalid="ignore"):
        fixed = (terms.noise_n * steps / cubic) ** 0.25
    fixed = np.nan_to_num(fixed, nan=1.0, posinf=float(terms.samples))
    return np.concatenate([free, filled, fixed[None]])
