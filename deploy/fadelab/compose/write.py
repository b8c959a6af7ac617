"""Writing a testbed's files: the compose file and one configuration for each process."""

import os
from pathlib import Path

import numpy as np
import yaml

from fadelab.cli.processes import AgentFile, ValidatorFile
from fadelab.compose.services import CONFIG, DATA, OUT, SOCKETS, Testbed, agent_name, compose_file
from fadelab.emulate.config import DeviceConfig, EmulateFile, PlaceConfig, Start
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.local.plan import PORT, RunPlan, draw_run_id
from fadelab_agent.workbench import Workbench
from fadelab_emulation.timeline.config import TimelineConfig

_NOBODY = (10001, 10001)
"""User and group of the images."""
_DOCKER_SOCKET = "/var/run/docker.sock"
_EVERYWHERE = f"0.0.0.0:{PORT}"


def write_testbed(experiment: Experiment, folder: Path, tag: str) -> Testbed:
    """Write everything that `docker compose up` needs into a new folder.

    Args:
        experiment: what to run.
        folder: must not exist.
        tag: of the images.

    Raises:
        FadelabError: USAGE, if the folder cannot be made or the experiment needs what containers
            have not got; DATA_MISSING without the task's data.

    """
    _check(experiment)
    bench = Workbench(_plan(experiment, experiment.task.data_dir.absolute()).workbench())
    # Nobody's processes for root's sake; else the user's own, so that the results are the user's.
    user = _NOBODY if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    needs_data = experiment.task.needs_files
    testbed = Testbed(
        name=experiment.name,
        agents=experiment.devices.count,
        tag=tag,
        time_scale=experiment.radio.time_scale,
        user=user,
        docker_socket=_docker_socket(),
        data_dir=experiment.task.data_dir.absolute() if needs_data else None,
    )
    plan = _plan(experiment, DATA if needs_data else experiment.task.data_dir)
    _make_folders(folder, user)
    config = folder / "config"
    server = plan.server(
        dimension=bench.model.dimension, layout_hash=bench.layout_hash, layers=bench.layers
    )
    # The address of the links comes with them, and there is no other network to listen on.
    changes: dict[str, object] = {"listen": _EVERYWHERE}
    if server.datagram_listen is not None:
        changes["datagram_listen"] = _EVERYWHERE
    task = server.tasks[0].model_copy(update={"initial": CONFIG / "initial.npy"})
    server = server.model_copy(update={**changes, "tasks": (task,)})
    np.save(config / "initial.npy", bench.initial, allow_pickle=False)
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
    emulation = _emulation(plan, testbed).model_dump(mode="json", exclude_none=True)
    (config / "emulate.yaml").write_text(yaml.safe_dump(emulation, sort_keys=False))
    (folder / "compose.yaml").write_text(compose_file(testbed))
    return testbed


def _docker_socket() -> Path:
    """Return the socket of the engine that the environment names, if it is on this machine."""
    host = os.environ.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://") if host.startswith("unix://") else _DOCKER_SOCKET)


def _check(experiment: Experiment) -> None:
    if isinstance(experiment.radio, TimelineConfig):
        raise FadelabError(
            ExitCode.USAGE,
            "radio.timeline names a file of this machine, which containers do not see yet: give "
            "radio models, or run the experiment locally",
        )


def _plan(experiment: Experiment, data_dir: Path) -> RunPlan:
    task = experiment.task.model_copy(update={"data_dir": data_dir})
    return RunPlan(
        experiment=experiment.model_copy(update={"task": task}),
        run_dir=OUT,
        sockets_dir=SOCKETS,
        data_dir=data_dir,
        run_id=draw_run_id(),
    )


def _emulation(plan: RunPlan, testbed: Testbed) -> EmulateFile:
    return EmulateFile(
        seed=plan.experiment.seed,
        radio=plan.experiment.radio,
        record=OUT / "links",
        radio_socket=plan.radio_socket,
        start=Start.ON_BEGIN,
        server=PlaceConfig(container=testbed.container("server")),
        devices=[
            DeviceConfig(container=testbed.container(agent_name(device)))
            for device in range(testbed.agents)
        ],
    )


def _make_folders(folder: Path, user: tuple[int, int]) -> None:
    try:
        folder.mkdir(parents=True)
        (folder / "config").mkdir()
        for name in ("out", "sockets"):
            (folder / name).mkdir()
            # The emulator is root without root's privileges on files: it writes as the group.
            os.chown(folder / name, *user)
            (folder / name).chmod(0o2775)
    except FileExistsError:
        raise FadelabError(
            ExitCode.USAGE, f"-o {folder}: it exists already; nothing is overwritten"
        ) from None
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"-o {folder}: cannot make it: {error.strerror}"
        ) from None
