"""Writing a testbed's files: the compose file and one configuration for each process."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from pydantic import BaseModel

from fadelab.cli.processes import AgentFile, ValidatorFile
from fadelab.compose.services import (
    CONFIG,
    DATA,
    HUB,
    OUT,
    SOCKETS,
    Testbed,
    agent_name,
    compose_file,
)
from fadelab.emulate.config import DeviceConfig, EmulateFile, PlaceConfig, Start
from fadelab.experiment import Experiment
from fadelab.folders import made
from fadelab.learning_tasks import check_one_task
from fadelab.local.plan import PORT, RunPlan, draw_run_id
from fadelab_emulation.sources import AnyRadio
from fadelab_proto import collector

_NOBODY = (10001, 10001)
"""User and group of the images."""
_DOCKER_SOCKET = "/var/run/docker.sock"
_EVERYWHERE = f"0.0.0.0:{PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Folders of this machine that containers write to, and who looks after these."""

    run_id: int
    out: Path
    """The run directory."""
    sockets: Path
    labels: dict[str, str] = field(default_factory=dict)
    """For every container, so that it is found again."""


def write_testbed(
    experiment: Experiment, folder: Path, tag: str, shared: Shared | None = None
) -> Testbed:
    """Write everything that `docker compose up` needs into a new folder.

    Args:
        experiment: what to run.
        folder: must not exist.
        tag: of the images.
        shared: where containers write to, which must exist, if somebody follows the run and begins
            it; left out: folders beside the files, and a container begins it.

    Raises:
        FadelabError: USAGE, if the folder cannot be made or the experiment needs what containers
            have not got; DATA_MISSING without the task's data.

    """
    check_one_task(experiment, "a run in containers")
    with collector.importing():
        # torch takes seconds to import, which an experiment that is refused need not wait for.
        from fadelab_agent.workbench import Workbench  # noqa: PLC0415

    run_id = draw_run_id() if shared is None else shared.run_id
    task = experiment.first.task
    bench = Workbench(plan_inside(experiment, task.data_dir.absolute(), run_id).workbench())
    needs_data = task.needs_files
    testbed = Testbed(
        name=experiment.name,
        agents=experiment.devices.count,
        tag=tag,
        time_scale=experiment.radio.time_scale,
        user=container_user(),
        docker_socket=_docker_socket(),
        data_dir=task.data_dir.absolute() if needs_data else None,
        run_id=run_id,
        **({} if shared is None else _followed(shared)),
    )
    data_dir = DATA if needs_data else task.data_dir
    plan = plan_inside(experiment, data_dir, run_id)
    out = folder / "out" if shared is None else shared.out
    _make_folders(folder, own=shared is None)
    config = folder / "config"
    server = plan.server(
        dimension=bench.model.dimension, layout_hash=bench.layout_hash, layers=bench.layers
    )
    # The address of the links comes with them, and there is no other network to listen on.
    changes: dict[str, object] = {"listen": _EVERYWHERE}
    if server.datagram_listen is not None:
        changes["datagram_listen"] = _EVERYWHERE
    server = server.model_copy(update=changes)
    for name in ("events", "checkpoints"):
        give_away(out / name)
    np.save(out / plan.initial_path.relative_to(OUT), bench.initial, allow_pickle=False)
    (config / "server.json").write_text(server.model_dump_json(indent=2) + "\n")
    for device in range(testbed.agents):
        agent = AgentFile(agent=plan.agent(device), work=plan.workbench())
        (config / f"{agent_name(device)}.json").write_text(agent.model_dump_json(indent=2) + "\n")
    validator = ValidatorFile(
        operator_socket=plan.operator_socket,
        events_dir=plan.events_dir,
        time_scale=plan.time_scale,
        work=plan.workbench(),
    )
    (config / "validator.json").write_text(validator.model_dump_json(indent=2) + "\n")
    radio = _with_files(experiment.radio, config)
    emulation = _emulation(plan, radio, testbed).model_dump(mode="json", exclude_none=True)
    (config / "emulate.yaml").write_text(yaml.safe_dump(emulation, sort_keys=False))
    # Whatever the umask: root without root's privileges and nobody's processes read them.
    config.chmod(0o755)
    for file in config.iterdir():
        file.chmod(0o644)
    (folder / "compose.yaml").write_text(compose_file(testbed))
    # Heeded by Compose v2 and docker-compose alike, unlike a name in the file.
    (folder / ".env").write_text(f"COMPOSE_PROJECT_NAME={testbed.project}\n")
    return testbed


def container_user() -> tuple[int, int]:
    """Return user and group of all processes but the emulator.

    Nobody's processes for root's sake; else the user's own, so that the results are the user's.
    """
    return _NOBODY if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def give_away(folder: Path) -> None:
    """Make a folder, if need be, that containers may write to.

    The emulator is root without root's privileges on files: it writes as the group.
    """
    folder.mkdir(exist_ok=True)
    os.chown(folder, *container_user())
    folder.chmod(0o2775)


def _followed(shared: Shared) -> dict[str, Any]:
    return {
        "out": str(shared.out),
        "sockets": str(shared.sockets),
        "labels": shared.labels,
        "begins": False,
    }


def _with_files(radio: AnyRadio, config: Path) -> AnyRadio:
    """Copy files that a radio names into the configuration, and name them as containers do."""

    def moved(value: object, names: str) -> object:
        if isinstance(value, Path):
            copy = config / f"{names}{value.suffix}"
            shutil.copyfile(value, copy)
            return CONFIG / copy.name
        if isinstance(value, BaseModel):
            fields = {
                name: changed
                for name in type(value).model_fields
                if (changed := moved(old := getattr(value, name), f"{names}-{name}")) is not old
            }
            return value.model_copy(update=fields) if fields else value
        return value

    found = moved(radio, "radio")
    assert isinstance(found, BaseModel)
    return cast("AnyRadio", found)


def _docker_socket() -> Path:
    """Return the socket of the engine that the environment names, if it is on this machine."""
    host = os.environ.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://") if host.startswith("unix://") else _DOCKER_SOCKET)


def plan_inside(experiment: Experiment, data_dir: Path, run_id: int) -> RunPlan:
    """Return the plan of a run with the paths that its containers see."""
    task = experiment.first.task.model_copy(update={"data_dir": data_dir})
    return RunPlan(
        experiment=experiment.model_copy(update={"task": task}),
        run_dir=OUT,
        sockets_dir=SOCKETS,
        data_dir=data_dir,
        run_id=run_id,
    )


def _emulation(plan: RunPlan, radio: AnyRadio, testbed: Testbed) -> EmulateFile:
    return EmulateFile(
        seed=plan.experiment.seed,
        radio=radio,
        record=OUT,
        of_run=True,
        radio_socket=plan.radio_socket,
        start=Start.ON_BEGIN,
        server=PlaceConfig(container=testbed.container(HUB)),
        devices=[
            DeviceConfig(container=testbed.container(agent_name(device)))
            for device in range(testbed.agents)
        ],
    )


def _make_folders(folder: Path, *, own: bool) -> None:
    with made(f"-o {folder}", "nothing is overwritten"):
        folder.mkdir(parents=True)
        (folder / "config").mkdir()
        for name in ("out", "sockets") if own else ():
            give_away(folder / name)
