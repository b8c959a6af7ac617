"""What other frameworks' codecs cost and bring on the same vector, one line for each that is installed.

They need versions of common packages that Fadelab does not, and one of them another than the others ask for,
so they get an environment of their own; pip complains about grpcio and protobuf, what is measured works:

    python3 -m venv peers
    peers/bin/pip install bitsandbytes fedlab nvflare openfl
    peers/bin/pip install --upgrade flwr 'grpcio>=1.81' 'protobuf>=6.33,<7'
    python benchmarks/codec.py --peers peers/bin/python

Every round copies the vector once and then runs each codec, in processor time. What is called is what the frameworks call
themselves; bits are those of all arrays and bytes that a codec returns, before any serialisation.
"""

import argparse
import contextlib
import io
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Peer:
    """One codec of another framework."""

    name: str
    encode: Callable[[F32], Any]
    decode: Callable[[Any], Any]
    """Returns an array or a tensor; does not change what it is given."""


def bitsandbytes() -> Iterator[Peer]:
    torch, functional = import_module("torch"), import_module("bitsandbytes.functional")

    def eight_bits(vector: F32) -> Any:
        return functional.quantize_blockwise(torch.from_numpy(vector))

    def four_bits(vector: F32) -> Any:
        return functional.quantize_4bit(torch.from_numpy(vector), quant_type="nf4")

    yield Peer("blockwise 8 bits", eight_bits, lambda code: functional.dequantize_blockwise(*code))
    yield Peer("NF4", four_bits, lambda code: functional.dequantize_4bit(*code))


def fedlab() -> Iterator[Peer]:
    torch = import_module("torch")
    qsgd = import_module("fedlab.contrib.compressor.quantization").QSGDCompressor(8)
    topk = import_module("fedlab.contrib.compressor.topk").TopkCompressor(0.01)

    def largest(vector: F32) -> Any:
        return *topk.compress(torch.from_numpy(vector)), vector.shape

    yield Peer("QSGD, 8", lambda vector: qsgd.compress(torch.from_numpy(vector)), qsgd.decompress)
    yield Peer("top 1 %", largest, lambda code: topk.decompress(*code))


def nvflare() -> Iterator[Peer]:
    context = import_module("nvflare.apis.fl_context").FLContext()
    filters = "nvflare.app_opt.pt.quantization"

    def peer(kind: str) -> Peer:
        quantiser = import_module(f"{filters}.quantizer").ModelQuantizer(kind)
        dequantiser = import_module(f"{filters}.dequantizer").ModelDequantizer()

        def decode(code: Any) -> Any:
            # Both directions write into the dictionaries that they are given.
            parameters, state, types = code
            return dequantiser.dequantization(
                params=dict(parameters),
                quantization_type=kind,
                quant_state=state,
                source_datatype=types,
                fl_ctx=context,
            )["all"]

        return Peer(
            {"float16": "float16", "adaquant": "AdaQuant with bz2"}[kind],
            lambda vector: quantiser.quantization({"all": vector}, context),
            decode,
        )

    yield peer("float16")
    yield peer("adaquant")


def openfl() -> Iterator[Peer]:
    pipelines = import_module("openfl.pipelines")

    def peer(name: str, pipeline: Any) -> Peer:
        # Decoding uses the list of metadata up.
        return Peer(name, pipeline.forward, lambda code: pipeline.backward(code[0], list(code[1])))

    yield peer("STC, 1 %", pipelines.STCPipeline(p_sparsity=0.01))
    yield peer("EDEN, 4", pipelines.EdenPipeline(n_bits=4))
    yield peer("EDEN, 8", pipelines.EdenPipeline(n_bits=8))


def flwr() -> Iterator[Peer]:
    common = import_module("flwr.common")
    yield Peer(
        "ndarrays_to_parameters",
        lambda vector: common.ndarrays_to_parameters([vector]),
        lambda code: common.parameters_to_ndarrays(code)[0],
    )


PACKAGES = (bitsandbytes, fedlab, nvflare, openfl, flwr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vector", type=Path, help="a float32 vector, as numpy saves it")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peers, missing = installed()
    if peers:
        report(np.load(arguments.vector), peers, arguments.rounds)
    if missing:
        print(f"not installed here: {', '.join(missing)}; benchmarks/codec_peers.py says how")
    return 0


def installed() -> tuple[dict[str, Peer], list[str]]:
    """Return what can be measured, by package and codec, and which packages are missing."""
    peers: dict[str, Peer] = {}
    missing = []
    for package in PACKAGES:
        try:
            # Some greet on the standard output.
            with contextlib.redirect_stdout(io.StringIO()):
                found = list(package())
        except (ImportError, RuntimeError) as error:
            first_line = str(error).splitlines()[0][:80]
            missing.append(f"{package.__name__} ({first_line})")
            continue
        release = version(package.__name__)
        peers |= {f"{package.__name__} {release}: {peer.name}": peer for peer in found}
    return peers, missing


def report(vector: F32, peers: dict[str, Peer], rounds: int) -> None:
    import_module("torch").set_num_threads(1)
    target = np.empty_like(vector)
    copies: list[float] = []
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in peers}
    facts: dict[str, str] = {}
    for _ in range(rounds):
        copies.append(seconds(lambda: np.copyto(target, vector))[0])
        for name, peer in peers.items():
            encode_s, code = seconds(lambda peer=peer: peer.encode(vector))
            decode_s, decoded = seconds(lambda peer=peer, code=code: peer.decode(code))
            entries = np.ravel(decoded)
            add_s, _ = seconds(
                lambda entries=entries: np.add(target, entries, out=target, casting="unsafe")
            )
            times[name].append((encode_s, decode_s, decode_s + add_s))
            if name not in facts:
                difference = entries.astype(np.float64) - vector
                nmse = difference @ difference / (vector @ vector.astype(np.float64))
                facts[name] = f"{8 * size(code) / len(vector):9.3f} {nmse:9.2e}"
    copy_s = statistics.median(copies)
    print(f"peers; copying takes {copy_s * 1e3:.3f} ms")
    for name, rows in times.items():
        figures = [statistics.median(column) for column in zip(*rows, strict=True)]
        speeds = " ".join(f"{own * 1e3:8.2f} {copy_s / own:7.4f}" for own in figures)
        print(f"{name:44} {speeds} {facts[name]}", flush=True)


def size(code: Any) -> int:
    """Return the bytes of all arrays and byte strings in what a codec returned."""
    if isinstance(code, bytes):
        return len(code)
    if hasattr(code, "nbytes"):
        return int(code.nbytes)
    if hasattr(code, "absmax"):
        return size([code.absmax, code.code])
    if hasattr(code, "tensors"):
        return size(code.tensors)
    if isinstance(code, dict):
        return sum(size(value) for value in code.values())
    if isinstance(code, list | tuple):
        return sum(size(value) for value in code)
    return 8 if isinstance(code, float) else 0


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = action()
    return time.process_time() - begin, result


if __name__ == "__main__":
    sys.exit(main())
