"""Times, sizes and errors of our codecs on one vector, beside copying it and beside torch.topk."""

import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
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
from fadelab_proto.codecs.base import F32, F64, Index
from fadelab_proto.codecs.bit_planes import field_bytes, split_fields, unpack_fields
from fadelab_proto.codecs.index_sets import decode_indices, encode_indices
from fadelab_proto.codecs.selection import largest
from fadelab_proto.codecs.sign_modulus import Moduli

PAYLOAD_BYTES = (1 << 20) - 64
STAGE = "zstd" if importlib.util.find_spec("zstandard") else "zlib"
SHARES = {"0.1 %": 0.001, "1 %": 0.01, "10 %": 0.1, "50 %": 0.5}
_INDEX_BYTES = slice(4, 8)
"""Where a sparse packet says how long its indices are."""


@dataclass(frozen=True)
class Line:
    """What one codec costs and brings; seconds are medians over all rounds."""

    encode_s: float
    decode_s: float
    add_s: float
    """Of decoding and adding to a vector."""
    nominal_bits: float
    coded_bits: float
    nmse: float
    against_bound: float | None
    """Bytes of the indices, or of the lossless stage, as a multiple of their entropy."""


@dataclass
class Report:
    """All about one vector."""

    size: int
    copy_s: float = 0.0
    lines: dict[str, Line] = field(default_factory=dict)
    others_s: dict[str, float] = field(default_factory=dict)
    """Medians of what is no whole codec: selecting, coding indices."""
    uniform_indices: float = 0.0
    """Bytes of a uniformly random set of one index in a hundred, as a multiple of its entropy."""


