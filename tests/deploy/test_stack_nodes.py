"""How agents get their links on a node, and how far clocks are apart."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.stack.agent_file import POD, SLOT, device_number
from fadelab.stack.attend import Attendance, Claim
from fadelab.stack.clock_offset import Exchange, offset_of
from fadelab.stack.registrar import Registrar
from fadelab_emulation.attach.places import RefusedPlaceError

RUN = 7


@pytest.mark.parametrize(
    ("environment", "device"),
    [({SLOT: "1"}, 0), ({SLOT: "4"}, 3), ({POD: "agent-0"}, 0), ({POD: "my-agent-2"}, 2)],
)
def test_a_container_knows_its_device(environment: dict[str, str], device: int) -> None:
    assert device_number(environment, 4) == device


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "does not say which device"),
        ({SLOT: "0"}, "does not say which device"),
        ({SLOT: "-1", POD: "agent"}, "does not say which device"),
        ({SLOT: "5"}, "device 4, but the experiment has 4"),
    ],
)
def test_a_container_that_is_no_device_says_so(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(FadelabError, match=sentence) as caught:
        device_number(environment, 4)
    assert caught.value.code is ExitCode.USAGE


_SECONDS = st.floats(0, 10)


@given(
    offset_s=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(_SECONDS, _SECONDS), min_size=1, max_size=20),
)
def test_the_true_offset_is_within_the_error(
    offset_s: float, ways: list[tuple[float, float]]
) -> None:
    exchanges = [
        Exchange(asked_s=i, answered_s=i + there + back, there_s=i + there + offset_s)
        for i, (there, back) in enumerate(ways)
    ]
    found = offset_of(exchanges)
    assert abs(found.offset_s - offset_s) <= found.error_s + 1e-9
    assert found.error_s <= min(there + back for there, back in ways) / 2 + 1e-9


Give = Callable[[int, int], None]


def at_a_registrar(folder: Path, work: Callable[[Path], None], give: Give) -> None:
    """Run ``work`` in a thread beside a registrar for four devices."""

    async def give_async(device: int, descriptor: int) -> None:
        give(device, descriptor)

    async def both() -> None:
        path = folder / "attendance"
        path.touch()  # as a killed process leaves it
        registrar = Registrar(path, run_id=RUN, devices=4, clock_offset_s=12.5, give=give_async)
        serving = asyncio.create_task(registrar.serve())
        try:
            await asyncio.to_thread(work, path)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(both())


def refusal(path: Path, claim: Claim) -> str:
    with pytest.raises(FadelabError) as caught:
        Attendance(path, claim)
    assert caught.value.code is ExitCode.REFUSED
    return str(caught.value)


def test_an_agent_hands_its_network_over_and_hears_that_its_link_is_there(tmp_path: Path) -> None:
    networks = []

    def give(device: int, descriptor: int) -> None:
        networks.append((device, os.fstat(descriptor).st_ino))
        os.close(descriptor)

    def work(path: Path) -> None:
        attendance = Attendance(path, Claim(device=2, run_id=RUN))
        assert attendance.clock_offset_s == 12.5
        # For as long as it is there, nobody else is this device.
        assert "has its link already" in refusal(path, Claim(device=2, run_id=RUN))
        attendance.close()

    at_a_registrar(tmp_path, work, give)
    assert networks == [(2, Path("/proc/self/ns/net").stat().st_ino)]


def test_whoever_is_no_agent_of_this_run_gets_no_link(tmp_path: Path) -> None:
    def give(device: int, descriptor: int) -> None:
        os.close(descriptor)
        raise RefusedPlaceError("not with me")

    def work(path: Path) -> None:
        assert "another run" in refusal(path, Claim(device=0, run_id=RUN + 1))
        assert "there is no device 4" in refusal(path, Claim(device=4, run_id=RUN))
        assert "not with me" in refusal(path, Claim(device=1, run_id=RUN))
        # A refusal holds nothing.
        assert "not with me" in refusal(path, Claim(device=1, run_id=RUN))

    at_a_registrar(tmp_path, work, give)


def test_without_an_emulator_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FadelabError, match="no emulator answers") as caught:
        Attendance(tmp_path / "nobody", Claim(device=0, run_id=RUN))
    assert caught.value.code is ExitCode.COMPONENT_FAILED
