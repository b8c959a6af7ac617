"""How many devices one machine carries: start-up, memory, lateness, updates, by device count.

    python benchmarks/scale.py [--devices 8,100] [--experiment examples/quickstart.yaml]
                               [--seconds 30]

Runs the experiment once for each count and prints what each run's summary.json says. Run
directories are removed. Needs namespaces (root, or unprivileged user namespaces).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
    "devices",
    "links s",
    "forked s",
    "joined s",
    "MiB/agent",
    "late p50 ms",
    "late p99 ms",
    "updates",
    "resume p95 ms",
    "leaked",
    "valid",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="8,100")
    parser.add_argument("--experiment", type=Path, default=ROOT / "examples" / "quickstart.yaml")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    print("  ".join(f"{title:>13}" for title in COLUMNS))
    for count in options.devices.split(","):
        print("  ".join(f"{cell:>13}" for cell in measure(options, int(count))), flush=True)
    return 0


def measure(options: argparse.Namespace, devices: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "fadelab", "run", str(options.experiment)]
        command += ["--out", str(run_dir), "--set", f"devices.count={devices}"]
        command += ["--set", f"duration_s={options.seconds}"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        summary = json.loads((run_dir / "summary.json").read_text())
    start, late, total = summary["start_up"], summary["lateness"], summary["total"]
    resume = total["resume_p95_ms"]
    memory = start["median_private_memory_mib"]
    return [
        str(devices),
        f"{start['links_s']:.2f}",
        f"{start['agents_forked_s']:.2f}",
        f"{start['all_joined_s']:.2f}",
        "-" if memory is None else f"{memory:.1f}",
        f"{late['p50_ms']:.2f}",
        f"{late['p99_ms']:.2f}",
        str(total["updates"]["complete"]),
        "-" if resume is None else f"{resume:.1f}",
        str(total["leaked_packets"]),
        str(summary["valid"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
