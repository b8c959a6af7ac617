"""The file that keeps an update: whole or refused, whatever became of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fadelab_agent import spool as spool_module
from fadelab_agent.encoded_update import EncodedUpdate, UpdateIdentity, encode_update
from fadelab_agent.spool import Owner, Spool, Spooled, SpoolError
from fadelab_agent.state_dir import StateDir, StateDirError
from fadelab_proto.codecs import Codec, DenseF32, Encoding, TopK

F32 = NDArray[np.float32]
DIMENSION = 1000
OWNER = Owner(
    run_id=7,
    device=3,
    task="digits",
    dimension=DIMENSION,
    layout_hash=2**63 + 5,
    memory="ErrorMemory",
)
VECTOR: F32 = np.random.default_rng(1).standard_normal(DIMENSION, dtype=np.float32)


def encode(encoding: Encoding) -> EncodedUpdate:
    identity = UpdateIdentity(
        run_id=7,
        device=3,
        session=99,
        task_index=0,
        update_id=4,
        base_version=2,
        dimension=DIMENSION,
        samples=11,
    )
    return encode_update(identity, encoding)


def spooled(codec: Codec, state: F32 | None) -> Spooled:
    draw = np.random.default_rng(0)
    encoding = codec.encode(VECTOR, max_payload_bytes=512, generator=draw)
    return Spooled(encode(encoding), state, encoding.nominal_bits, encoding.coded_bits)


def same(one: Spooled | None, other: Spooled) -> bool:
    assert one is not None
    if (one.state is None) != (other.state is None):
        return False
    if one.state is not None and other.state is not None:
        np.testing.assert_array_equal(one.state, other.state)
    return (
        one.update.header == other.update.header
        and one.update.packets == other.update.packets
        and (one.nominal_bits, one.coded_bits) == (other.nominal_bits, other.coded_bits)
    )


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("state", [VECTOR, VECTOR * 2, None], ids=["sent", "more", "none"])
@pytest.mark.parametrize("codec", [DenseF32(), TopK(100)], ids=["dense", "topk"])
def test_what_was_written_is_read(
    tmp_path: Path, codec: Codec, state: F32 | None, sync: bool
) -> None:
    spool = Spool(tmp_path / "digits.spool", OWNER, sync=sync)
    assert spool.read() is None
    update = spooled(codec, state)
    assert spool.write(update) == spool.path.stat().st_size
    assert same(spool.read(), update)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.spool"]


def test_an_update_of_no_packets_is_kept_too(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "digits.spool", OWNER)
    silent = Spooled(encode(Encoding((), 0)), VECTOR, 0, 0)
    spool.write(silent)
    assert same(spool.read(), silent)


def test_what_a_dense_update_says_is_not_written_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "digits.spool", OWNER)
    sizes = [spool.write(spooled(DenseF32(), state)) for state in (VECTOR, -VECTOR)]
    assert sizes[0] < 4 * DIMENSION * 1.3
    assert sizes[1] - sizes[0] == pytest.approx(4 * DIMENSION, abs=1)


def test_the_next_update_takes_the_place_of_the_last(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "digits.spool", OWNER)
    spool.write(spooled(DenseF32(), VECTOR))
    spool.write(spooled(TopK(10), VECTOR))
    assert same(spool.read(), spooled(TopK(10), VECTOR))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder / "digits.spool", OWNER)
    spool.write(spooled(TopK(100), VECTOR))
    return folder, spool.path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_is_torn_or_damaged_is_refused(
    whole: tuple[Path, bytes], data: st.DataObject
) -> None:
    folder, good = whole
    damage: dict[str, Callable[[int], bytes]] = {
        "torn": lambda at: good[:at],
        "flipped": lambda at: good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :],
        "longer": lambda at: good + bytes(at + 1),
        "of zeros": lambda at: good[:at] + bytes(len(good) - at),
    }
    how = data.draw(st.sampled_from(sorted(damage)))
    at = data.draw(st.integers(0, len(good) - 1))
    bad = damage[how](at)
    if bad == good:
        return
    path = folder / "bad.spool"
    path.write_bytes(bad)
    with pytest.raises(SpoolError):
        Spool(path, OWNER).read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run_id", 8),
        ("device", 4),
        ("task", "mnist"),
        ("dimension", DIMENSION - 1),
        ("layout_hash", 1),
        ("memory", "NoMemory"),
    ],
)
def test_anothers_update_is_refused_with_the_difference(
    whole: tuple[Path, bytes], name: str, value: Any
) -> None:
    folder, _ = whole
    other = dataclasses.replace(OWNER, **{name: value})
    with pytest.raises(SpoolError, match=rf"its {name} is .*, this device's is {value}"):
        Spool(folder / "digits.spool", other).read()


def test_a_file_that_is_too_long_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "digits.spool"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(SpoolError, match="are the most"):
        Spool(path, OWNER).read()


def test_a_full_disk_leaves_the_last_update_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "digits.spool", OWNER)
    spool.write(spooled(DenseF32(), VECTOR))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module.os, "fsync", full)
    with pytest.raises(SpoolError, match="No space left on device"):
        spool.write(spooled(TopK(10), VECTOR))
    assert same(spool.read(), spooled(DenseF32(), VECTOR))
    assert [path.name for path in tmp_path.iterdir()] == ["digits.spool"]


def test_what_is_set_aside_is_kept_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "digits.spool", OWNER)
    for content in (b"one", b"two"):
        spool.path.write_bytes(content)
        spool.set_aside()
    spool.set_aside()
    assert [path.name for path in tmp_path.iterdir()] == ["digits.spool.aside"]
    assert (tmp_path / "digits.spool.aside").read_bytes() == b"two"


def test_a_device_keeps_its_key(tmp_path: Path) -> None:
    with StateDir(tmp_path / "agent-0") as first:
        assert 0 < first.key < 2**64
    with StateDir(tmp_path / "agent-0") as again, StateDir(tmp_path / "agent-1") as other:
        assert again.key == first.key != other.key
    assert (tmp_path / "agent-0").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"short", bytes(8)])
def test_a_key_that_is_none_is_drawn_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with StateDir(tmp_path) as state:
        assert state.key > 0
        assert (tmp_path / "key").read_bytes() == state.key.to_bytes(8, "little")


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    in_use = pytest.raises(StateDirError, match="another agent process uses state_dir")
    with StateDir(tmp_path), in_use:
        StateDir(tmp_path)
    with StateDir(tmp_path) as next_one:
        assert next_one.key > 0


def test_a_folder_that_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirError, match="Not a directory"):
        StateDir(tmp_path / "file" / "agent-0")


def test_without_a_folder_nothing_is_kept() -> None:
    with StateDir(None) as state:
        assert state.key == 0
        assert state.spool(OWNER) is None
