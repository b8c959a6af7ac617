import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fadelab_agent.policy.mads_decision import (
    ContactTerms,
    CostForm,
    InverseSquare,
    Linear,
    PowerLaw,
    objective,
)
from fadelab_agent.policy.magnitude_fit import fit_magnitudes

TERMS = ContactTerms(
    dimension=1_000_000,
    bits_per_entry=49,
    bandwidth_hz=2e5,
    contact_s=10.0,
    snr_per_w=500.0,
    max_power_w=0.2,
    queue_j=0.1,
    penalty=1.0,
)
FORMS: list[CostForm] = [Linear(0.2), InverseSquare(0.2), PowerLaw(0.2, 1.0, 0.8)]
EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)


def drawn(number: int) -> tuple[ContactTerms, float]:
    """Return terms that span many orders of magnitude, and a weight."""
    draw = np.random.default_rng(number)

    def between(low: float, high: float) -> float:
        return float(np.exp(draw.uniform(math.log(low), math.log(high))))

    terms = ContactTerms(
        dimension=round(between(1e3, 1e6)),
        bits_per_entry=between(20, 60),
        bandwidth_hz=between(1e4, 1e6),
        contact_s=between(0.5, 100),
        snr_per_w=between(10, 1e5),
        max_power_w=between(0.05, 1),
        queue_j=between(1e-3, 10),
        penalty=between(1e-2, 1e3),
    )
    return terms, between(1e-2, 10)


