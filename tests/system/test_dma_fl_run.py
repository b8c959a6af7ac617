"""Several tasks and DMA-FL on real sockets: what is logged adds up, and leads to the same models."""

import itertools
import subprocess
from collections import defaultdict
from collections.abc import Callable

import pytest
from tests.system.commands import ROOT, Ended, fadelab, run_to_the_end
from tests.system.test_whole_runs import events

QUICK = ROOT / "examples" / "dma_fl" / "quick.yaml"
TASKS = {"plain", "shifting", "turning"}
_SMALLER = (
    "devices.count=3",
    # On a machine that does something else besides, ten seconds take twenty.
    "radio.time_scale=0.5",
    "duration_s=7",
    "validity.compute_late_share=1000",
    "validity.rate_ratio=[0.1, 2]",
)


@pytest.fixture(name="ended", scope="module")
def dma_fl_run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return run_to_the_end(tmp_path_factory.mktemp("dma") / "run", *_SMALLER, experiment=QUICK)


def test_every_task_learns_and_the_log_leads_to_its_models(ended: Ended) -> None:
    assert ended.code == 0, ended.output
    tasks = ended.summary["tasks"]
    assert isinstance(tasks, dict)
    assert set(tasks) == TASKS
    assert all(task["versions"] > 1 for task in tasks.values())
    again = subprocess.run(
        fadelab("replay", str(ended.run_dir)), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert len(lines) == len(TASKS)
    for name, line in zip(tasks, lines, strict=True):
        count = tasks[name]["versions"]
        assert f"{name}: {count} of {count} versions reproduced bit for bit" in line


def test_no_update_is_staler_than_the_cap(ended: Ended) -> None:
    taken = events(ended.run_dir, "upload_complete")
    assert taken
    assert max(int(str(event["staleness_versions"])) for event in taken) <= 5
    assert not events(ended.run_dir, "upload_refused")


def test_stages_follow_each_other_and_periods_add_up(ended: Ended) -> None:
    stages = defaultdict(list)
    for event in events(ended.run_dir, "stage"):
        stages[event["id"], event["task"]].append(event["stage"])
    assert len(stages) == 9
    after = {
        "idle": {"downlink", "uplink", "idle", "none"},
        "downlink": {"compute", "idle", "none"},
        "compute": {"idle", "none"},
        "uplink": {"idle", "none"},
        "none": {"none"},
    }
    for course in stages.values():
        assert course[0] == "idle"
        assert course[-1] == "none"
        for one, following in itertools.pairwise(course):
            assert following in after[str(one)]
    periods = events(ended.run_dir, "period_ended")
    assert {str(event["task"]) for event in periods} == TASKS
    for event in periods:
        cycles = 2500 * int(str(event["steps"])) * int(str(event["batch"]))
        cpu_hz = float(str(event["cpu_hz"]))
        # A batch is never larger than what the device holds.
        assert 0 < float(str(event["compute_s"])) <= cycles / cpu_hz * (1 + 1e-6)
        energy_j = 2e-18 * float(str(event["compute_s"])) * cpu_hz**3
        assert float(str(event["compute_j"])) == pytest.approx(energy_j, rel=1e-3)
        assert float(str(event["downlink_s"])) > 0
        assert int(str(event["downlink_bits"])) > 0


def test_the_bound_and_the_plans_are_told(ended: Ended) -> None:
    bound = events(ended.run_dir, "bound")
    assert {str(event["task"]) for event in bound} == TASKS
    for event in bound:
        terms = event["terms"]
        assert isinstance(terms, dict)
        assert set(terms) == set("abcdef")
    plans = events(ended.run_dir, "scheduled")
    for event in plans:
        assert int(str(event["deadline_version"])) == int(str(event["version"])) + 5
        assert 1e5 <= float(str(event["cpu_hz"])) <= 4e6


@pytest.mark.parametrize("method", ["fedavg", "fedasync"])
def test_other_methods_learn_several_tasks_too(run: Callable[..., Ended], method: str) -> None:
    ended = run(
        method,
        *_SMALLER,
        "duration_s=3",
        f"method={{name: {method}}}",
        *(f"tasks.{name}.drift={{kind: none}}" for name in TASKS),
        experiment=QUICK,
    )
    assert ended.code == 0, ended.output
    tasks = ended.summary["tasks"]
    assert isinstance(tasks, dict)
    assert set(tasks) == TASKS
    assert all(task["versions"] >= 1 for task in tasks.values())
