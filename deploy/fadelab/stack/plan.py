"""What a testbed on several machines consists of, whoever runs its containers."""

import datetime as dt
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from fadelab.allocations import check_one_emulator
from fadelab.certificates import CertificatesError, make_certificates
from fadelab.cli.processes import ValidatorFile
from fadelab.compose.write import plan_inside
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.folders import made
from fadelab.images.build import Target, image_name
from fadelab.learning_tasks import check_one_task
from fadelab.local.plan import PORT, SERVER, RunPlan, draw_run_id
from fadelab.manifest import Deployment, build_manifest
from fadelab.methods.sp_fl import check_one_machine
from fadelab.periods import check_same_processors
from fadelab.stack.agent_file import NodeAgentFile
from fadelab.stack.conductor import ConductorFile
from fadelab.stack.node_file import NodeFile
from fadelab_agent.trust import AgentTrust
from fadelab_emulation.timeline.config import TimelineConfig
from fadelab_proto import collector
from fadelab_server.config import ServerTrust

if TYPE_CHECKING:
    from fadelab_agent.workbench import Workbench

CONFIG, OUT, SOCKETS, DATA, SECRETS = (
    Path("/config"),
    Path("/out"),
    Path("/run/fadelab/sockets"),
    Path("/data"),
    Path("/run/secrets"),
)
SERVER_NAME, CONDUCTOR_NAME = "server", "conductor"
HUB = SERVER.rpartition(":")[0]
"""Where devices reach the server: an address of their links."""
MANAGEMENT_PORT = 50052
USER = 10001
"""User and group of the images."""
NO_DATA_NEEDED = "digits"
CAPABILITIES = {
    "NET_ADMIN": "make links, shape them, translate addresses",
    "SYS_ADMIN": "enter the networks that agents hand over",
    "NET_RAW": "see when the first packet passes a reopened link",
    "SYS_NICE": "change links on time while agents train",
}
AGENT_CREDENTIALS = f"{SECRETS}/device-{{device}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One testbed: names, images and files."""

    name: str
    devices: int
    images: dict[Target, str]
    data_dir: Path | None
    """Folder of the data set, at the same path on every node; None: the task needs none."""
    files: dict[str, bytes]
    """Configuration by file name, initial.npy included."""
    trust: dict[str, bytes]
    """Certificates, keys and tokens by file name."""


def plan_cluster(
    experiment: Experiment,
    folder: Path,
    *,
    tag: str,
    registry: str,
    days: int,
    deployment: Deployment,
    credentials: str = AGENT_CREDENTIALS,
) -> Cluster:
    """Work out all files of a testbed, and write those that every kind has into a new folder.

    Args:
        experiment: what to run.
        folder: must not exist.
        tag: of the images.
        registry: what stands before the images' names, such as ``registry.lab:5000/``; or nothing.
        days: how long certificates are valid.
        deployment: who runs the containers.
        credentials: where an agent finds its own, see :class:`NodeAgentFile`.

    Raises:
        FadelabError: USAGE, if the folder cannot be made or the experiment needs what a cluster
            has not got; DATA_MISSING without the task's data.

    """
    _check(experiment)
    with collector.importing():
        # torch takes seconds to import, which an experiment that is refused need not wait for.
        from fadelab_agent.workbench import Workbench  # noqa: PLC0415

    task = experiment.first.task
    bench = Workbench(plan_inside(experiment, task.data_dir.absolute(), 0).workbench())
    needs_data = task.name != NO_DATA_NEEDED
    run_id = draw_run_id()
    plan = plan_inside(experiment, DATA if needs_data else task.data_dir, run_id)
    with made(f"-o {folder}", "nothing is overwritten"):
        folder.mkdir(parents=True)
    names = [HUB, SERVER_NAME, CONDUCTOR_NAME]
    trust = _trust(folder / "trust", names, experiment.devices.count, days)
    models: dict[str, BaseModel] = {
        "server.json": _server(plan, bench),
        "agent.json": _agent(plan, credentials),
        "node.json": _node(plan),
        "conductor.json": _conductor(plan),
        "validator.json": ValidatorFile(
            operator_socket=plan.operator_socket,
            events_dir=plan.events_dir,
            time_scale=plan.time_scale,
            work=plan.workbench(),
        ),
    }
    (folder / "config").mkdir()
    for name, model in models.items():
        (folder / "config" / name).write_text(model.model_dump_json(indent=2) + "\n")
    np.save(folder / "config" / "initial.npy", bench.initial, allow_pickle=False)
    manifest = build_manifest(
        plan, deployment, command_mono_s=0.0, backend=experiment.radio.backend
    )
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return Cluster(
        # A DNS label (RFC 1123), which names of stacks and namespaces have to be.
        name=re.sub(r"[^a-z0-9]+", "-", experiment.name.lower()).strip("-")[:40],
        devices=experiment.devices.count,
        images={one: f"{registry}{image_name(one, tag)}" for one in Target},
        data_dir=task.data_dir.absolute() if needs_data else None,
        files={path.name: path.read_bytes() for path in sorted((folder / "config").iterdir())},
        trust=trust,
    )


