"""``svhn``: 73 257 + 26 032 house-number digits, 32x32 pixels in colour (Netzer et al., 2011)."""

from pathlib import Path

import numpy as np
import torch

from fadelab_agent.tasks.base import DataSetBroken, DataSetMissing
from fadelab_agent.tasks.pictures import PictureData

_MAX_FILE_BYTES = 512 << 20


def load_svhn(data_dir: Path) -> PictureData:
    """Load ``train_32x32.mat`` and ``test_32x32.mat`` in ``data_dir``.

    Raises:
        DataSetMissing: if a file is not there.
        DataSetBroken: if a file is not what it should be.

    """
    paths = [data_dir / "train_32x32.mat", data_dir / "test_32x32.mat"]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataSetMissing(
            f"svhn needs {', '.join(missing)} in {data_dir.absolute()}: "
            "the layout that torchvision.datasets.SVHN uses"
        )
    (train_x, train_y), (test_x, test_y) = (_read(path) for path in paths)
    return PictureData("svhn", train_x, train_y, test_x, test_y)


def _read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    # Imported here because scipy takes a third of a second that other tasks need not pay.
    from scipy.io import loadmat  # noqa: PLC0415

    if path.stat().st_size > _MAX_FILE_BYTES:
        raise DataSetBroken(f"{path} is larger than the {_MAX_FILE_BYTES} bytes allowed")
    try:
        content = loadmat(path, variable_names=["X", "y"])
        pixels, labels = np.asarray(content["X"]), np.asarray(content["y"]).reshape(-1)
    # Damaged files raise nearly anything; all of it means the same to the user.
    except Exception as error:
        raise DataSetBroken(f"{path} does not hold the arrays X and y: {error}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, labels.size):
        raise DataSetBroken(
            f"{path} should hold bytes of shape (32, 32, 3, {labels.size}), it holds "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    samples_first = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
    # The files write the digit 0 as 10.
    digits = np.where(labels == 10, 0, labels).astype(np.int64)
    return torch.from_numpy(samples_first), torch.from_numpy(digits)
