"""The manifest says what a run was made of."""

import json
from pathlib import Path

from run_record import QUICKSTART

from fadelab.experiment import Experiment, load_experiment
from fadelab.local.plan import LinksOfRun, LocalPlan
from fadelab.manifest import Deployment, build_manifest
from fadelab_emulation.backends.choice import Choice, Variant
from fadelab_emulation.window import BackendChoice

LINKS = LinksOfRun(12.5, frozenset(), Choice(Variant.LITE_CBPF, "by hand"))


def test_a_manifest_holds_the_resolved_experiment_and_the_machine(tmp_path: Path) -> None:
    experiment = load_experiment(QUICKSTART, ["devices.count=3"])
    plan = LocalPlan.create(experiment, LINKS, tmp_path, tmp_path)
    built = build_manifest(
        plan, Deployment.COMPOSE, command_mono_s=12.5, backend=BackendChoice.AUTO
    )
    manifest = json.loads(json.dumps(built))
    assert Experiment.model_validate(manifest["experiment"]) == experiment
    assert int(manifest["run_id"], 16) == plan.run_id
    assert len(manifest["run_id"]) == 8
    assert manifest["command_mono_s"] == 12.5
    assert (manifest["deployment"], manifest["backend"]) == ("compose", "auto")
    assert manifest["versions"]["fadelab"]
    assert manifest["machine"]["memory_bytes"] > 0


def test_all_parts_of_a_run_are_told_the_same(tmp_path: Path) -> None:
    settings = ["devices.count=130", "transport.max_payload_bytes=1024", "transport.stall_s=3"]
    experiment = load_experiment(QUICKSTART, settings)
    plan = LocalPlan.create(experiment, LINKS, tmp_path, tmp_path)
    server = plan.server(dimension=100, layout_hash=7)
    agents = [plan.agent(device) for device in range(130)]
    assert {agent.run_id for agent in agents} == {server.run_id}
    assert {agent.max_payload_bytes for agent in agents} == {server.max_payload_bytes} == {1024}
    assert {agent.stall_s for agent in agents} == {3.0}
    assert server.devices == plan.emulator().devices == plan.workbench().devices == 130
    # Reading private memory is slow: every third of 130 agents is measured, at most 64.
    assert sum(agent.measure_memory for agent in agents) == 44