def known(size: int) -> dict[str, Codec]:
    """Return the codecs that are measured."""
    hundredth = max(1, size // 100)
    blocks = Groups(block=4096)
    plain: dict[str, Codec] = {
        "float32": DenseF32(),
        "float16": DenseF16(),
        "sign and modulus, 8": SignModulus(8),
        "sign and modulus, 4": SignModulus(4),
        "sign and modulus, 2": SignModulus(2),
        "sign and modulus, 1": SignModulus(1),
        "the same, 8 per 4096": SignModulus(8, blocks),
        "uniform, 8": Uniform(8),
        "uniform, 4": Uniform(4),
        "uniform, 4 per 4096": Uniform(4, blocks),
        "QSGD, 8": Qsgd(8),
        "LAQ, 8": Laq(8),
        "EMQ 1+4+3": EmqFixed(4, 3),
        "EMQ 1+4+3, unbiased": EmqFixed(4, 3, "stochastic"),
        "EMQ adaptive, 5 and 10": EmqAdaptive(5, 10),
        "mixed resolution": MixedResolution(0.1, 4),
        "top 1 %, float32": TopK(hundredth),
        "top 1 %, float16": TopK(hundredth, DenseF16()),
        "top 1 %, 4 bits": TopK(hundredth, Uniform(4)),
        "top 10 %, float16": TopK(10 * hundredth, DenseF16()),
    }
    stages = ("uniform, 8", "uniform, 4", "uniform, 4 per 4096")
    return plain | {f"{STAGE} of {name}": Lossless(plain[name], STAGE) for name in stages}


def measure(vector: F32, rounds: int) -> Report:
    """Run everything once in each round, after a copy of the vector."""
    size = len(vector)
    report = Report(size)
    target = np.zeros_like(vector)
    repeats = max(1, 100_000 // size)
    encodings = {
        name: codec.encode(
            vector, max_payload_bytes=PAYLOAD_BYTES, generator=np.random.default_rng(1)
        )
        for name, codec in known(size).items()
    }
    actions = {
        (name, step): action
        for name, codec in known(size).items()
        for step, action in _steps(codec, encodings[name], vector, target).items()
    } | {(name, ""): action for name, action in _others(vector, report).items()}
    copies: list[float] = []
    times: dict[tuple[str, str], list[float]] = {key: [] for key in actions}
    for _ in range(rounds):
        copies.append(_seconds(lambda: np.copyto(target, vector), repeats))
        for key, action in actions.items():
            times[key].append(_seconds(action, repeats))
    medians = {key: statistics.median(values) for key, values in times.items()}
    report.copy_s = statistics.median(copies)
    report.others_s = {name: medians[name, step] for name, step in actions if not step}
    for name, encoding in encodings.items():
        report.lines[name] = Line(
            medians[name, "encode"],
            medians[name, "decode"],
            medians[name, "add"],
            encoding.nominal_bits / size,
            encoding.coded_bits / size,
            _nmse(encoding, vector),
            _against_bound(name, encodings),
        )
    return report


def _steps(
    codec: Codec, encoding: Encoding, vector: F32, target: F32
) -> dict[str, Callable[[], object]]:
    draw = np.random.default_rng(1)
    return {
        "encode": lambda: codec.encode(vector, max_payload_bytes=PAYLOAD_BYTES, generator=draw),
        "decode": lambda: _decoded(encoding),
        "add": lambda: add(encoding, target),
    }


def _others(vector: F32, report: Report) -> dict[str, Callable[[], object]]:
    """Return what else is timed: exact selection, torch's, and the code of indices."""
    size = len(vector)
    tensor = torch.from_numpy(vector)
    actions: dict[str, Callable[[], object]] = {}
    for name, share in SHARES.items():
        keep = max(1, int(share * size))
        actions[f"select {name}"] = lambda keep=keep: largest(vector, keep)  # type: ignore[misc]
        if share <= 0.01:
            actions[f"torch.topk {name}"] = lambda keep=keep: torch.topk(tensor.abs(), keep)  # type: ignore[misc]
    keep = max(1, size // 100)
    chosen = np.random.default_rng(2).choice(size, keep, replace=False)
    indices: Index = np.sort(chosen).astype(np.int64)
    coded = encode_indices(indices, size)
    report.uniform_indices = 8 * len(coded) / index_bits(keep, size)
    actions["code 1 % uniform indices"] = lambda: encode_indices(indices, size)
    actions["read 1 % uniform indices"] = lambda: decode_indices(coded, k=keep, n=size)
    return actions


def add(encoding: Encoding, target: F32) -> None:
    """Decode, and add to ``target``; magnitudes get their signs."""
    signs = np.frombuffer(
        b"".join(chunk.payload for chunk in encoding.chunks if chunk.codec == pb.CODEC_SIGN),
        dtype=np.uint8,
    )
    for chunk in encoding.chunks:
        if chunk.codec == pb.CODEC_MODULUS:
            span = {"first": chunk.first, "count": chunk.count}
            Moduli.accumulate(chunk.payload, target, 1.0, **span, signs=signs)
        elif chunk.codec != pb.CODEC_SIGN:
            _decode(chunk).add_to(target)


def index_bits(kept: int, size: int) -> float:
    """Return ``log2 C(size, kept)``, what a uniformly random set takes at least."""
    logarithm = math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    return logarithm / math.log(2)


def _decode(chunk: codecs.Chunk) -> codecs.Segment:
    return codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)


def _decoded(encoding: Encoding) -> list[F32]:
    return [_decode(chunk).values for chunk in encoding.chunks]


def _nmse(encoding: Encoding, vector: F32) -> float:
    rebuilt = np.zeros_like(vector)
    add(encoding, rebuilt)
    difference: F64 = rebuilt.astype(np.float64) - vector
    return float(difference @ difference / (vector @ vector.astype(np.float64)))


def _against_bound(name: str, encodings: dict[str, Encoding]) -> float | None:
    encoding = encodings[name]
    if name.startswith("top"):
        payloads = [chunk.payload for chunk in encoding.chunks]
        written = sum(int.from_bytes(payload[_INDEX_BYTES], "little") for payload in payloads)
        bound = sum(
            index_bits(int.from_bytes(chunk.payload[:4], "little"), chunk.count)
            for chunk in encoding.chunks
        )
        return 8 * written / bound
    if name.startswith(STAGE):
        return encoding.coded_bits / _code_entropy(encodings[name.removeprefix(f"{STAGE} of ")])
    return None


def _code_entropy(encoding: Encoding) -> float:
    """Return what the levels of a uniform grid take in all, if they are independent."""
    counts = np.zeros(1 << 16, dtype=np.int64)
    for chunk in encoding.chunks:
        bits = chunk.payload[0]
        begin = len(chunk.payload) - field_bytes(bits, chunk.count)
        fields = split_fields(
            np.frombuffer(chunk.payload, dtype=np.uint8, offset=begin), bits, chunk.count
        )
        counts += np.bincount(unpack_fields(fields, bits, 0, chunk.count), minlength=len(counts))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() * counts.sum())


def _seconds(action: Callable[[], object], repeats: int) -> float:
    begin = time.process_time()
    for _ in range(repeats):
        action()
    return (time.process_time() - begin) / repeats
