"""Power sensors of boards: recorded texts, missing hardware, and sampling by an injected clock."""

import asyncio
import json
from pathlib import Path

import pytest

from fadelab_agent.power.ina3221 import Ina3221
from fadelab_agent.power.pmic import RaspberryPmic, rails_w
from fadelab_agent.power.sampler import find_sensor, power_sampled, sample_power
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events

# Lines as a Raspberry Pi 5 gives them, figures of a board at work; some rails left out.
PMIC = """\
 3V7_WL_SW_A current(0)=0.09368929A
   3V3_SYS_A current(1)=0.08783370A
  VDD_CORE_A current(7)=6.22421000A
 3V7_WL_SW_V volt(8)=3.69977600V
   3V3_SYS_V volt(9)=3.31003300V
  VDD_CORE_V volt(15)=0.86173300V
     EXT5V_V volt(24)=5.09066000V
      BATT_V volt(25)=0.00000000V
"""
RAILS_W = 0.09368929 * 3.69977600 + 0.08783370 * 3.31003300 + 6.22421000 * 0.86173300


def test_rails_are_paired_by_name_and_added_up() -> None:
    assert rails_w(PMIC) == pytest.approx(RAILS_W)


@pytest.mark.parametrize(
    "text",
    ["", 'error=1 error_msg="Command not registered"', "EXT5V_V volt(24)=5.09V", "A_A x(1)=1A"],
)
def test_what_tells_no_power_gives_none(text: str) -> None:
    assert rails_w(text) is None


def command(tmp_path: Path, text: str, code: int = 0) -> str:
    path = tmp_path / "vcgencmd"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_the_pmic_is_read_by_its_command(tmp_path: Path) -> None:
    found = RaspberryPmic.find(command(tmp_path, PMIC))
    assert found is not None
    assert found.read_w() == pytest.approx(RAILS_W)


def test_a_raspberry_pi_without_pmic_has_no_sensor(tmp_path: Path) -> None:
    assert RaspberryPmic.find(command(tmp_path, "error=1\n", 255)) is None
    assert RaspberryPmic.find(str(tmp_path / "missing")) is None


def hwmon(tmp_path: Path, **channels: tuple[str, str, str]) -> Path:
    """Write a folder as hwmon has it: label, millivolts and milliamperes of each channel."""
    chip = tmp_path / "hwmon" / "hwmon3"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina3221\n")
    for number, (label, millivolts, milliamperes) in channels.items():
        digit = number[-1]
        (chip / f"in{digit}_label").write_text(f"{label}\n")
        (chip / f"in{digit}_input").write_text(f"{millivolts}\n")
        (chip / f"curr{digit}_input").write_text(f"{milliamperes}\n")
    other = tmp_path / "hwmon" / "hwmon0"
    other.mkdir()
    (other / "name").write_text("cpu_thermal\n")
    return tmp_path / "hwmon"


def test_the_modules_input_is_taken_where_it_is_measured(tmp_path: Path) -> None:
    folder = hwmon(
        tmp_path,
        n1=("VDD_IN", "5040", "1008"),
        n2=("VDD_CPU_GPU_CV", "5040", "240"),
        n3=("VDD_SOC", "5032", "392"),
    )
    sensor = Ina3221.find(folder)
    assert sensor is not None
    assert sensor.name == "ina3221 (VDD_IN)"
    assert sensor.read_w() == pytest.approx(5.040 * 1.008)


def test_without_it_all_channels_are_added_up(tmp_path: Path) -> None:
    folder = hwmon(tmp_path, n1=("VDD_GPU_SOC", "19800", "200"), n2=("VDD_CPU_CV", "19784", "100"))
    sensor = Ina3221.find(folder)
    assert sensor is not None
    assert sensor.read_w() == pytest.approx(19.8 * 0.2 + 19.784 * 0.1)
    (folder / "hwmon3" / "curr2_input").unlink()
    assert sensor.read_w() is None


def test_a_machine_without_sensors_has_none(tmp_path: Path) -> None:
    assert Ina3221.find(tmp_path / "no such folder") is None
    assert find_sensor([lambda: Ina3221.find(tmp_path)]) is None


class Given:
    name = "given"
    every_s = 0.5

    def __init__(self, powers: list[float | None], done: asyncio.Event) -> None:
        self._powers = powers
        self._done = done
        self._loop = asyncio.get_running_loop()

    def read_w(self) -> float | None:
        if len(self._powers) == 1:
            self._loop.call_soon_threadsafe(self._done.set)
        return self._powers.pop(0) if self._powers else None


class SteppingClock:
    """Time passes by waiting alone."""

    def __init__(self) -> None:
        self.now = 100.0

    def now_s(self) -> float:
        return self.now

    async def sleep_until(self, when_s: float) -> None:
        self.now = max(self.now, when_s)
        await asyncio.sleep(0)


def test_samples_bear_the_time_of_their_reading(tmp_path: Path) -> None:
    async def body() -> None:
        done, clock = asyncio.Event(), SteppingClock()
        with EventLog(tmp_path, "agent", "0", clock) as log:
            task = asyncio.create_task(sample_power(Given([4.0, None, 6.0, 5.0], done), clock, log))
            await done.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(body())
    source, power = read_events(tmp_path / "agent-0.jsonl")
    assert source["source"] == "given"
    times = power["at_mono_s"]
    assert isinstance(times, list)
    # What could not be read has no sample; the last reading may have been under way at the end.
    assert times[:2] == [100.0, 101.0]
    assert power["power_w"][:2] == [4.0, 6.0]  # type: ignore[index]


def test_this_machine_is_asked_without_harm(tmp_path: Path) -> None:
    async def body() -> None:
        clock = SystemClock()
        with EventLog(tmp_path, "agent", "0", clock) as log:
            async with power_sampled(clock, log, wanted=True):
                await asyncio.sleep(0)

    asyncio.run(body())
    first = json.loads((tmp_path / "agent-0.jsonl").read_text().splitlines()[0])
    assert first["event"] == "power_source"
