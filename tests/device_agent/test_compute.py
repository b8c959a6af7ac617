"""Compute time and energy against the formulas of DMA-FL, worked by hand."""

import pytest

from fadelab_agent.compute import compute_energy_j, compute_time_s, transmission_energy_j
from fadelab_agent.config import ComputeConfig


def test_time_and_energy_by_hand() -> None:
    config = ComputeConfig(cycles_per_sample=1000.0, cpu_hz=2e6, capacitance_j_s2=1e-20)
    # 1000 cycles x 10 steps x 32 samples = 320 000 cycles.
    assert compute_time_s(config, steps=10, batch_size=32) == pytest.approx(0.16)
    assert compute_energy_j(config, steps=10, batch_size=32) == pytest.approx(1e-20 * 3.2e5 * 4e12)
    assert transmission_energy_j(0.25, 2.0) == 0.5


def test_default_processor_draws_six_watts() -> None:
    energy_j = compute_energy_j(ComputeConfig(), steps=20, batch_size=32)
    assert energy_j / compute_time_s(ComputeConfig(), steps=20, batch_size=32) == pytest.approx(6.0)


def test_twice_the_clock_halves_the_time_and_quadruples_the_energy() -> None:
    slow, fast = ComputeConfig(cpu_hz=1e6), ComputeConfig(cpu_hz=2e6)
    assert compute_time_s(slow, steps=3, batch_size=8) == pytest.approx(
        2 * compute_time_s(fast, steps=3, batch_size=8)
    )
    assert compute_energy_j(fast, steps=3, batch_size=8) == pytest.approx(
        4 * compute_energy_j(slow, steps=3, batch_size=8)
    )
