"""Data sets: the bundled one as it is, the others as small files in their usual layout."""

import gzip
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from fadelab_agent.config import TaskConfig, TaskName
from fadelab_agent.tasks import DataSetBroken, DataSetError, DataSetMissing, TaskData, load_task
from fadelab_agent.tasks.cifar10 import read_batch
from fadelab_agent.tasks.idx_files import read_idx

RNG = np.random.default_rng(0)


def load(name: TaskName, folder: Path) -> TaskData:
    return load_task(TaskConfig(name=name), folder)


def idx_bytes(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write_idx_task(folder: Path, *, compressed: bool) -> np.ndarray:
    """Write 6 training and 2 test pictures; return the training pictures."""
    folder.mkdir(parents=True)
    pictures = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    arrays = {
        "train-images-idx3-ubyte": pictures,
        "train-labels-idx1-ubyte": np.arange(6, dtype=np.uint8),
        "t10k-images-idx3-ubyte": pictures[:2],
        "t10k-labels-idx1-ubyte": np.array([3, 9], dtype=np.uint8),
    }
    for name, array in arrays.items():
        content = idx_bytes(array)
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return pictures


def write_cifar10(folder: Path) -> np.ndarray:
    """Write 2 pictures a batch; return the pixels of the first batch."""
    folder.mkdir(parents=True)
    pixels = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        batch = {
            b"batch_label": name.encode(),
            b"labels": [4, 9],
            b"data": pixels,
            b"filenames": [b"a.png", b"b.png"],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return pixels


def test_digits_are_split_once_and_for_all(tmp_path: Path) -> None:
    data = load("digits", tmp_path)
    assert data.train_x.shape == (1437, 1, 8, 8)
    assert data.test_x.shape == (360, 1, 8, 8)
    assert set(data.train_y.tolist()) == set(data.test_y.tolist()) == set(range(10))
    scaled = data.inputs(data.train_x)
    assert scaled.dtype == torch.float32
    assert (float(scaled.min()), float(scaled.max())) == (0.0, 1.0)
    again = load("digits", tmp_path)
    assert torch.equal(data.train_x, again.train_x)
    assert torch.equal(data.test_y, again.test_y)


def test_digits_are_the_set_that_scikit_learn_has(tmp_path: Path) -> None:
    data = load("digits", tmp_path)
    ours = torch.cat([data.train_x, data.test_x]).numpy().reshape(-1, 64)
    theirs = sklearn.datasets.load_digits().data.astype(np.uint8)
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_digits_do_not_import_scikit_learn() -> None:
    code = (
        "import sys; from fadelab_agent.config import TaskConfig; "
        "from fadelab_agent.tasks import load_task; load_task(TaskConfig()); "
        "sys.exit('sklearn' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_a_limited_task_keeps_the_same_random_pictures(tmp_path: Path) -> None:
    whole = load("digits", tmp_path)
    some = load_task(TaskConfig(train_samples=100, test_samples=50), tmp_path)
    again = load_task(TaskConfig(train_samples=100, test_samples=50), tmp_path)
    assert (len(some.train_x), len(some.train_y), len(some.test_y)) == (100, 100, 50)
    assert torch.equal(some.train_x, again.train_x)
    assert len(some.groups.unique()) == 10
    assert not torch.equal(some.train_y, whole.train_y[:100])
    for picture, label in zip(some.test_x, some.test_y, strict=True):
        same = (whole.test_x == picture).flatten(1).all(dim=1)
        assert label in whole.test_y[same]
    assert len(load_task(TaskConfig(train_samples=10**6), tmp_path).train_x) == 1437


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")]
)
def test_the_mnist_family(tmp_path: Path, name: TaskName, folder: str, compressed: bool) -> None:
    pictures = write_idx_task(tmp_path / folder, compressed=compressed)
    data = load(name, tmp_path)
    assert np.array_equal(data.train_x.numpy()[:, 0], pictures)
    assert data.train_x.dtype == torch.uint8
    assert data.train_y.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.test_y.tolist() == [3, 9]
    assert data.input_shape == (1, 28, 28)


def test_cifar10(tmp_path: Path) -> None:
    pixels = write_cifar10(tmp_path / "cifar-10-batches-py")
    data = load("cifar10", tmp_path)
    assert data.train_x.shape == (10, 3, 32, 32)
    assert np.array_equal(data.train_x[0].numpy().reshape(-1), pixels[0])
    assert data.train_y.tolist() == [4, 9] * 5
    assert data.test_y.tolist() == [4, 9]


def test_svhn(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
    labels = np.array([[1], [10], [9]], dtype=np.uint8)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(tmp_path / name, {"X": pixels, "y": labels})
    data = load("svhn", tmp_path)
    assert data.train_y.tolist() == [1, 0, 9]
    assert data.train_x.shape == (3, 3, 32, 32)
    assert int(data.train_x[2, 1, 5, 7]) == pixels[5, 7, 1, 2]


@pytest.mark.parametrize(
    ("name", "folder", "file", "layout"),
    [
        ("mnist", "MNIST/raw", "train-images-idx3-ubyte", "torchvision.datasets.MNIST"),
        (
            "fashion_mnist",
            "FashionMNIST/raw",
            "t10k-labels-idx1-ubyte",
            "torchvision.datasets.FashionMNIST",
        ),
        ("cifar10", "cifar-10-batches-py", "data_batch_3", "torchvision.datasets.CIFAR10"),
        ("svhn", ".", "test_32x32.mat", "torchvision.datasets.SVHN"),
    ],
)
def test_a_missing_data_set_says_what_and_where(
    tmp_path: Path, name: TaskName, folder: str, file: str, layout: str
) -> None:
    with pytest.raises(DataSetMissing) as caught:
        load(name, tmp_path)
    sentence = str(caught.value)
    assert str(tmp_path / folder) in sentence
    assert file in sentence
    assert layout in sentence
    assert "\n" not in sentence


def test_digits_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataSetMissing, match="scikit-learn"):
        load("digits", tmp_path)


def test_one_missing_file_is_the_one_named(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx_task(folder, compressed=True)
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataSetMissing, match="needs train-labels-idx1-ubyte "):
        load("mnist", tmp_path)


GOOD = idx_bytes(np.zeros((2, 3, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:9],
        GOOD[:-1],
        GOOD + b"\0",
        b"\0\0\x0d\x03" + GOOD[4:],
        b"\0\0\x08\x01" + GOOD[4:],
        b"\0\0\x08\x03" + b"\xff" * 12,
    ],
)
def test_broken_idx_files_are_refused(tmp_path: Path, content: bytes) -> None:
    plain, packed = tmp_path / "file", tmp_path / "file.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    for path in (plain, packed):
        with pytest.raises(DataSetBroken, match="file"):
            read_idx(path, dimensions=3)


@given(content=st.binary(max_size=64))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_break_the_readers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(DataSetBroken):
        read_idx(path, dimensions=3)
    with pytest.raises(DataSetBroken):
        read_batch(path)


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(GOOD)[:-12])
    with pytest.raises(DataSetBroken, match=r"file\.gz"):
        read_idx(path, dimensions=3)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx_task(folder, compressed=False)
    labels = folder / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.array([3, 10], dtype=np.uint8)))
    with pytest.raises(DataSetBroken, match=r"test label outside 0\.\.9"):
        load("mnist", tmp_path)
    labels.write_bytes(idx_bytes(np.array([3], dtype=np.uint8)))
    with pytest.raises(DataSetBroken, match="2 test pictures but 1 labels"):
        load("mnist", tmp_path)


