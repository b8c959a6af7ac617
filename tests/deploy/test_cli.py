"""Every verb as a user meets it: help, exit codes, sentences."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import command
from run_record import QUICKSTART, RunWriter, write_whole_run
from typer.testing import CliRunner

from fadelab.cli.app import app
from fadelab.exit_codes import ExitCode, FadelabError

VERBS = [
    ["run"],
    ["report"],
    ["sweep"],
    ["compare"],
    ["doctor"],
    ["certs"],
    ["server"],
    ["agent"],
    ["link", "calibrate"],
]


def call(*arguments: object) -> tuple[int, str]:
    """Return the exit code and everything that was said, as main() would end."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, FadelabError):
        return int(result.exception.code), str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def server_file(folder: Path, **changes: Any) -> Path:
    np.save(folder / "initial.npy", np.zeros(4, dtype=np.float32))
    task = {
        "name": "digits",
        "dimension": 4,
        "layout_hash": 0,
        "initial": str(folder / "initial.npy"),
    }
    settings = {
        "run_id": 1,
        "listen": "127.0.0.1:0",
        "operator_socket": str(folder / "operator"),
        "events_dir": str(folder / "events"),
        "checkpoint_dir": str(folder / "checkpoints"),
        "devices": 1,
        "tasks": [task],
        "aggregation": {"kind": "fedavg"},
        "stop": {"duration_s": 1},
    }
    return write(folder / "server.json", settings | changes)


def agent_file(folder: Path, *, task: dict[str, Any], device: int = 0) -> Path:
    work = {
        "task": task,
        "partition": {"kind": "iid"},
        "training": {"local_steps": 1, "batch_size": 4, "learning_rate": 0.1},
        "devices": 1,
        "seed": 0,
    }
    agent = {
        "run_id": 1,
        "device": device,
        "server": "127.0.0.1:1",
        "events_dir": str(folder / "events"),
        "policy": {"kind": "dense"},
    }
    return write(folder / "agent.json", {"agent": agent, "work": work})


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_shows_an_example(verb: list[str]) -> None:
    code, said = call(*verb, "--help")
    assert code == ExitCode.VALID
    assert f"Example: fadelab {' '.join(verb)}" in said


def test_the_program_lists_its_verbs() -> None:
    code, said = call("--help")
    assert code == ExitCode.VALID
    assert all(verb[0] in said for verb in VERBS)


def test_a_known_error_ends_the_real_command_with_its_sentence_and_code(tmp_path: Path) -> None:
    ended = command("run", tmp_path / "missing.yaml")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr == f"fadelab: there is no experiment file {tmp_path}/missing.yaml\n"
    assert ended.stdout == ""


def test_run_never_writes_into_a_folder_that_exists(tmp_path: Path) -> None:
    code, said = call("run", QUICKSTART, "--out", tmp_path)
    assert code == ExitCode.USAGE
    assert said == f"--out {tmp_path}: it exists already; runs are never overwritten"
    assert list(tmp_path.iterdir()) == []


def test_run_names_a_folder_that_it_cannot_make(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = call("run", QUICKSTART, "--out", tmp_path / "file" / "run")
    assert code == ExitCode.USAGE
    assert "cannot make it: Not a directory" in said


def test_run_refuses_a_wrong_setting_before_it_makes_a_folder(tmp_path: Path) -> None:
    code, said = call("run", QUICKSTART, "--out", tmp_path / "run", "--set", "devices.count=0")
    assert code == ExitCode.USAGE
    assert "'devices.count' is 0" in said
    assert not (tmp_path / "run").exists()


def test_report_refuses_what_is_no_run_directory(tmp_path: Path) -> None:
    code, said = call("report", tmp_path)
    assert code == ExitCode.USAGE
    assert said.startswith(f"{tmp_path} is not a run directory")


def test_report_of_a_valid_run_writes_both_files(tmp_path: Path) -> None:
    write_whole_run(RunWriter(tmp_path))
    code, said = call("report", tmp_path)
    assert code == ExitCode.VALID
    assert "VALID" in said
    assert json.loads((tmp_path / "summary.json").read_text())["valid"] is True
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_report_of_an_invalid_run_says_why_and_ends_with_its_code(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    run.lateness(p99_ms=99.0)
    code, said = call("report", tmp_path)
    assert code == ExitCode.INVALID_RUN
    assert "NOT VALID" in said
    assert "Link updates were late" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rates-mbps", "abc"], "'abc' is not a list of numbers such as 0.2,1,5"),
        (["--rates-mbps", "1,0"], "0 Mbit/s is not between 0.064 and 10000"),
        (["--rates-mbps", "nan"], "nan Mbit/s is not between 0.064 and 10000"),
        (["--megabytes", "-1"], "-1 MB is not between 0.01 and 1000"),
        (["--megabytes", "nan"], "nan MB is not between 0.01 and 1000"),
    ],
)
def test_calibrate_refuses_impossible_links(arguments: list[str], sentence: str) -> None:
    code, said = call("link", "calibrate", *arguments)
    assert code == ExitCode.USAGE
    assert sentence in " ".join(said.split())


