"""Experiments with several tasks, and what the method dma_fl makes of them."""

from pathlib import Path
from typing import Any

import pytest
from tests.system.commands import QUICKSTART, ROOT

from fadelab.compose.write import write_testbed
from fadelab.exit_codes import FadelabError
from fadelab.experiment import Experiment, check_experiment, load_experiment, read_yaml
from fadelab.local.plan import ModelFacts, RunPlan, task_seed
from fadelab_server.config import DmaFlConfig, FedAvgConfig

QUICK = ROOT / "examples" / "dma_fl" / "quick.yaml"
NAMES = ["plain", "shifting", "turning"]


def plan_of(experiment: Experiment) -> RunPlan:
    return RunPlan(
        experiment=experiment,
        run_dir=Path("/run"),
        sockets_dir=Path("/sockets"),
        data_dir=Path("/data"),
        run_id=1,
    )


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(FadelabError) as error:
        check_experiment(tree, "it")
    return str(error.value)


@pytest.fixture(name="tree")
def quick_tree() -> dict[str, Any]:
    return read_yaml(QUICK)


def test_tasks_stand_in_one_order_everywhere(tree: dict[str, Any]) -> None:
    experiment = check_experiment(tree, "it")
    assert list(experiment.learning) == NAMES
    plan = plan_of(experiment)
    assert [bench.task_name for bench in plan.workbenches()] == NAMES
    assert [bench.number for bench in plan.workbenches()] == [0, 1, 2]
    server = plan.server_of([ModelFacts(650, 1), ModelFacts(2410, 2), ModelFacts(2410, 3)])
    assert [task.name for task in server.tasks] == NAMES
    assert len({task.initial for task in server.tasks}) == 3
    assert check_experiment(experiment.model_dump(mode="json"), "again") == experiment


def test_each_task_has_random_numbers_of_its_own() -> None:
    assert task_seed(5, 0) == 5
    assert len({task_seed(5, number) for number in range(4)}) == 4
    assert task_seed(5, 1) != task_seed(6, 1)


def test_one_task_stays_what_it_was() -> None:
    experiment = load_experiment(QUICKSTART)
    assert list(experiment.learning) == ["digits"]
    plan = plan_of(experiment)
    assert plan.workbench().seed == experiment.seed
    assert plan.initial_path == Path("/run/checkpoints/digits-initial.npy")
    server = plan.server(dimension=10, layout_hash=1)
    assert (server.scheduling, server.journal_keeps) == (None, False)
    assert plan.agent(0).periods is None


def test_both_forms_exclude_each_other(tree: dict[str, Any]) -> None:
    assert "'task' and 'tasks' exclude each other" in refusal(tree | {"task": {"name": "digits"}})
    del tree["tasks"]
    assert "the key 'task' is missing" in refusal(tree)


def test_names_of_tasks_are_checked(tree: dict[str, Any]) -> None:
    tree["tasks"] = {"No name": tree["tasks"]["plain"]}
    assert "No name" in refusal(tree)


def test_drift_and_several_tasks_need_methods_that_know_them(tree: dict[str, Any]) -> None:
    assert "'tasks.plain.drift' is for method dma_fl" in refusal(
        tree | {"method": {"name": "fedasync"}}
    )
    assert "method mads is for one task" in refusal(tree | {"method": {"name": "mads"}})
    for task in tree["tasks"].values():
        del task["drift"]
    assert check_experiment(tree | {"method": {"name": "fedavg"}}, "it").method.name == "fedavg"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"local_steps": None, "local_epochs": 1}, "needs local_steps"),
        ({"momentum": 0.5}, "plain steps"),
        ({"optimiser": "adam"}, "plain steps"),
    ],
)
def test_training_that_cannot_be_scheduled_is_refused(
    tree: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    tree["tasks"]["plain"]["training"] |= changes
    assert words in refusal(tree)


def test_settings_that_contradict_each_other_are_refused(tree: dict[str, Any]) -> None:
    tree["method"] |= {"quorum": 3}
    assert "quorum is for schedule rounds" in refusal(tree)
    tree["method"] |= {"schedule": "rounds"}
    assert "resources must be fixed" in refusal(tree)
    tree["method"] |= {"resources": "fixed", "quorum": 11}
    assert "only 10 devices" in refusal(tree)
    tree["method"] |= {"quorum": 3, "cpu_hz": [1e6, 2e6]}
    assert "must lie within method.cpu_hz" in refusal(tree)


def test_schedules_are_the_baselines(tree: dict[str, Any]) -> None:
    def rule(**method: Any) -> object:
        return (
            check_experiment(tree | {"method": tree["method"] | method}, "it")
            .method.pieces()
            .aggregation
        )

    own = rule()
    assert isinstance(own, DmaFlConfig)
    assert own.max_staleness == 5
    async_rule = rule(schedule="at_once", resources="fixed")
    assert isinstance(async_rule, DmaFlConfig)
    assert async_rule.max_staleness is None
    assert rule(schedule="rounds", resources="fixed", quorum=4) == FedAvgConfig(quorum=4)


def test_processors_are_drawn_once_for_server_and_devices(tree: dict[str, Any]) -> None:
    tree["method"] |= {"capacitance_j_s2": [2e-22, 2e-19], "cycles_per_sample": [500, 5000]}
    plan = plan_of(check_experiment(tree, "it"))
    scheduling = plan.scheduling()
    assert scheduling is not None
    drawn = [value for row in scheduling.cycles_per_sample for value in row]
    assert len(set(drawn)) == 30
    assert 500 <= min(drawn) < max(drawn) <= 5000
    for device in (0, 7):
        agent = plan.agent(device)
        assert agent.periods is not None
        assert agent.periods.cycles_per_sample == scheduling.cycles_per_sample[device]
        assert agent.compute.capacitance_j_s2 == scheduling.capacitance_j_s2[device]
    # The clocks of first periods are one processor's.
    assert scheduling.first_cpu_hz * 3 == pytest.approx(6e5)


def test_containers_refuse_several_tasks_in_a_sentence(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    experiment = check_experiment(tree, "it")
    with pytest.raises(FadelabError, match="trains one task, and the experiment has 3"):
        write_testbed(experiment, tmp_path / "out", tag="any")
