"""A decision that was written down can be made again, whatever was observed."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fadelab_agent.config import ComputeConfig
from fadelab_agent.contact_decision import (
    Waiting,
    decides_alike,
    decision_event,
    observe_contact,
)
from fadelab_agent.contact_history import ContactHistory
from fadelab_agent.policy import (
    DenseConfig,
    FixedFractionConfig,
    MadsConfig,
    Observation,
    PolicyConfig,
    build_policy,
)
from fadelab_agent.policy.energy_queue import EnergyQueue
from fadelab_agent.policy.magnitude_fit import fit_magnitudes
from fadelab_agent.radio import LinkView
from fadelab_agent.spool import Owner
from fadelab_agent.terms import DeviceTerms

N = 20_000
TERMS = DeviceTerms(
    run_id=0,
    seed=0,
    device=0,
    max_payload_bytes=4096,
    uplink_power_w=0.2,
    downlink_power_w=1.0,
    compute=ComputeConfig(),
)
POLICIES: list[PolicyConfig] = [
    DenseConfig(),
    FixedFractionConfig(fraction=0.03),
    MadsConfig(),
    MadsConfig(form="inverse_square", codec="best"),
    MadsConfig(form="power_law", staleness="present", debt="present"),
    MadsConfig(contact="mean", power="full"),
]


def observed(rng: np.random.Generator, **view: Any) -> Observation:
    vector = rng.standard_normal(N).astype(np.float32) ** 3
    usual = {
        "is_open": True,
        "snr_db": rng.uniform(-5, 40),
        "rate_up_bps": rng.uniform(1e4, 1e6),
        "rate_down_bps": 1e6,
        "predicted_contact_s": rng.exponential(8.0),
        "power_w": 0.2,
        "reported_s": 3.0,
    }
    history = ContactHistory.of(Owner(0, 0, "digits", N, 0, ""), 0.0)
    history.renewed(3, 7.7, 4 * N)
    history.prepared(float(rng.uniform(0.1, 0.4)))
    return observe_contact(
        Waiting(float(np.dot(vector, vector)), fit_magnitudes(vector)),
        LinkView(**usual | view),
        3.0 + rng.random() / 7,
        terms=TERMS,
        layers=(N - 10, 10),
        dimension=N,
        history=history,
        queue=EnergyQueue(0.1, float(rng.uniform(0, 0.1))),
        update_number=4,
        base_age_s=float(rng.uniform(0, 20)),
    )


def logged(policy: PolicyConfig, observation: Observation) -> tuple[dict[str, Any], bool]:
    """Return the event as it is read back, and whether nothing was to be sent."""
    plan = build_policy(policy).decide(observation)
    event = decision_event("digits", observation, plan, base_version=2)
    return json.loads(json.dumps(event, allow_nan=False)), plan.skip


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_read_back_from_json_it_comes_out_the_same(policy: PolicyConfig) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        event, skipped = logged(policy, observed(rng))
        assert decides_alike(build_policy(policy), event, skipped=skipped)
        assert not decides_alike(build_policy(policy), event, skipped=not skipped)


@pytest.mark.parametrize(
    "view",
    [
        {"predicted_contact_s": math.inf},
        {"snr_db": -math.inf},
        {"snr_db": math.nan, "power_w": 0.0},
    ],
    ids=str,
)
def test_what_json_has_no_word_for_is_understood(view: dict[str, float]) -> None:
    event, skipped = logged(MadsConfig(), observed(np.random.default_rng(1), **view))
    assert decides_alike(build_policy(MadsConfig()), event, skipped=skipped)


def test_another_policy_comes_to_other_decisions() -> None:
    event, skipped = logged(MadsConfig(), observed(np.random.default_rng(2)))
    other = build_policy(MadsConfig(prediction_margin=0.2))
    assert decides_alike(other, event, skipped=skipped) is False


def test_an_event_that_lacks_something_is_not_judged() -> None:
    event, skipped = logged(MadsConfig(), observed(np.random.default_rng(3)))
    for key in ("layers", "queue_j", "k_keep"):
        short = {name: value for name, value in event.items() if name != key}
        assert decides_alike(build_policy(MadsConfig()), short, skipped=skipped) is None


def test_a_waiting_vector_is_remembered_by_the_first_contact() -> None:
    seen = observed(np.random.default_rng(4))
    assert seen.contact is not None
    assert seen.contact.first_squared_norm == seen.squared_norm
    assert replace(seen.contact, fit=None) != seen.contact
