"""The wheel that boards get, and the units that keep their processes."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from fadelab.boards.push import UNITS
from fadelab.boards.wheel import pack_wheel

ROOT = Path(__file__).parents[2]


def unit(tmp_path: Path, name: str) -> Path:
    """Write a unit as push fills it in, of programs that exist here."""
    text = (ROOT / "deploy" / "boards" / name).read_text()
    program = tmp_path / "fadelab" / "venv" / "bin" / "fadelab"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / name
    path.write_text(text.replace("@USER@", "root").replace("@FOLDER@", f"{tmp_path}/fadelab"))
    return path


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_object_to(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit(tmp_path, name))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agent_has_no_capability_and_the_helper_few() -> None:
    agent, link = ((ROOT / "deploy" / "boards" / name).read_text().splitlines() for name in UNITS)
    assert "CapabilityBoundingSet=" in agent
    assert "User=@USER@" in agent
    (bounds,) = [line for line in link if line.startswith("CapabilityBoundingSet=")]
    assert "CAP_NET_ADMIN" in bounds
    assert "CAP_SYS_MODULE" not in bounds


def test_the_wheel_holds_what_runs_here_and_is_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    path, again = pack_wheel(tmp_path), pack_wheel(tmp_path / "again")
    assert path.name == f"fadelab-{version('fadelab')}-py3-none-any.whl"
    assert path.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        assert (
            wheel.read("fadelab/boards/on_board.py")
            == (ROOT / "deploy/fadelab/boards/on_board.py").read_bytes()
        )
    assert "fadelab_proto/packet.py" in names
    assert not any("__pycache__" in name for name in names)


def test_pip_takes_the_wheel(tmp_path: Path) -> None:
    path = pack_wheel(tmp_path)
    target = tmp_path / "there"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(target),
            str(path),
        ],
        check=True,
    )
    assert (target / "fadelab" / "boards" / "on_board.py").is_file()
    assert (target / "bin" / "fadelab").is_file()
