"""Emulated time and energy of computing and sending: the formulas of DMA-FL (arXiv 2305.13503)."""

from fadelab_agent.config import ComputeConfig


def compute_time_s(config: ComputeConfig, *, steps: int, batch_size: int) -> float:
    """Return the seconds that local training takes: ``a e B / f`` (DMA-FL equation 20).

    Args:
        config: cycles per sample a and clock frequency f.
        steps: local steps e.
        batch_size: samples per step B.

    """
    return config.cycles_per_sample * steps * batch_size / config.cpu_hz


def compute_energy_j(config: ComputeConfig, *, steps: int, batch_size: int) -> float:
    """Return the joules that local training takes: ``xi a e B f^2`` (DMA-FL equation 21)."""
    cycles = config.cycles_per_sample * steps * batch_size
    return config.capacitance_j_s2 * cycles * config.cpu_hz**2


def transmission_energy_j(power_w: float, airtime_s: float) -> float:
    """Return the joules of sending or receiving: ``p T`` (DMA-FL equations 23 and 25)."""
    return power_w * airtime_s