class Malicious:
    """A pickle that would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def test_a_pickle_with_other_content_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "data_batch_1"
    for content in (Malicious(marker), {b"data": Malicious(marker), b"labels": [1]}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataSetBroken, match="it asks for pathlib"):
            read_batch(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.float32), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1, 2]},
        {b"data": np.zeros((1, 100), np.uint8), b"labels": [1]},
        {b"data": np.array([[None] * 3072]), b"labels": [1]},
    ],
)
def test_a_pickle_that_is_no_batch_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataSetBroken, match="data_batch_1"):
        read_batch(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_batches_of_all_pickle_protocols(tmp_path: Path, protocol: int) -> None:
    pixels = RNG.integers(0, 256, (1, 3072), dtype=np.uint8)
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": pixels, b"labels": [7]}, protocol=protocol))
    read, labels = read_batch(path)
    assert np.array_equal(read, pixels)
    assert labels.tolist() == [7]


def test_batches_as_python_2_wrote_them(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
    raw = pixels.tobytes()
    # The published files: short byte strings as keys, numpy's old module names.
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
    ) + (struct.pack("<i", len(raw)) + raw + b"tb")
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x04K\x09eu.")
    read, labels = read_batch(path)
    assert np.array_equal(read, pixels)
    assert labels.tolist() == [4, 9]


def test_a_broken_mat_file_is_refused(tmp_path: Path) -> None:
    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).write_bytes(b"no such file" * 20)
    with pytest.raises(DataSetError, match="does not hold the arrays X and y"):
        load("svhn", tmp_path)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(tmp_path / name, {"X": np.zeros((32, 32, 3, 2)), "y": [[1], [2]]})
    with pytest.raises(DataSetBroken, match="float64"):
        load("svhn", tmp_path)
