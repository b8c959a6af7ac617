"""What codecs cost and bring, beside copying the vector, torch.topk and other frameworks' codecs.

    OMP_NUM_THREADS=1 python benchmarks/codec.py [--rounds 9] [--sizes 7850,466122,11173962]
                                                 [--peers peers/bin/python] [--accelerate]

Every round copies the vector once and then runs each codec, on one processor. Figures are medians over the
rounds of the time that this process had the processor, so that other work disturbs little; speeds are shares
of the copy's speed in the same run. What indices take is compared with what
uniformly random ones take at least, and the lossless stage with the order-0 entropy of the levels.

The others are run by an interpreter of their own; codec_peers.py says how to install them:

    python3 -m venv peers
    peers/bin/pip install bitsandbytes fedlab nvflare openfl
    peers/bin/pip install --upgrade flwr 'grpcio>=1.81' 'protobuf>=6.33,<7'
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from codec_measures import Report, measure
from codec_targets import print_targets
from codec_vectors import gradient

from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.codecs import accelerate
from fadelab_proto.codecs.base import F32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", default="7850,466122,11173962")
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has them")
    parser.add_argument("--accelerate", action="store_true", help="use the compiled kernels")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.accelerate:
        accelerate()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    reports = []
    for size in arguments.sizes.split(","):
        vector = gradient(int(size))
        reports.append(measure(vector, arguments.rounds))
        print_report(reports[-1])
        run_peers(arguments.peers, vector, arguments.rounds)
    print_targets(reports)
    return 0


def print_report(report: Report) -> None:
    print(f"\n{report.size} entries; copying takes {report.copy_s * 1e3:.4f} ms")
    print(f"{'':30} {'encode ms':>10} {'x copy':>7} {'decode':>8} {'x copy':>7}", end=" ")
    print(f"{'+ add':>8} {'x copy':>7} {'nominal b':>9} {'coded b':>9} {'NMSE':>9} {'x bound':>7}")
    for name, line in report.lines.items():
        speeds = " ".join(
            f"{own * 1e3:8.3f} {report.copy_s / own:7.3f}"
            for own in (line.encode_s, line.decode_s, line.add_s)
        )
        bound = "" if line.against_bound is None else f"{line.against_bound:7.3f}"
        print(
            f"{name:30}   {speeds} {line.nominal_bits:9.3f} {line.coded_bits:9.3f}"
            f" {line.nmse:9.2e} {bound}"
        )
    for name, own in report.others_s.items():
        print(f"{name:30}   {own * 1e3:8.3f} {report.copy_s / own:7.3f}")
    print(f"1 % uniform indices take {report.uniform_indices:.4f} of their entropy", flush=True)


def run_peers(interpreter: str, vector: F32, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.npy"
        np.save(path, vector)
        script = Path(__file__).with_name("codec_peers.py")
        subprocess.run([interpreter, script, path, f"--rounds={rounds}"], check=True)


if __name__ == "__main__":
    sys.exit(main())
