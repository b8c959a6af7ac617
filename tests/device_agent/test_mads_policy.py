"""MADS as a policy: margins, ablations, and the queue that it weighs energy by."""

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fadelab_agent.policy import ContactObservation, MadsConfig, Observation, Plan, build_policy
from fadelab_agent.policy.energy_queue import EnergyQueue
from fadelab_agent.policy.magnitude_fit import fit_magnitudes
from fadelab_proto.codecs import TopK

N = 20_000
BITS = 32 + 15
CONTACT = ContactObservation(
    power_w=0.2,
    max_power_w=0.2,
    bandwidth_hz=1e4,
    snr_per_w=1e4,
    full_rate_bps=1e4 * math.log2(1 + 2e3),
    staleness=3.0,
    expected_staleness=4.0,
    mean_contact_s=6.0,
    first_squared_norm=2.0,
    queue_j=0.0,
    allowance_j=0.1,
    setup_s=0.2,
    acknowledgement_s=0.1,
    download_s=0.7,
    max_payload_bytes=16384,
)
SEEN = Observation(
    dimension=N,
    update_number=5,
    base_age_s=12.0,
    rate_up_bps=1e5,
    snr_db=33.0,
    predicted_contact_s=10.0,
    squared_norm=4.0,
    contact=CONTACT,
)


def planned(observation: Observation = SEEN, **settings: Any) -> Plan:
    return build_policy(MadsConfig.model_validate(settings)).decide(observation)


def seen(predicted_contact_s: float = 10.0, **contact: Any) -> Observation:
    return replace(
        SEEN, predicted_contact_s=predicted_contact_s, contact=replace(CONTACT, **contact)
    )


def kept(plan: Plan) -> int:
    assert plan.k_keep is not None
    return plan.k_keep


def airtime_s(plan: Plan, contact: ContactObservation = CONTACT) -> float:
    """Return the time that the paper's bits take at the plan's power, margin aside."""
    assert plan.power_w is not None
    assert contact.snr_per_w is not None
    rate_bps = contact.bandwidth_hz * math.log2(1 + plan.power_w * contact.snr_per_w)
    return kept(plan) * BITS / rate_bps


@pytest.mark.parametrize("form", ["linear", "inverse_square", "power_law"])
@pytest.mark.parametrize("codec", ["paper", "best"])
def test_what_is_kept_fits_into_what_is_counted_on(form: str, codec: str) -> None:
    fit = fit_magnitudes(np.random.default_rng(0).standard_normal(N).astype(np.float32))
    plan = planned(seen(fit=fit), form=form, codec=codec)
    assert plan.safe_contact_s == pytest.approx(10 * 0.9 - 0.2 - 0.1 - 0.7)
    assert isinstance(plan.codec, TopK)
    assert (plan.codec.k_keep, plan.codec.indices) == (plan.k_keep, codec)
    assert 0 < kept(plan) < N
    assert plan.power_w is not None
    assert 0 < plan.power_w <= 0.2
    if codec == "paper":
        # A tenth of the rate is left to headers; k is rounded down.
        assert airtime_s(plan) == pytest.approx(0.9 * plan.safe_contact_s, rel=1e-3)
    else:
        rate_bps = 1e4 * math.log2(1 + plan.power_w * 1e4)
        bits = plan.codec.estimate_bits(N, max_payload_bytes=16384)
        assert bits <= 1.01 * rate_bps * plan.safe_contact_s


def test_margins_are_taken_off() -> None:
    plan = planned(
        prediction_margin=0.3, transport_margin=0.0, reserve_download=False, power="full"
    )
    assert plan.safe_contact_s == pytest.approx(10 * 0.7 - 0.3)
    assert kept(plan) == math.floor(6.7 * CONTACT.full_rate_bps / BITS)
    assert plan.power_w is None


def test_a_contact_that_is_too_short_is_skipped() -> None:
    plan = planned(seen(predicted_contact_s=1.0))
    assert plan.skip
    assert (plan.k_keep, plan.power_w, plan.safe_contact_s) == (0, None, 0.0)


