"""Emulated computing of a plan, and whether real training kept up."""

import pytest

from fadelab_agent.compute_emulation import ComputeBudget, emulated_computing
from fadelab_agent.config import ComputeConfig
from fadelab_proto.local_period import LocalPlan


def test_a_plan_s_clock_batch_and_steps_decide() -> None:
    config = ComputeConfig(cycles_per_sample=1000.0, cpu_hz=1.0, capacitance_j_s2=1e-20)
    plan = LocalPlan(cpu_hz=2e6, batch_size=32, steps=10, idle_s=0.0)
    found = emulated_computing(config, plan, samples=100)
    assert found.compute_s == pytest.approx(0.16)
    assert found.compute_j == pytest.approx(1e-20 * 3.2e5 * 4e12)
    # A device that holds less than a batch takes what it holds.
    assert emulated_computing(config, plan, samples=16).compute_s == pytest.approx(0.08)


def test_late_trainings_are_counted() -> None:
    budget = ComputeBudget()
    for real_s in (0.5, 1.5, 1.0):
        budget = budget.with_training(emulated_s=1.0, real_s=real_s)
    assert budget == ComputeBudget(3, 1, 3.0, 3.0, 0.5, 1.5)
    # What others were early does not make up for it.
    assert budget.complaint(most_late_share=0.2) is None
    complaint = budget.complaint(most_late_share=0.1)
    assert complaint is not None
    assert complaint.startswith("1 of 3 trainings took longer")
    both = budget.together(ComputeBudget(1, 1, 1.0, 3.0, 2.0, 3.0))
    assert both == ComputeBudget(4, 2, 4.0, 6.0, 2.5, 3.0)


def test_no_training_is_no_complaint_and_nonsense_is_refused() -> None:
    assert ComputeBudget().complaint(most_late_share=0.0) is None
    with pytest.raises(ValueError, match="training"):
        ComputeBudget().with_training(emulated_s=0.0, real_s=1.0)
