"""``digits``: 1 797 handwritten digits of 8x8 pixels that come with scikit-learn.

E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (its test part).
"""

import gzip
import importlib.util
import math
from pathlib import Path

import numpy as np
import torch

from fadelab_agent.tasks.base import DataSetBroken, DataSetMissing
from fadelab_agent.tasks.pictures import PictureData
from fadelab_proto.seeds import Stream, generator

_TEST_SHARE = 0.2
# The split belongs to the task, not to an experiment: results of all seeds stay comparable.
_SPLIT_SEED = 1797
_MAX_TABLE_BYTES = 1 << 20


def load_digits(data_dir: Path) -> PictureData:  # noqa: ARG001 - every task takes the folder
    """Return 1 437 training and 360 test pictures, shape ``(n, 1, 8, 8)``, white = 16.

    Raises:
        DataSetMissing: if scikit-learn is not installed.
        DataSetBroken: if its file is not the table it should be.

    """
    path = _bundled_file()
    try:
        with gzip.open(path) as file:
            text = file.read(_MAX_TABLE_BYTES).decode("ascii")
        table = np.loadtxt(text.splitlines(), delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataSetBroken(f"{path} is not the table of digits: {error}") from error
    if table.ndim != 2 or table.shape[1] != 65:
        raise DataSetBroken(f"{path} should have 65 columns, its shape is {table.shape}")
    order = generator(_SPLIT_SEED, Stream.DATA).permutation(len(table))
    held_out = math.ceil(_TEST_SHARE * len(table))
    test_x, test_y = _pictures(table[order[:held_out]])
    train_x, train_y = _pictures(table[order[held_out:]])
    return PictureData("digits", train_x, train_y, test_x, test_y, white=16)


def _bundled_file() -> Path:
    """Find the file without importing scikit-learn, which costs a second."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataSetMissing(
        "digits.csv.gz was looked for inside the Python package scikit-learn, which is not "
        "installed here: install fadelab[agent]"
    )


def _pictures(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.ascontiguousarray(rows[:, :64]).reshape(-1, 1, 8, 8)
    return torch.from_numpy(pixels), torch.from_numpy(rows[:, 64].astype(np.int64))
