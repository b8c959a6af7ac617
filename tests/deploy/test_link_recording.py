"""Recorded links as Mahimahi traces."""

from pathlib import Path

import numpy as np
import pytest

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link.recording import export_trace, make_folder
from fadelab_emulation.link_state import plain_tick
from fadelab_emulation.schedule import ScheduleWriter


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Ten seconds of two devices; device 1 has 6.056 Mbit/s up (500 packets a second), 3 down."""
    folder = tmp_path / "run"
    folder.mkdir()
    up_bps, down_bps = np.array([1e6, 500 * 1514 * 8]), np.array([1e6, 3e6])
    with ScheduleWriter(folder / "links.schedule", 2, 0.1, 0) as writer:
        for index in range(100):
            writer.write(plain_tick(up_bps, down_bps, index=index, t_s=0.1 * index))
    return folder


def refusal(recording: Path, device: int, output: Path) -> str:
    with pytest.raises(FadelabError) as refused:
        export_trace(recording, device, output, uplink=True)
    assert refused.value.code == ExitCode.USAGE
    return str(refused.value)


def test_a_link_becomes_as_many_opportunities_as_it_carries_packets(
    recording: Path, tmp_path: Path
) -> None:
    output = tmp_path / "up.trace"
    found = export_trace(recording, 1, output, uplink=True)
    assert (found.packets, found.duration_s) == (5000, 10)
    assert found.mean_bps == pytest.approx(500 * 1514 * 8)
    ms = np.array(output.read_text().split(), dtype=int)
    assert len(ms) == 5001
    assert np.histogram(ms[:-1], bins=np.arange(0, 10_001, 1000))[0].tolist() == [500] * 10
    down = export_trace(recording / "links.schedule", 1, tmp_path / "down.trace", uplink=False)
    assert down.mean_bps == pytest.approx(3e6, rel=1e-3)


def test_what_cannot_be_exported_is_refused(recording: Path, tmp_path: Path) -> None:
    output = tmp_path / "up.trace"
    assert "there is no device 2 among 2" in refusal(recording, 2, output)
    assert "cannot read" in refusal(tmp_path / "nowhere", 0, output)
    assert not output.exists()
    output.write_text("mine")
    assert "exists already" in refusal(recording, 0, output)
    assert output.read_text() == "mine"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"no schedule\n")
    assert "no link schedule" in refusal(damaged, 0, tmp_path / "other")


def test_recordings_are_never_overwritten(tmp_path: Path) -> None:
    make_folder(tmp_path / "new" / "folder")
    with pytest.raises(FadelabError, match="exists already"):
        make_folder(tmp_path / "new")
