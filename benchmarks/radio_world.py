"""Cost of the radio model: one tick of 1 000 devices and 64 access points, on one core.

    OMP_NUM_THREADS=1 python benchmarks/radio_world.py [--devices 1000] [--ticks 100]

Prints the median and the 90th percentile in milliseconds for several worlds.
"""

import argparse
import statistics
import sys
import time
from typing import Any

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.world import RadioWorld
from fadelab_proto.allocator import keep_freed_memory

BASE: dict[str, Any] = {
    "area_m": [1000, 1000],
    "sites": {"kind": "grid", "columns": 8, "rows": 8, "jitter": 0.25},
    "mobility": {"kind": "random_waypoint", "speed_mps": [5, 25], "pause_s": [0, 2]},
    "path_loss": {"kind": "log_distance", "exponent": 3.67, "reference_loss_db": 30.5},
    "shadowing": {"std_db": 4, "decorrelation_m": 9},
    "rate": {"kind": "shannon", "bandwidth_hz": 1e6},
    "contact": {"kind": "coverage", "radius_m": 100, "hysteresis_m": 5},
}
CELL_FREE: dict[str, Any] = {
    "kind": "cell_free",
    "antennas": 4,
    "pilot_length": 10,
    "coherence_length": 200,
    "bandwidth_hz": 20e6,
}
WORLDS: dict[str, dict[str, Any]] = {
    "coverage, Rayleigh blocks, Shannon": {"fading": {"kind": "rayleigh", "coherence_s": 0.05}},
    "coverage, Rayleigh in time, Shannon": {"fading": {"kind": "rayleigh"}},
    "coverage, cell-free MIMO": {"rate": CELL_FREE},
    "SNR threshold, UMi, cell-free MIMO": {
        "path_loss": {"kind": "tr38901_umi"},
        "contact": {"kind": "snr_threshold", "threshold_db": 0},
        "rate": CELL_FREE,
    },
    "coverage, Nakagami in time, MCS": {
        "fading": {"kind": "nakagami", "m": 2.0},
        "rate": {"kind": "mcs", "bandwidth_hz": 1e6},
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--ticks", type=int, default=100)
    arguments = parser.parse_args()
    # As the emulator does.
    keep_freed_memory()
    print(f"{'':40} {'median ms':>10} {'p90 ms':>8}")
    for name, more in WORLDS.items():
        world = RadioWorld(RadioConfig.model_validate(BASE | more), arguments.devices, seed=1)
        world.step()
        took_s = []
        for _ in range(arguments.ticks):
            start_s = time.perf_counter()
            world.step()
            took_s.append(time.perf_counter() - start_s)
        p90_s = sorted(took_s)[int(0.9 * len(took_s))]
        print(f"{name:40} {1e3 * statistics.median(took_s):10.2f} {1e3 * p90_s:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
