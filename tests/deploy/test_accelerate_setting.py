"""The experiment's choice of kernels reaches server and agents; a missing package is one sentence."""

from pathlib import Path

import pytest
from tests.deploy.commandline import command
from tests.deploy.run_record import QUICKSTART
from tests.deploy.test_manifest import LINKS

from fadelab.exit_codes import ExitCode
from fadelab.experiment import load_experiment
from fadelab.local.children import exit_code_of
from fadelab.local.plan import LocalPlan
from fadelab_proto.codecs import AccelerationError


@pytest.mark.parametrize(
    ("settings", "expected"), [((), False), (("transport.accelerate=true",), True)]
)
def test_server_and_agents_use_what_the_experiment_says(
    tmp_path: Path, settings: tuple[str, ...], *, expected: bool
) -> None:
    plan = LocalPlan.create(load_experiment(QUICKSTART, settings), LINKS, tmp_path, tmp_path)
    assert plan.server(dimension=10, layout_hash=1).accelerate is expected
    assert plan.agent(0).accelerate is expected


def test_without_numba_a_server_ends_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('No module named numba')\n")
    plan = LocalPlan.create(
        load_experiment(QUICKSTART, ["transport.accelerate=true"]), LINKS, tmp_path, tmp_path
    )
    plan.initial_path.parent.mkdir(parents=True)
    plan.initial_path.touch()
    file = tmp_path / "server.json"
    file.write_text(plan.server(dimension=10, layout_hash=1).model_dump_json())
    ended = command("server", file, PYTHONPATH=str(tmp_path))
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert "pip install 'fadelab[accelerate]'" in ended.stderr.replace("\n", " ")
    assert "Traceback" not in ended.stderr


def test_a_run_ends_likewise_and_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('No module named numba')\n")
    out = tmp_path / "run"
    ended = command(
        "run", QUICKSTART, "--out", out, "--set", "transport.accelerate=true",
        "--set", "radio.backend=dry", PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert "codecs cannot be accelerated" in ended.stderr
    assert not out.exists()


def test_a_component_says_so_with_the_same_code() -> None:
    assert exit_code_of(AccelerationError("no")) is ExitCode.ENVIRONMENT
