import errno
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fadelab_server import checkpoint
from fadelab_server.checkpoint import FILE_NAME, Arrays, CheckpointError

ARRAYS: Arrays = {"0.vector": np.arange(3, dtype=np.float32), "0.pending.samples": np.array(7)}


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "made" / "here", {"run_id": 5}, ARRAYS)
    meta, arrays = checkpoint.load(tmp_path / "made" / "here")
    assert meta == {"run_id": 5}
    np.testing.assert_array_equal(arrays["0.vector"], ARRAYS["0.vector"])
    assert arrays["0.vector"].dtype == np.float32
    assert int(arrays["0.pending.samples"]) == 7


def test_a_failed_save_leaves_the_earlier_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, {"version": 1}, ARRAYS)
    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint .* No space left"):
        checkpoint.save(tmp_path, {"version": 2}, ARRAYS)
    assert checkpoint.load(tmp_path)[0] == {"version": 1}


def test_the_new_file_is_flushed_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    replace = Path.replace

    def note_replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr("os.fsync", lambda _: steps.append("fsync"))
    monkeypatch.setattr(Path, "replace", note_replace)
    checkpoint.save(tmp_path, {}, ARRAYS)
    assert steps == ["fsync", "replace", "fsync"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*server\.npz"):
        checkpoint.load(tmp_path)


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def saved(write: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def described_by(meta: object) -> bytes:
    header = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    return saved(lambda file: np.savez(file, meta=header))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"PK\x03\x04 torn",
        zipped("meta", b"not an array"),
        zipped("other.npy", b"\x93NUMPY torn"),
        saved(lambda file: np.save(file, np.zeros(3))),
        saved(lambda file: np.savez(file, other=np.zeros(3))),
        saved(lambda file: np.savez(file, meta=np.frombuffer(b"{", dtype=np.uint8))),
        saved(lambda file: np.savez(file, meta=np.array([{}]))),
        described_by([1, 2]),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"server\.npz is not a checkpoint"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_torn_or_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"run_id": 5}, ARRAYS)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    for cut in range(0, len(whole), 41):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            checkpoint.load(tmp_path)
    position = whole.index(np.arange(3, dtype=np.float32).tobytes())
    path.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        checkpoint.load(tmp_path)