def test_the_same_observation_gives_the_same_plan() -> None:
    assert planned() == planned()


@pytest.mark.parametrize(("setting", "weight"), [("expected", 5.0), ("present", 4.0), ("off", 1.0)])
def test_staleness_weighs_as_it_is_told_to(setting: str, weight: float) -> None:
    assert planned(staleness=setting).weight == weight


def test_more_staleness_and_more_that_waits_mean_more_power() -> None:
    few, many = (planned(seen(expected_staleness=s, queue_j=0.3)) for s in (0.0, 20.0))
    assert kept(many) > kept(few)
    heavy = planned(replace(seen(queue_j=0.3), squared_norm=40.0))
    assert kept(heavy) > kept(planned(seen(queue_j=0.3)))


def test_the_mean_contact_may_stand_in_for_the_predicted_one() -> None:
    same = [planned(seen(s), contact="mean", power="full").k_keep for s in (2.0, 10.0, 30.0)]
    assert len(set(same)) == 1
    assert planned(contact="mean").safe_contact_s == pytest.approx(6 * 0.9 - 1.0)


def test_a_contact_without_end_is_planned_for() -> None:
    plan = planned(seen(math.inf))
    assert kept(plan) == N
    assert plan.power_w is not None
    assert plan.power_w > 0


def test_without_snr_the_power_has_no_say() -> None:
    plan = planned(seen(snr_per_w=None, bandwidth_hz=0.0, full_rate_bps=1e5))
    assert plan.power_w is None
    assert kept(plan) == math.floor(0.9 * 8.0 * 1e5 / BITS)


def test_v_may_be_given_in_square_joules() -> None:
    low, high = (planned(seen(queue_j=1.0), v_j2=v) for v in (1e-6, 1e-3))
    assert low.k_keep is not None
    assert kept(high) > low.k_keep


def spent_j(**settings: Any) -> list[float]:
    """Return the planned energies of 60 contacts of random length."""
    draw, queue, energies = np.random.default_rng(1), EnergyQueue(0.1), []
    for _ in range(60):
        observation = seen(float(draw.uniform(2, 20)), queue_j=queue.level_j)
        plan = planned(observation, **settings)
        energies.append(0.0 if plan.power_w is None else plan.power_w * (plan.safe_contact_s or 0))
        queue.settle(energies[-1])
    return energies


def test_the_projected_queue_keeps_to_the_allowance_from_the_first_contact_on() -> None:
    energies = spent_j()
    assert np.mean(energies) <= 1.05 * 0.1
    assert max(energies) < 3 * 0.1
    assert max(spent_j(debt="present")) > 10 * 0.1, "a queue that is empty makes energy free"


def test_without_an_allowance_energy_is_free() -> None:
    plan = planned(seen(allowance_j=None))
    assert plan.power_w == pytest.approx(0.2)


def test_an_observation_without_contact_is_refused() -> None:
    with pytest.raises(ValueError, match="beginning of a contact"):
        planned(replace(SEEN, contact=None))


def test_the_queue_never_falls_below_nothing() -> None:
    queue = EnergyQueue(0.1, 0.25)
    levels = []
    for used_j in (0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0):
        queue.settle(used_j)
        levels.append(queue.level_j)
    assert levels == pytest.approx([0.15, 0.35, 0.25, 0.15, 0.05, 0.0, 0.0])
    free = EnergyQueue(None, 3.0)
    free.settle(5.0)
    assert free.level_j == 0.0


def test_solvers_are_loaded_when_the_policy_is_made_and_not_before() -> None:
    program = """
import sys
from fadelab_agent.policy import MadsConfig, build_policy
build_policy(MadsConfig(form="linear"))
assert "scipy" not in sys.modules
build_policy(MadsConfig(form="power_law"))
assert {"scipy.optimize", "scipy.special"} <= set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
