"""The record of what links did: written tick by tick, read back whole."""

from pathlib import Path

import numpy as np
import pytest

from fadelab_emulation.achieved import AchievedWriter, encode_sample, read_achieved
from fadelab_emulation.backends.base import DirectionSample, LinkSample


def sample(devices: list[int], base: int) -> LinkSample:
    def counts(offset: int) -> DirectionSample:
        values = np.array(devices, dtype=np.int64) + base + offset
        return DirectionSample(values, values * 2, values * 3, values * 4, values * 5)

    return LinkSample(np.array(devices, dtype=np.int64), up=counts(0), down=counts(100))


def write(path: Path) -> None:
    writer = AchievedWriter(path)
    writer.append(encode_sample(0, 10.0, sample([0, 1, 2], 1000)))
    writer.append(encode_sample(1, 10.1, sample([3], 2000)))
    writer.append(encode_sample(2, 10.2, sample([0, 1], 5_000_000_000)))
    writer.close()


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "links.achieved")
    found = read_achieved(tmp_path / "links.achieved")
    assert found.tick.tolist() == [0, 0, 0, 1, 2, 2]
    assert found.mono_s.tolist() == [10.0, 10.0, 10.0, 10.1, 10.2, 10.2]
    assert found.rows["device"].tolist() == [0, 1, 2, 3, 0, 1]
    assert found.rows["up_sent_bytes"][-1] == 5_000_000_001
    assert found.rows["down_lost_packets"][0] == 1100 * 5
    first = found.of_device(0)
    assert first.tick.tolist() == [0, 2]
    assert first.rows["down_backlog_bytes"].tolist() == [2200, 2 * 5_000_000_100]


def test_an_unfinished_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "links.achieved"
    write(path)
    path.write_bytes(path.read_bytes()[:-5])
    assert read_achieved(path).tick.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\xff\xfe\n", b'{"format":"x","version":1}\n'])
def test_another_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="other is no record of achieved link states"):
        read_achieved(path)


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "links.achieved")
    with pytest.raises(FileExistsError):
        AchievedWriter(tmp_path / "links.achieved")
