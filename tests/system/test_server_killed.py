"""Whole runs whose server is killed with -9 at random moments and resumed under its agents."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.system.commands import ROOT

from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events
from fadelab_server import checkpoint
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation
from fadelab_server.journal import replay
from fadelab_server.journal.records import Applied, Kind, decode_decision, intact

SCENE = (sys.executable, "-m", "tests.system.kill_scene")
PLANNED = "round_planned"
_TAKEN = ("UPLOAD_STATUS_COMPLETE", "UPLOAD_STATUS_CLOSED", "UPLOAD_STATUS_DUPLICATE")


def play(
    folder: Path, rule: str, *, seed: int, kills: int, duration_s: float, agents_too: bool = False
) -> dict[str, int]:
    """Run one run and hold it to what was promised; return its figures."""
    who = "agents_too" if agents_too else "server"
    folder.mkdir()
    done = subprocess.run(
        [*SCENE, folder, rule, str(seed), str(kills), str(duration_s), who],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=duration_s + 60,
        cwd=ROOT,
    )
    return check(folder, json.loads(done.stdout))


def whole_journal(folder: Path) -> Path:
    """Return a folder with the first snapshot and every segment that ever was."""
    first = folder / "whole"
    shutil.copytree(folder / "archive", first / "journal")
    shutil.copytree(folder / "checkpoints" / "journal", first / "journal", dirs_exist_ok=True)
    shutil.copy(folder / "first.state", first / checkpoint.FILE_NAME)
    return first


def replayed(folder: Path, whole: Path) -> tuple[int, NDArray[np.float32]]:
    """Return the version and the model that the journal leads to from the beginning."""
    config = ServerConfig.model_validate_json((folder / "server.json").read_text())

    async def from_the_beginning() -> tuple[int, NDArray[np.float32]]:
        with EventLog(folder / "again", "server", "0", SystemClock()) as log:
            federation = Federation(config, SystemClock(), log)
            federation.keeper.restore(whole)
            newest = federation.tasks[0].store.newest
            return newest.number, newest.vector

    return asyncio.run(from_the_beginning())


def applied(whole: Path) -> list[tuple[int, int]]:
    """Return device and number of every update that was aggregated, in order."""
    records = replay(whole / "journal", intact)
    taken = [decode_decision(Applied, r.body) for r in records if r.kind == Kind.APPLIED]
    return [(one.device, one.update_id) for one in taken]


def acknowledged(folder: Path) -> list[tuple[int, int]]:
    """Return device and number of every update that an agent was told is taken."""
    return [
        (int(str(event["id"])), int(str(event["update_id"])))
        for path in sorted((folder / "events").glob("agent-*.jsonl"))
        for event in read_events(path)
        if event["event"] == "upload_ended" and event["status"] in _TAKEN
    ]


def check(folder: Path, seen: dict[str, Any]) -> dict[str, int]:
    """Hold a run that has ended to what was promised; return its figures."""
    assert set(seen["exit_codes"]) == {0}, "the run did not come to its end"
    whole = whole_journal(folder)
    taken, told = applied(whole), acknowledged(folder)
    again = [one for one, times in Counter(taken).items() if times > 1]
    assert not again, f"updates {again} were applied twice"
    lost = set(told) - set(taken)
    assert not lost, f"acknowledged updates {lost} were lost"
    for device in {device for device, _ in taken}:
        numbers = [number for own, number in taken if own == device]
        assert numbers == sorted(numbers)
    version, model = replayed(folder, whole)
    _, arrays = checkpoint.load(folder / "checkpoints")
    newest = max(int(name.rpartition(".")[2]) for name in arrays if ".vector." in name)
    assert newest == version
    np.testing.assert_array_equal(arrays[f"0.vector.{newest}"], model)
    events = read_events(folder / "events" / "server-0.jsonl")
    shown = [int(str(e["version"])) for e in events if e["event"] == "version_published"]
    assert shown == sorted(set(shown)), "a version number stood for two models"
    assert shown[-1] == version
    lives = sum(event["event"] == "resumed" for event in events)
    return {
        "killed": seen["killed"],
        "agents_killed": seen["agents_killed"],
        "resumed": lives,
        "versions": version,
        "applied": len(taken),
        "acknowledged": len(set(told)),
        "cut": cut_by_a_kill(events),
    }


def cut_by_a_kill(events: Sequence[dict[str, Any]]) -> int:
    """Return how many updates were begun under one server and taken under a later one."""
    life, begun, cut = 0, {}, 0
    for event in events:
        if event["event"] == "resumed":
            life += 1
        elif event["event"] == "upload_started":
            begun[event["device"], event["update_id"]] = life
        elif event["event"] == "upload_complete":
            cut += begun.pop((event["device"], event["update_id"]), life) < life
    return cut


def test_a_run_goes_on_under_a_server_that_is_killed(tmp_path: Path) -> None:
    figures = play(tmp_path / "fedavg", "fedavg", seed=1, kills=4, duration_s=14)
    assert figures["killed"] == 4, figures
    assert figures["versions"] > 5, figures


def test_rounds_of_reports_and_decisions_go_on_under_a_server_that_is_killed(
    tmp_path: Path,
) -> None:
    figures = play(tmp_path / "sp_fl", "sp_fl", seed=2, kills=4, duration_s=14)
    assert figures["killed"] == 4, figures
    assert figures["versions"] > 5, figures


def test_a_server_that_is_killed_knows_what_rounds_have_cost(tmp_path: Path) -> None:
    folder = tmp_path / "rounds"
    figures = play(folder, "full power", seed=1, kills=4, duration_s=14)
    assert figures["killed"] == 4, figures
    assert figures["versions"] > 5, figures
    events = read_events(folder / "events" / "server-0.jsonl")
    planned = {e["version"]: (e["round_s"], e["round_j"]) for e in events if e["event"] == PLANNED}
    over = [planned[version] for version in range(figures["versions"])]
    meta, _ = checkpoint.load(folder / "checkpoints")
    rounds: Any = meta["rounds"]
    planned_s, planned_j, measured_s, measured_j = rounds["spent"]
    assert planned_s == pytest.approx(sum(one_s for one_s, _ in over))
    assert planned_j == pytest.approx(sum(one_j for _, one_j in over))
    assert min(measured_s, measured_j) > 0
    costs = {e["version"]: e["measured_s"] for e in events if e["event"] == "round_cost"}
    assert costs.keys() == set(range(1, figures["versions"] + 1))
    assert measured_s == pytest.approx(sum(costs.values()))


@pytest.mark.endurance
@pytest.mark.parametrize("agents_too", [False, True], ids=["server", "agents too"])
@pytest.mark.parametrize("rule", ["fedasync", "fedavg", "full power"])
def test_runs_go_on_under_servers_killed_at_a_hundred_moments(
    tmp_path: Path, rule: str, agents_too: bool
) -> None:
    figures = play(tmp_path / rule, rule, seed=7, kills=25, duration_s=80, agents_too=agents_too)
    sys.stdout.write(f"{rule}: {figures}\n")
    assert figures["killed"] == 25, figures
