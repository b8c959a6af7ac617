"""Atomic checkpoints: the whole state in one file.

A checkpoint is written beside the old one, flushed to the disk and renamed over it: at any moment
there is one whole checkpoint. Layout (little-endian)::

    8 bytes  magic
    u32      bytes of the description
    u32      CRC-32C of the description (RFC 3720, section 12.1)
    the description, in JSON: the caller's own, and name, type, shape and CRC-32C of each array
    the arrays, one after the other

An .npz file would do, but for its zip checksum, which takes longer than all the rest.
"""

import json
import math
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.checksum import checksum
from fadelab_proto.durable import replace_file

Arrays = dict[str, NDArray[np.generic]]
FILE_NAME = "server.state"
_HEAD = struct.Struct("<8sII")
_MAGIC = b"FADESTA1"
_KINDS = "bifu"
"""Of arrays that may be stored: truth values and numbers."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says which and why."""


class _DamagedError(Exception):
    """The file is not a checkpoint; the message says why."""


def save(directory: Path, meta: dict[str, object], arrays: Arrays) -> None:
    """Replace the checkpoint in ``directory``; durable when this returns.

    Raises:
        CheckpointError: if the file system refuses, for example because it is full.

    """
    contents = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    listed = [
        {
            "name": name,
            "type": array.dtype.str,
            "shape": list(arrays[name].shape),
            "crc": checksum((_octets(array),)),
        }
        for name, array in contents.items()
    ]
    description = json.dumps({"meta": meta, "arrays": listed}).encode()
    head = _HEAD.pack(_MAGIC, len(description), checksum((description,)))

    def write(file: IO[bytes]) -> None:
        file.write(head + description)
        for array in contents.values():
            file.write(_octets(array))

    try:
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(directory / FILE_NAME, write)
    except OSError as error:
        raise CheckpointError(f"cannot write a checkpoint in {directory}: {error}") from error


def load(directory: Path) -> tuple[dict[str, object], Arrays]:
    """Read the checkpoint in ``directory``.

    Raises:
        CheckpointError: if there is none or it is not one of ours.

    """
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint at {path}") from None
    except (OSError, _DamagedError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error


def _read(file: IO[bytes], size: int) -> tuple[dict[str, object], Arrays]:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or head[: len(_MAGIC)] != _MAGIC:
        raise _DamagedError("it does not begin like one")
    _, length, crc = _HEAD.unpack(head)
    description = file.read(min(length, size))
    if len(description) != length or checksum((description,)) != crc:
        raise _DamagedError("its description is damaged")
    try:
        described = json.loads(description)
        meta, listed = described["meta"], described["arrays"]
        arrays = {str(one["name"]): _read_array(file, one, size) for one in listed}
    except (KeyError, TypeError, ValueError) as error:
        raise _DamagedError(f"its description lacks something: {error}") from error
    if not isinstance(meta, dict):
        raise _DamagedError("its description is not an object")
    if file.read(1):
        raise _DamagedError("more follows than it describes")
    return meta, arrays


def _read_array(file: IO[bytes], described: dict[str, Any], size: int) -> NDArray[np.generic]:
    kind = np.dtype(str(described["type"]))
    shape = tuple(int(length) for length in described["shape"])
    if kind.kind not in _KINDS or min(shape, default=1) < 0:
        raise _DamagedError(f"it holds no array of type {kind} and shape {shape}")
    if math.prod(shape) * kind.itemsize > size:
        raise _DamagedError(f"it is too short for an array of {shape}")
    array = np.empty(shape, dtype=kind)
    octets = _octets(array)
    if file.readinto(octets) != len(octets) or checksum((octets,)) != described["crc"]:  # type: ignore[attr-defined]
        raise _DamagedError(f"array {described['name']} is damaged")
    return array


def _octets(array: NDArray[np.generic]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
