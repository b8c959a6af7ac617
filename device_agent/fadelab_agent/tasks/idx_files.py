"""The idx format of the MNIST family: a magic number, the sizes, then one byte per entry.

Format: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits". Files may be
gzip-compressed. Declared sizes are checked before anything is allocated, and no more is read than
was declared.
"""

import gzip
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch

from fadelab_agent.tasks.base import DataSetBroken, DataSetMissing
from fadelab_agent.tasks.pictures import PictureData

_UNSIGNED_BYTES = 0x08
_MAX_BYTES = 256 << 20


def load_idx_task(name: str, folder: Path, loader: str) -> PictureData:
    """Load the four files of a data set that is laid out like MNIST.

    Args:
        name: the task.
        folder: where the files are.
        loader: the usual tool that writes this layout, for the error message.

    Raises:
        DataSetMissing: if a file is not there, neither plain nor with ``.gz``.
        DataSetBroken: if a file is not what it should be.

    """
    stems = {
        "train_x": "train-images-idx3-ubyte",
        "train_y": "train-labels-idx1-ubyte",
        "test_x": "t10k-images-idx3-ubyte",
        "test_y": "t10k-labels-idx1-ubyte",
    }
    paths = {key: _existing(folder / stem) for key, stem in stems.items()}
    missing = [stems[key] for key, path in paths.items() if path is None]
    if missing:
        raise DataSetMissing(
            f"{name} needs {', '.join(missing)} (plain or .gz) in {folder.absolute()}: "
            f"the layout that {loader} uses"
        )
    arrays = {
        key: read_idx(path, dimensions=3 if key.endswith("x") else 1)
        for key, path in paths.items()
        if path is not None
    }
    return PictureData(
        name,
        train_x=torch.from_numpy(arrays["train_x"]).unsqueeze(1),
        train_y=torch.from_numpy(arrays["train_y"].astype(np.int64)),
        test_x=torch.from_numpy(arrays["test_x"]).unsqueeze(1),
        test_y=torch.from_numpy(arrays["test_y"].astype(np.int64)),
    )


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Return the uint8 array that an idx file holds.

    Args:
        path: plain, or compressed if its name ends with ``.gz``.
        dimensions: how many the array must have.

    Raises:
        DataSetBroken: if it has others, or its length does not match the declared sizes.

    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataSetBroken(f"{path} cannot be read: {error}") from error


def _parse(file: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int) -> np.ndarray:
    head = file.read(4 + 4 * dimensions)
    if head[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]) or len(head) < 4 + 4 * dimensions:
        raise DataSetBroken(f"{path} is not an idx file of {dimensions}-dimensional bytes")
    shape = struct.unpack_from(f">{dimensions}I", head, 4)
    size = 1
    for length in shape:
        size *= length
    if size > _MAX_BYTES:
        raise DataSetBroken(f"{path} declares {size} bytes, more than the {_MAX_BYTES} allowed")
    # One byte more than declared, so that a longer file is noticed.
    content = file.read(size + 1)
    if len(content) != size:
        raise DataSetBroken(f"{path} declares {size} bytes but holds fewer or more")
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape)


def _existing(plain: Path) -> Path | None:
    for path in (plain, plain.with_name(plain.name + ".gz")):
        if path.is_file():
            return path
    return None
