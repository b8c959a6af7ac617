"""What docs/emulate.md shows works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from emulate_bench import Machine, in_sandbox

from fadelab.emulate.config import EmulateFile
from fadelab_emulation.schedule import ScheduleReader

TEXT = (Path(__file__).parents[2] / "docs" / "emulate.md").read_text()
RATES = "t_s,rate_up_bps,rate_down_bps\n0,5e6,20e6\n1,1e6,2e6\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_its_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.csv").write_text(RATES)
    star, attached, part = (
        EmulateFile.model_validate(yaml.safe_load(text)) for text in blocks("yaml")
    )
    assert [device.new_interface for device in star.devices] == ["fl0", "wlan0"]
    assert attached.attaches
    assert part.world_devices == 8


@pytest.mark.namespaces
@pytest.mark.usefixtures("_needs_sandbox")
def test_its_loop_drives_links(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.0 [5000000.]")
    assert ScheduleReader(tmp_path / "out" / "links.schedule").ticks == 20


def shape_by_hand() -> tuple[bool, list[str], bool]:
    machine = Machine()
    for name in ("dev1", "far"):
        machine.add_namespace(name)
    machine.add_veth("dev1", "far")
    before = machine.state_of("dev1", "eth0")
    first, second = blocks("python")[1].split("...\n")
    names: dict[str, object] = {}
    exec(first, names)
    during = machine.state_of("dev1", "eth0")["disciplines"]
    exec(second, names)
    return before == machine.state_of("dev1", "eth0"), during, names["backend"] is not None


@pytest.mark.namespaces
def test_its_shaping_by_hand_shapes_and_restores() -> None:
    restored, during, _ = in_sandbox(shape_by_hand)
    assert restored
    assert any("tbf" in discipline for discipline in during)
