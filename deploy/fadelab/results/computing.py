"""Whether real training kept within the time that devices' processors were said to take."""

from fadelab.results.record import RunRecord, number
from fadelab_agent.compute_emulation import ComputeBudget


def compute_budget(record: RunRecord) -> ComputeBudget:
    """Return real and emulated computing of all scheduled local periods together."""
    budget = ComputeBudget()
    for event in record.of("agent", "period_ended"):
        emulated_s = number(event, "compute_s")
        if emulated_s > 0:
            real_s = number(event, "compute_real_s")
            budget = budget.with_training(emulated_s=emulated_s, real_s=real_s)
    return budget


def late_computing(record: RunRecord, *, most_late_share: float) -> list[str]:
    """Return why computing was not as emulated, or nothing."""
    complaint = compute_budget(record).complaint(most_late_share=most_late_share)
    return [] if complaint is None else [f"{complaint}."]
