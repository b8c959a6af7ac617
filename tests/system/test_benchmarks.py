"""The benchmarks of the wire run and print their tables; how fast anything is, is not asked here."""

import subprocess
import sys

from tests.system.commands import ROOT


def printed(name: str, *arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_ingest() -> None:
    few = ("--dimension", "20000", "--seconds", "0.2", "--devices", "4", "--repetitions", "1")
    said = printed("ingest.py", *few, "--only", "4 bits").splitlines()
    kinds = ("gRPC alone", "and adding", "disk", "kernel", "none", "no rounds")
    assert [kind in line for kind, line in zip(kinds, said[1:7], strict=True)] == [True] * 6
    assert "the journal costs" in said[7]


def test_streams() -> None:
    said = printed("streams.py", "--streams", "20", "--seconds", "1")
    assert "20 streams of 1 MiB over 1 s" in said
    assert "MiB" in said.splitlines()[1]


def test_codec() -> None:
    said = printed("codec.py", "--sizes", "7850", "--rounds", "1")
    for part in ("top 1 %, 4 bits", "torch.topk 1 %", "bitsandbytes"):
        assert part in said
    (checksum,) = [line for line in said.splitlines() if line.startswith("header and checksum")]
    assert checksum.endswith("met")
