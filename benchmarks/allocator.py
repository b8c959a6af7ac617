"""Cost of deciding: every power control in a cell-free set-up, and SP-FL's power and bandwidth.

    OMP_NUM_THREADS=1 python benchmarks/allocator.py [--drops 10]

Prints the median and the largest processor time in milliseconds, and the median of steps, over
drops; cold, and started from the result for slightly smaller updates.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from fadelab_emulation.rate.cell_free.estimation import estimate_channels
from fadelab_emulation.rate.cell_free.pilots import assign_pilots
from fadelab_emulation.rate.cell_free.uplink import uplink_statistics
from fadelab_server.allocator.coordinate_descent import coordinate_descent
from fadelab_server.allocator.dinkelbach import dinkelbach
from fadelab_server.allocator.min_max_latency import min_max_latency
from fadelab_server.allocator.round_cost import Allocation, CostWeights, RoundLoad
from fadelab_server.allocator.sp_fl import sp_fl
from fadelab_server.allocator.sp_fl_error import GradientStatistics
from fadelab_server.allocator.sp_fl_link import PacketLinks
from fadelab_server.allocator.sqp_budget import sqp_budget
from fadelab_server.allocator.sqp_weighted import sqp_weighted
from fadelab_server.allocator.uplink import UplinkStatistics
from fadelab_server.allocator.wmmse import wmmse

METHODS: dict[str, Callable[..., Allocation]] = {
    "min-max latency": min_max_latency,
    "SQP, weighted": partial(sqp_weighted, weights=CostWeights(10.0, 1.0)),
    "SQP, budgets": partial(sqp_budget, energy_j=0.5, latency_s=8.0),
    "Dinkelbach": dinkelbach,
    "WMMSE": wmmse,
    "coordinate descent": partial(coordinate_descent, weights=CostWeights(10.0, 1.0)),
}
# -174 dBm/Hz over 20 MHz, and a noise figure of 7 dB.
NOISE_W = 20e6 * 10 ** ((-174 + 7 - 30) / 10)


def drop(devices: int, seed: int) -> UplinkStatistics:
    """Return 16 access points of 4 antennas on 1 km^2, devices at random, 10 pilots."""
    rng = np.random.default_rng(seed)
    line = np.arange(4) * 250.0 + 125.0
    sites = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    apart = np.abs(rng.uniform(0, 1000, (devices, 1, 2)) - sites)
    distance = np.sqrt((np.minimum(apart, 1000 - apart) ** 2).sum(axis=-1) + 10.0**2)
    shadowing = 4 * rng.standard_normal(distance.shape)
    gain = np.power(10, (-30.5 - 36.7 * np.log10(distance) + shadowing) / 10)
    snr = 0.1 / NOISE_W
    pilots = assign_pilots(gain, 10)
    estimate = estimate_channels(gain, pilots, antennas=4, pilot_length=10, pilot_snr=snr)
    terms = uplink_statistics(estimate, snr)
    return UplinkStatistics(
        terms.coherent_gain,
        terms.own_interference,
        terms.cross_interference,
        terms.noise,
        bandwidth_hz=20e6,
        data_share=0.95,
        full_power_w=0.1,
    )


def time_sp_fl(drops: int) -> None:
    """Print what 20 devices with 1e5 entries of 1 and 3 bit in 10 MHz cost, 50 to 500 m away."""
    for deadline_s in (0.4, 0.2, 0.14, 0.1, 0.06):
        spent_ms, steps = [], []
        for seed in range(drops):
            rng = np.random.default_rng(seed)
            loss_db = 22.4 + 35.3 * np.log10(rng.uniform(50, 500, 20)) + 21.3 * np.log10(2.4)
            noise_per_hz = 10 ** ((-174 - 23 + loss_db) / 10)
            links = PacketLinks(noise_per_hz, 10e6, deadline_s, 1e5, 3e5 + 64)
            energy = rng.uniform(0.5, 2, 20)
            gradients = GradientStatistics(
                energy, np.ones(20), 0.8 * np.sqrt(energy), 0.15 * energy, kappa=20**-0.5
            )
            begun_s = time.process_time()
            steps.append(sp_fl(links, gradients).iterations)
            spent_ms.append(1e3 * (time.process_time() - begun_s))
        print(
            f"{f'SP-FL, {deadline_s} s':20} {20:8} {'cold':>6} {statistics.median(spent_ms):10.1f} "
            f"{max(spent_ms):8.1f} {statistics.median(steps):6.0f}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drops", type=int, default=10)
    arguments = parser.parse_args()
    print(f"{'':20} {'devices':>8} {'':>6} {'median ms':>10} {'max ms':>8} {'steps':>6}")
    for devices in (20, 40):
        bits = np.full(devices, 462_410 * 4.0)
        for name, method in METHODS.items():
            took: dict[str, list[tuple[float, int]]] = {"cold": [], "warm": []}
            for seed in range(arguments.drops):
                uplink, start = drop(devices, seed), None
                for state, load in (("cold", 0.97 * bits), ("warm", bits)):
                    begun_s = time.process_time()
                    result = method(uplink, RoundLoad(load, compute_s=0.075), start=start)
                    took[state].append((time.process_time() - begun_s, result.iterations))
                    start = result.coefficient
            for state, runs in took.items():
                spent_ms = [1e3 * seconds for seconds, _ in runs]
                steps = statistics.median(steps for _, steps in runs)
                print(
                    f"{name:20} {devices:8} {state:>6} {statistics.median(spent_ms):10.1f} "
                    f"{max(spent_ms):8.1f} {steps:6.0f}",
                    flush=True,
                )
    time_sp_fl(arguments.drops)
    return 0


if __name__ == "__main__":
    sys.exit(main())
