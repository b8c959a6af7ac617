"""Emulated time and energy of computing and sending: the formulas of DMA-FL (arXiv 2305.13503)."""

from fadelab_agent.config import ComputeConfig
from fadelab_proto import local_period


def compute_time_s(config: ComputeConfig, *, steps: int, batch_size: int) -> float:
    """Return the seconds that local training takes: ``a e B / f`` (DMA-FL equation 20).

    Args:
        config: cycles per sample a and clock frequency f.
        steps: local steps e.
        batch_size: samples per step B.

    """
    return float(
        local_period.compute_time_s(
            cycles_per_sample=config.cycles_per_sample,
            steps=steps,
            batch_size=batch_size,
            cpu_hz=config.cpu_hz,
        )
    )


def compute_energy_j(config: ComputeConfig, *, steps: int, batch_size: int) -> float:
    """Return the joules that local training takes: ``xi a e B f^2`` (DMA-FL equation 21)."""
    return float(
        local_period.compute_energy_j(
            capacitance_j_s2=config.capacitance_j_s2,
            cycles_per_sample=config.cycles_per_sample,
            steps=steps,
            batch_size=batch_size,
            cpu_hz=config.cpu_hz,
        )
    )


def transmission_energy_j(power_w: float, airtime_s: float) -> float:
    """Return the joules of sending or receiving: ``p T`` (DMA-FL equations 23 and 25)."""
    return float(local_period.transfer_energy_j(power_w=power_w, airtime_s=airtime_s))