def _check(experiment: Experiment) -> None:
    check_one_task(experiment, "a cluster")
    check_same_processors(experiment.method, "a cluster")
    check_one_machine(experiment.method)
    check_one_emulator(experiment.method.pieces(), "a cluster")
    if isinstance(experiment.radio, TimelineConfig):
        raise FadelabError(
            ExitCode.USAGE,
            "radio.timeline names a file of this machine, which the nodes of a cluster do not see: "
            "give radio models, or run the experiment locally",
        )
    if experiment.transport.classes.datagrams():
        raise FadelabError(
            ExitCode.USAGE,
            "transport.classes sends datagrams, which nothing protects between machines: send "
            "every class over TCP, or run the experiment on one machine",
        )


def _trust(folder: Path, names: list[str], devices: int, days: int) -> dict[str, bytes]:
    try:
        paths = make_certificates(
            folder, servers=names, devices=devices, days=days, now=dt.datetime.now(dt.UTC)
        )
    except CertificatesError as error:
        raise FadelabError(ExitCode.USAGE, str(error)) from None
    return {path.name: path.read_bytes() for path in paths if path.name != "ca.key"}


def _server_trust() -> ServerTrust:
    return ServerTrust(
        certificate=SECRETS / "server.pem", key=SECRETS / "server.key", client_ca=SECRETS / "ca.pem"
    )


def _server(plan: RunPlan, bench: "Workbench") -> BaseModel:
    server = plan.server(
        dimension=bench.model.dimension, layout_hash=bench.layout_hash, layers=bench.layers
    )
    task = server.tasks[0].model_copy(update={"initial": CONFIG / "initial.npy"})
    return server.model_copy(
        update={
            "listen": f"0.0.0.0:{PORT}",
            "tasks": (task,),
            "trust": _server_trust(),
            "tokens": SECRETS / "tokens.json",
        }
    )


def _agent(plan: RunPlan, credentials: str) -> BaseModel:
    return NodeAgentFile(
        agent=plan.agent(0),
        work=plan.workbench(),
        attendance=SOCKETS / "attendance",
        credentials=credentials,
        ca=SECRETS / "ca.pem",
    )


def _node(plan: RunPlan) -> BaseModel:
    return NodeFile(
        run_id=plan.run_id,
        seed=plan.experiment.seed,
        devices=plan.experiment.devices.count,
        radio=plan.experiment.radio,
        record=OUT,
        radio_socket=plan.radio_socket,
        attendance=SOCKETS / "attendance",
        conductor=f"{CONDUCTOR_NAME}:{MANAGEMENT_PORT}",
        server=f"{SERVER_NAME}:{PORT}",
        trust=AgentTrust(
            ca=SECRETS / "ca.pem",
            certificate=SECRETS / "operator.pem",
            key=SECRETS / "operator.key",
        ),
    )


def _conductor(plan: RunPlan) -> BaseModel:
    return ConductorFile(
        run_id=plan.run_id,
        devices=plan.experiment.devices.count,
        listen=f"0.0.0.0:{MANAGEMENT_PORT}",
        trust=_server_trust(),
        operator_socket=plan.operator_socket,
        events_dir=plan.events_dir,
        time_scale=plan.time_scale,
    )
