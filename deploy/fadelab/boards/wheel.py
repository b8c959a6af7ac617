"""This very installation of Fadelab as a wheel: what runs here is what boards get.

The format is that of PEP 427 (the binary distribution format), files and hashes in RECORD as PEP 376
has them. No build tool is needed, nor a checkout.
"""

import base64
import csv
import hashlib
import io
import zipfile
from importlib import import_module
from importlib.metadata import Distribution, distribution
from pathlib import Path

_PACKAGES = (
    "fadelab",
    "fadelab_agent",
    "fadelab_emulation",
    "fadelab_proto",
    "fadelab_server",
)
_TAGS = "Wheel-Version: 1.0\nGenerator: fadelab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can tell: the same code gives the same bytes."""


def pack_wheel(folder: Path) -> Path:
    """Write the wheel into a folder and return its path."""
    fadelab = distribution("fadelab")
    info = f"fadelab-{fadelab.version}.dist-info"
    contents = {name: path.read_bytes() for name, path in _modules().items()}
    contents[f"{info}/METADATA"] = _text(fadelab, "METADATA")
    contents[f"{info}/entry_points.txt"] = _text(fadelab, "entry_points.txt")
    contents[f"{info}/WHEEL"] = _TAGS.encode()
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow([name, f"sha256={digest}", len(data)])
    rows.writerow([f"{info}/RECORD", "", ""])
    contents[f"{info}/RECORD"] = record.getvalue().encode()
    path = folder / f"fadelab-{fadelab.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in contents.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return path


def _modules() -> dict[str, Path]:
    found = {}
    for package in _PACKAGES:
        (top,) = map(Path, import_module(package).__path__)
        for path in sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"{package}/{path.relative_to(top)}"] = path
    return found


def _text(fadelab: Distribution, name: str) -> bytes:
    text = fadelab.read_text(name)
    assert text is not None, f"the installation has no {name}"
    return text.encode()
