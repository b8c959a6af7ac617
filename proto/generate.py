"""Generate the protobuf and gRPC stubs from the .proto files, or check that they are current.

    python proto/generate.py           write the stubs beside the .proto files
    python proto/generate.py --check   write nothing; exit 1 if a stub is missing or out of date

Versions are pinned in constraints.txt, so the same sources give the same stubs everywhere.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

_ROOT = Path(__file__).resolve().parent
_PACKAGE = "fadelab_proto"


def generate(target: Path) -> list[Path]:
    """Write all stubs below ``target``; return their paths relative to it."""
    sources = sorted(str(path.relative_to(_ROOT)) for path in (_ROOT / _PACKAGE).glob("*.proto"))
    scripts = Path(sys.executable).parent
    outputs = ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={_ROOT}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            *(f"--{output}={target}" for output in outputs),
            *sources,
        ]
    )
    if code != 0:
        raise SystemExit(code)
    return sorted(path.relative_to(target) for path in (target / _PACKAGE).glob("*_pb2*"))


def outdated() -> list[Path]:
    """Return the stubs in the source tree that differ from freshly generated ones."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        return [
            stub
            for stub in generate(fresh)
            if not (_ROOT / stub).is_file()
            or (_ROOT / stub).read_bytes() != (fresh / stub).read_bytes()
        ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        generate(_ROOT)
        return
    stale = outdated()
    if stale:
        names = ", ".join(str(stub) for stub in stale)
        raise SystemExit(f"out of date, run `make proto`: {names}")


if __name__ == "__main__":
    main()
