import errno
import json
import math
import struct
from pathlib import Path

import google_crc32c
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
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*server\.state"):
        checkpoint.load(tmp_path)


def described_by(description: object, tail: bytes = b"") -> bytes:
    """Return a file whose description is undamaged, whatever it says."""
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    return struct.pack("<8sII", b"FADESTA1", len(text), google_crc32c.value(text)) + text + tail


def holding(kind: str, shape: object, tail: bytes = b"", crc: int | None = None) -> bytes:
    array = {"name": "a", "type": kind, "shape": shape, "crc": crc or google_crc32c.value(tail)}
    return described_by({"meta": {}, "arrays": [array]}, tail)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        struct.pack("<8sII", b"FADESTA1", 2**32 - 1, 0),
        described_by(b"{"),
        described_by([1, 2]),
        described_by({"meta": {}}),
        described_by({"meta": 3, "arrays": []}),
        described_by({"meta": {}, "arrays": [3]}),
        described_by({"meta": {}, "arrays": []}, b"more"),
        holding("|O", [1], bytes(8)),
        holding("nonsense", [1], bytes(8)),
        holding("<f4", [-1], bytes(4)),
        holding("<f4", [2**40], bytes(4)),
        holding("<f4", "no shape", bytes(4)),
        holding("<f4", [2], bytes(4)),
        holding("<f4", [1], bytes(4), crc=1),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"server\.state is not a checkpoint"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("kind", ["bool", "int64", "uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
def test_arrays_of_any_shape_are_kept(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    array = np.arange(6).astype(kind)[: math.prod(shape)].reshape(shape)
    checkpoint.save(tmp_path, {}, {"one": array, "other": array.T})
    _, arrays = checkpoint.load(tmp_path)
    np.testing.assert_array_equal(arrays["one"], array)
    np.testing.assert_array_equal(arrays["other"], array.T)
    assert {own.dtype for own in arrays.values()} == {array.dtype}


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
