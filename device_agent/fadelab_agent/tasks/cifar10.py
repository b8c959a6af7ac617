"""``cifar10``: 50 000 + 10 000 colour pictures of 32x32 pixels (Krizhevsky, 2009).

The set is distributed as Python pickles. A pickle may call any function of any module when it is
loaded, so these are read by an unpickler that knows only what such files need.
"""

import codecs
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fadelab_agent.tasks.base import DataSetBroken, DataSetMissing
from fadelab_agent.tasks.pictures import PictureData

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_ROW_BYTES = 3 * 32 * 32
_MAX_FILE_BYTES = 64 << 20


def load_cifar10(data_dir: Path) -> PictureData:
    """Load ``data_dir/cifar-10-batches-py``, the "python version" of the set.

    Raises:
        DataSetMissing: if batches are not there.
        DataSetBroken: if a batch is not what it should be.

    """
    folder = data_dir / "cifar-10-batches-py"
    missing = [name for name in _TRAIN + _TEST if not (folder / name).is_file()]
    if missing:
        raise DataSetMissing(
            f"cifar10 needs {', '.join(missing)} in {folder.absolute()}: "
            "the layout that torchvision.datasets.CIFAR10 uses"
        )
    train_x, train_y = _join([read_batch(folder / name) for name in _TRAIN])
    test_x, test_y = _join([read_batch(folder / name) for name in _TEST])
    return PictureData("cifar10", train_x, train_y, test_x, test_y)


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels, uint8 of shape ``(n, 3072)``, and labels, int64 of shape ``(n,)``.

    Raises:
        DataSetBroken: if the file is no such batch, or asks for a function that it has no
            business to call.

    """
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise DataSetBroken(f"{path} is larger than the {_MAX_FILE_BYTES} bytes allowed")
    try:
        with path.open("rb") as file:
            batch = _BatchUnpickler(file, encoding="bytes").load()
        pixels = np.asarray(batch[b"data"])
        labels = np.asarray(batch[b"labels"], dtype=np.int64)
    # Damaged pickles raise nearly anything; all of it means the same to the user.
    except Exception as error:
        raise DataSetBroken(f"{path} is not a batch of CIFAR-10: {error}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (labels.size, _ROW_BYTES) or labels.ndim != 1:
        raise DataSetBroken(
            f"{path} should hold bytes of shape (n, {_ROW_BYTES}) and n labels, it holds "
            f"{pixels.dtype} of shape {pixels.shape} and {labels.size} labels"
        )
    return pixels, labels


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    return torch.from_numpy(pixels), torch.from_numpy(labels)


_ARRAY_CLASS = "the class numpy.ndarray, which a batch may name but not call"


def _empty_array(array_class: object, shape: object, kind: object) -> np.ndarray:
    """Stand in for numpy's ``_reconstruct``: the pickle fills the array in afterwards."""
    if array_class is not _ARRAY_CLASS or shape != (0,) or kind != b"b":
        raise pickle.UnpicklingError("an array is built in an unusual way")
    return np.empty(0, dtype=np.uint8)


def _byte_type(code: object, *_flags: object) -> np.dtype[np.uint8]:
    """Stand in for ``numpy.dtype``: the only entries that a batch holds are bytes."""
    if code not in {"u1", b"u1"}:
        raise pickle.UnpicklingError(f"an array has entries of type {code!r}, not bytes")
    # A copy, since the pickle goes on to set the state of what it gets.
    return np.dtype(np.uint8, copy=True)


def _latin1(text: object, encoding: object) -> bytes:
    """Stand in for ``codecs.encode``, by which Python 3 writes bytes in old protocols."""
    if not isinstance(text, str) or encoding not in {"latin1", b"latin1"}:
        raise pickle.UnpicklingError("bytes are built in an unusual way")
    return codecs.encode(text, "latin1")


class _BatchUnpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, strings and byte arrays; refuses every other name."""

    _ADMITTED: dict[tuple[str, str], Callable[..., object] | str] = {  # noqa: RUF012 - constant
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        ("numpy", "ndarray"): _ARRAY_CLASS,
        ("numpy", "dtype"): _byte_type,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in for an admitted name."""
        if (module, name) not in self._ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._ADMITTED[module, name]