def on_grid(form: CostForm, terms: ContactTerms, k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the objective as the problem states it, computed another way than in the library."""
    power_w = (2 ** (k * terms.bits_per_entry / (terms.bandwidth_hz * terms.contact_s)) - 1) / (
        terms.snr_per_w
    )
    match form:
        case Linear(weight):
            phi = weight * (1 - k / terms.dimension)
        case InverseSquare(weight):
            phi = weight * (terms.dimension / k) ** 2
        case PowerLaw(weight, scale, a):
            phi = weight * 2 * scale**2 * a * (k + 1) ** -(2 * a - 1) / (2 * a - 1)
        case _:
            raise AssertionError(form)
    return terms.penalty * phi + terms.queue_j * power_w * terms.contact_s


def gap_to_grid(form: CostForm, terms: ContactTerms) -> float:
    """Return how much better the best of a fine grid is, relative to what is reached."""
    most = terms.entries_at(terms.max_power_w)
    lowest = 1.0 if isinstance(form, InverseSquare) else 0.0
    grid = np.concatenate([np.linspace(lowest, most, 20_000), np.geomspace(1, most, 20_000)])
    best = float(on_grid(form, terms, grid).min())
    entries = form.best(terms).entries
    reached = float(on_grid(form, terms, np.array([entries]))[0])
    assert objective(form, terms, entries) == pytest.approx(reached, rel=1e-9)
    return (reached - best) / best


@pytest.mark.parametrize("kind", ["linear", "inverse square", "power law"])
def test_no_grid_finds_better_on_300_instances(kind: str) -> None:
    gaps = []
    inside = 0
    for number in range(300):
        terms, weight = drawn(number)
        forms: dict[str, CostForm] = {
            "linear": Linear(weight),
            "inverse square": InverseSquare(weight),
            "power law": PowerLaw(weight, 1.0 + weight, 0.55 + weight / 10),
        }
        form = forms[kind]
        gaps.append(gap_to_grid(form, terms))
        entries = form.best(terms).entries
        inside += 0 < entries < terms.entries_at(terms.max_power_w) * (1 - 1e-9)
    assert max(gaps) < 1e-6
    assert inside >= 30, "the instances must not all end at a bound"


@EVERY_FORM
def test_whatever_is_chosen_can_be_done(form: CostForm) -> None:
    for number in range(300):
        terms, _ = drawn(number)
        choice = form.best(terms)
        assert 0 <= choice.entries <= terms.dimension
        assert 0 <= choice.power_w <= terms.max_power_w
        assert terms.entries_at(choice.power_w) >= choice.entries * (1 - 1e-9)


@EVERY_FORM
def test_without_contact_or_power_nothing_is_sent(form: CostForm) -> None:
    for nothing in (replace(TERMS, contact_s=0.0), replace(TERMS, max_power_w=0.0)):
        choice = form.best(nothing)
        assert (choice.entries, choice.power_w) == (0.0, 0.0)


def test_less_than_one_entry_is_no_entry() -> None:
    choice = InverseSquare(0.2).best(replace(TERMS, contact_s=1e-6))
    assert (choice.entries, choice.power_w) == (0.0, 0.0)


@EVERY_FORM
def test_an_empty_queue_fills_the_contact_at_full_power(form: CostForm) -> None:
    terms = replace(TERMS, queue_j=0.0)
    choice = form.best(terms)
    assert choice.power_w == pytest.approx(terms.max_power_w)
    assert choice.entries == terms.entries_at(terms.max_power_w) < terms.dimension


@EVERY_FORM
def test_where_all_fits_the_radio_slows_down(form: CostForm) -> None:
    terms = replace(TERMS, queue_j=0.0, contact_s=100.0)
    choice = form.best(terms)
    assert choice.entries == terms.dimension
    assert choice.power_w < terms.max_power_w / 10
    assert terms.entries_at(choice.power_w) == pytest.approx(terms.dimension)


@EVERY_FORM
def test_without_end_all_is_sent_at_the_least_energy(form: CostForm) -> None:
    terms = replace(TERMS, contact_s=math.inf, queue_j=1e-9)
    choice = form.best(terms)
    assert choice.entries == pytest.approx(terms.dimension)
    assert choice.power_w == 0.0
    long = replace(terms, contact_s=1e9)
    assert terms.energy_j(1e5) == pytest.approx(long.energy_j(1e5), rel=1e-3)


def test_a_bad_channel_is_not_worth_a_linear_loss() -> None:
    assert Linear(0.2).best(replace(TERMS, snr_per_w=1e-3)).entries == 0.0
    assert Linear(0.0).best(TERMS).entries == 0.0
    assert Linear(0.2).best(replace(TERMS, penalty=0.0)).entries == 0.0


def test_the_number_of_entries_is_linear_in_contact_time_until_it_is_all() -> None:
    form = Linear(1e2)
    at = {s: form.best(replace(TERMS, contact_s=s)).entries for s in (1.0, 2.0, 5.0, 1e3)}
    assert at[2.0] == pytest.approx(2 * at[1.0])
    assert at[5.0] == pytest.approx(5 * at[1.0])
    assert at[1e3] == TERMS.dimension


@pytest.mark.parametrize("maker", [Linear, InverseSquare, lambda w: PowerLaw(w, 1.0, 0.8)])
@given(st.integers(0, 10_000), st.floats(1.001, 10))
def test_more_of_what_helps_is_never_less(
    maker: type[Linear] | type[InverseSquare], number: int, factor: float
) -> None:
    terms, weight = drawn(number)
    entries = maker(weight).best(terms).entries
    least = entries * (1 - 1e-9)
    assert maker(weight * factor).best(terms).entries >= least
    assert maker(weight).best(replace(terms, contact_s=terms.contact_s * factor)).entries >= least
    assert maker(weight).best(replace(terms, snr_per_w=terms.snr_per_w * factor)).entries >= least
    assert maker(weight).best(replace(terms, queue_j=terms.queue_j / factor)).entries >= least


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_units_of_energy_and_time_do_not_matter(number: int, joule: float, second: float) -> None:
    terms, weight = drawn(number)
    # A watt is a joule per second, a hertz one per second.
    watt = joule / second
    other = replace(
        terms,
        contact_s=terms.contact_s * second,
        bandwidth_hz=terms.bandwidth_hz / second,
        snr_per_w=terms.snr_per_w / watt,
        max_power_w=terms.max_power_w * watt,
        queue_j=terms.queue_j * joule,
        penalty=terms.penalty * joule**2,
    )
    for form in (Linear(weight), InverseSquare(weight), PowerLaw(weight, 2.0, 0.7)):
        here, there = form.best(terms), form.best(other)
        assert there.entries == pytest.approx(here.entries, rel=1e-6, abs=1e-6)
        assert there.power_w == pytest.approx(here.power_w * watt, rel=1e-5, abs=1e-9 * watt)


@pytest.mark.parametrize(
    ("key", "value"), [("dimension", 0), ("bandwidth_hz", 0.0), ("snr_per_w", math.nan)]
)
def test_impossible_terms_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        replace(TERMS, **{key: value})
    with pytest.raises(ValueError, match="negative"):
        replace(TERMS, queue_j=-1.0)
    with pytest.raises(ValueError, match="1/2"):
        PowerLaw(1.0, 1.0, 0.5)


def test_a_power_law_is_found_again() -> None:
    draw = np.random.default_rng(1)
    ranks = np.arange(1, 20_001)
    values = 3.0 * ranks**-0.9 * draw.choice([-1, 1], len(ranks))
    fit = fit_magnitudes(draw.permutation(values).astype(np.float32))
    assert fit is not None
    assert fit.scale == pytest.approx(3.0, rel=1e-3)
    assert fit.exponent == pytest.approx(0.9, rel=1e-3)
    assert fit.r_squared > 0.999


def test_what_has_no_law_is_not_given_one() -> None:
    assert fit_magnitudes(np.zeros(100, dtype=np.float32)) is None
    flat = fit_magnitudes(np.ones(100, dtype=np.float32))
    assert flat is not None
    assert flat.exponent > 0.5