def test_doctor_prints_json_alone(tmp_path: Path) -> None:
    ended = command("doctor", "--json", TMPDIR=str(tmp_path))
    diagnosis = json.loads(ended.stdout)
    assert {finding["name"] for finding in diagnosis["findings"]} >= {"sandbox"}
    assert all(
        set(finding) == {"name", "good", "detail", "needed"} for finding in diagnosis["findings"]
    )
    if not diagnosis["can_run"]:
        expected = ExitCode.ENVIRONMENT
    else:
        expected = ExitCode.LEFTOVERS if diagnosis["leftovers"] else ExitCode.VALID
    assert ended.returncode == expected


@pytest.mark.parametrize("verb", ["server", "agent"])
def test_configuration_files_are_refused_with_sentences(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert call(verb, path) == (ExitCode.USAGE, f"cannot read {path}: No such file or directory")
    path.write_text('{"a"')
    code, said = call(verb, path)
    assert code == ExitCode.USAGE
    assert said.startswith(f"{path}: it is not JSON: ")
    path.write_text('{"wings": 2}')
    code, said = call(verb, path)
    assert code == ExitCode.USAGE
    assert f"{path}: unknown key 'wings'; allowed: " in said


def test_server_names_the_kinds_that_there_are(tmp_path: Path) -> None:
    path = server_file(tmp_path, aggregation={"kind": "sum"})
    assert call("server", path) == (
        ExitCode.USAGE,
        f"{path}: 'aggregation.kind' is 'sum'; allowed: afl, dma_fl, fedasync, fedavg, fedbuff, lazy, sp_fl.",
    )


def test_server_without_its_initial_model(tmp_path: Path) -> None:
    path = server_file(tmp_path)
    (tmp_path / "initial.npy").unlink()
    code, said = call("server", path)
    assert code == ExitCode.USAGE
    assert "there is no initial model of digits" in said


def test_server_on_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = command("server", server_file(tmp_path, listen=address))
    assert ended.returncode == ExitCode.ADDRESS_IN_USE
    assert ended.stderr.startswith(f"fadelab: cannot listen on {address}: the port is in use")


def test_server_that_shall_resume_from_nothing(tmp_path: Path) -> None:
    ended = command("server", server_file(tmp_path), "--resume")
    assert ended.returncode == ExitCode.CHECKPOINT
    assert "there is no checkpoint at" in ended.stderr


def test_agent_without_its_data_set(tmp_path: Path) -> None:
    task = {"name": "mnist", "data_dir": str(tmp_path / "nothing")}
    ended = command("agent", agent_file(tmp_path, task=task))
    assert ended.returncode == ExitCode.DATA_MISSING
    assert ended.stderr.startswith("fadelab: mnist needs ")
    assert "Traceback" not in ended.stderr


def test_agent_whose_number_has_no_part_of_the_data(tmp_path: Path) -> None:
    path = agent_file(tmp_path, task={"name": "digits"}, device=1)
    code, said = call("agent", path)
    assert code == ExitCode.USAGE
    assert "agent.device is 1, but work.devices is 1" in said
