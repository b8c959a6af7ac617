"""What codecs cost and bring, beside copying the vector and beside torch.topk.

    OMP_NUM_THREADS=1 python benchmarks/codec.py [--rounds 9] [--sizes 7850,466122,11173962]

Every round copies the vector once and then runs each codec; figures are medians over the rounds, and
speeds are shares of the copy's speed in the same run. The vector is heavy-tailed, with layers of
different scales and a share of zeros, as gradients have.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from fadelab_proto import codecs
from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.codecs import (
    Codec,
    DenseF16,
    DenseF32,
    EmqAdaptive,
    EmqFixed,
    Encoding,
    Groups,
    Laq,
    Lossless,
    MixedResolution,
    Qsgd,
    SignModulus,
    TopK,
    Uniform,
)
from fadelab_proto.codecs.base import F32

PAYLOAD_BYTES = (1 << 20) - 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", default="7850,466122,11173962")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    for size in arguments.sizes.split(","):
        report(gradient(int(size)), arguments.rounds)
    return 0


def gradient(size: int) -> F32:
    """Return a vector of ten layers; in each, a fifth of the entries is 0."""
    draw = np.random.default_rng(1)
    vector = draw.standard_normal(size, dtype=np.float32)
    vector *= draw.standard_normal(size, dtype=np.float32)
    scales = 10 ** draw.uniform(-2, 0, 10)
    vector *= scales[np.arange(size) * 10 // size].astype(np.float32)
    vector[draw.random(size) < 0.2] = 0
    return vector


def known(size: int) -> dict[str, Codec]:
    hundredth = max(1, size // 100)
    return {
        "float32": DenseF32(),
        "float16": DenseF16(),
        "sign and modulus, 8": SignModulus(8),
        "sign and modulus, 4": SignModulus(4),
        "sign and modulus, 1": SignModulus(1),
        "sign, modulus, 4096": SignModulus(8, Groups(block=4096)),
        "uniform, 8": Uniform(8),
        "uniform, 4 per 4096": Uniform(4, Groups(block=4096)),
        "QSGD, 8": Qsgd(8),
        "LAQ, 8": Laq(8),
        "EMQ 1+4+3": EmqFixed(4, 3),
        "EMQ adaptive 5, 10": EmqAdaptive(5, 10),
        "mixed resolution": MixedResolution(0.1, 4),
        "top 1 %, float32": TopK(hundredth),
        "top 1 %, float16": TopK(hundredth, DenseF16()),
        "top 1 %, 4 bits": TopK(hundredth, Uniform(4)),
        "top 10 %, float16": TopK(10 * hundredth, DenseF16()),
        "zlib of uniform, 8": Lossless(Uniform(8)),
    }


def report(vector: F32, rounds: int) -> None:
    size = len(vector)
    times: dict[str, list[tuple[float, ...]]] = {}
    encodings: dict[str, Encoding] = {}
    target = np.empty_like(vector)
    copies, chosen = [], []
    for number in range(rounds):
        copies.append(seconds(lambda: np.copyto(target, vector)))
        for name, codec in known(size).items():
            draw = np.random.default_rng(number)
            begin = time.perf_counter()
            encodings[name] = codec.encode(vector, max_payload_bytes=PAYLOAD_BYTES, generator=draw)
            encode_s = time.perf_counter() - begin
            encoding = encodings[name]
            decode_s = seconds(lambda encoding=encoding: decoded(encoding))  # type: ignore[misc]
            add_s = seconds(lambda encoding=encoding: add(encoding, target))  # type: ignore[misc]
            times.setdefault(name, []).append((encode_s, decode_s, add_s))
        chosen.append(seconds(lambda: torch.topk(torch.from_numpy(vector).abs(), size // 100 or 1)))
    copy_s = statistics.median(copies)
    print(f"\n{size} entries; copying takes {copy_s * 1e3:.3f} ms")
    print(f"{'':20} {'encode ms':>10} {'':>6} {'decode':>7} {'':>6} {'+ add':>7} {'':>6}", end=" ")
    print(f"{'nominal b':>9} {'coded b':>8} {'index bound':>11} {'NMSE':>9}")
    for name, rows in times.items():
        figures = [statistics.median(column) for column in zip(*rows, strict=True)]
        encoding = encodings[name]
        error = nmse(encoding, vector)
        speeds = " ".join(f"{own * 1e3:7.2f} {copy_s / own:6.2f}" for own in figures)
        print(
            f"{name:20}    {speeds} {encoding.nominal_bits / size:9.3f}"
            f" {encoding.coded_bits / size:8.3f} {index_bound(name, size):>11} {error:9.2e}"
        )
    topk_s = statistics.median(chosen)
    print(f"{'torch.topk of 1 %':20}    {topk_s * 1e3:7.2f} {copy_s / topk_s:6.2f}", flush=True)


def index_bound(name: str, size: int) -> str:
    """Return what uniformly random indices take at least, in bits for each entry of the vector."""
    if not name.startswith("top"):
        return ""
    kept = max(1, size // 100) * (10 if "10 %" in name else 1)
    logarithm = math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    return f"{logarithm / math.log(2) / size:.4f}"


def decoded(encoding: Encoding) -> list[codecs.Segment]:
    return [
        codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)
        for chunk in encoding.chunks
    ]


def add(encoding: Encoding, target: F32) -> None:
    for segment in decoded(encoding):
        segment.add_to(target)


def nmse(encoding: Encoding, vector: F32) -> float:
    parts = {part: np.zeros_like(vector) for part in codecs.Part}
    for segment in decoded(encoding):
        segment.add_to(parts[segment.part])
    rebuilt = parts[codecs.Part.VALUES]
    rebuilt += parts[codecs.Part.SIGNS] * parts[codecs.Part.MODULI]
    difference = rebuilt.astype(np.float64) - vector
    return float(np.dot(difference, difference) / np.dot(vector, vector.astype(np.float64)))


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
