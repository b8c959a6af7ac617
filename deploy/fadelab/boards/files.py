"""The configuration of each process of a run on boards."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from fadelab.allocations import check_one_emulator
from fadelab.boards.facts import BoardFacts
from fadelab.boards.inventory import EmulatedLink, Inventory
from fadelab.boards.ssh import Board
from fadelab.cli.processes import AgentFile
from fadelab.emulate.config import DeviceConfig, EmulateFile, Start, WorldConfig
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.learning_tasks import check_one_task
from fadelab.local.plan import RunPlan
from fadelab.methods.sp_fl import check_one_machine
from fadelab_agent.trust import AgentTrust
from fadelab_emulation.timeline.config import TimelineConfig
from fadelab_proto.tls import device_name
from fadelab_server.config import ServerConfig, ServerTrust


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a run's files are on one board."""

    installed: PurePosixPath
    run: PurePosixPath

    @classmethod
    def of(cls, facts: BoardFacts, run_id: int) -> "Spot":
        """Return the spot of a run."""
        installed = PurePosixPath(facts.folder)
        return cls(installed, installed / "runs" / f"{run_id:08x}")

    @property
    def radio_socket(self) -> PurePosixPath:
        """The radio plane: of the link helper alone, on no network."""
        return self.run / "radio"


def check_fit(experiment: Experiment, inventory: Inventory) -> None:
    """Refuse an experiment that these boards cannot run. FadelabError: USAGE."""
    check_one_task(experiment, "a fleet of boards")
    check_one_machine(experiment.method)
    count, there = experiment.devices.count, len(inventory.boards)
    if count != there:
        raise FadelabError(
            ExitCode.USAGE,
            f"devices.count is {count}, but the inventory has {there} boards: "
            f"--set devices.count={there}",
        )
    check_one_emulator(experiment.method.pieces(), "a fleet of boards")
    if isinstance(experiment.radio, TimelineConfig):
        raise FadelabError(
            ExitCode.USAGE,
            "radio.timeline names a file of this machine, which boards do not have: give radio "
            "models",
        )
    if experiment.transport.classes.datagrams():
        raise FadelabError(
            ExitCode.USAGE,
            "boards talk TLS, which does not protect datagrams: send all classes over connections",
        )
    emulated = [isinstance(inventory.profile(one).link, EmulatedLink) for one in inventory.boards]
    if experiment.radio.time_scale != 1 and not all(emulated):
        raise FadelabError(
            ExitCode.USAGE,
            f"radio.time_scale is {experiment.radio.time_scale:g}, but real links know no other "
            "time than the wall clock's: leave it out",
        )


def server_file(plan: RunPlan, inventory: Inventory, config: ServerConfig) -> ServerConfig:
    """Return the server's configuration for boards: on the network, with trust."""
    trust = inventory.trust
    return config.model_copy(
        update={
            "run_id": plan.run_id,
            "listen": f"0.0.0.0:{inventory.server.port}",
            "trust": ServerTrust(
                certificate=trust / "server.pem",
                key=trust / "server.key",
                client_ca=trust / "ca.pem",
            ),
            "tokens": trust / "tokens.json",
        }
    )


def agent_file(plan: RunPlan, inventory: Inventory, board: Board, spot: Spot) -> AgentFile:
    """Return a board's agent's configuration."""
    link, profile = board.profile.link, board.profile
    trust, name = Path(spot.installed / "trust"), device_name(board.device)
    changes: dict[str, object] = {
        "server": f"{inventory.server.address}:{inventory.server.port}",
        "trust": AgentTrust(
            ca=trust / "ca.pem", certificate=trust / f"{name}.pem", key=trust / f"{name}.key"
        ),
        "token": trust / f"{name}.token",
        "radio_socket": Path(spot.radio_socket) if isinstance(link, EmulatedLink) else None,
        "events_dir": Path(spot.run / "events"),
        "state_dir": Path(spot.run / "state"),
        "measure_memory": True,
        "measure_power": True,
    }
    if not isinstance(link, EmulatedLink):
        changes["radio"] = link
    if profile.compute is not None:
        changes["compute"] = profile.compute
    work = plan.workbench()
    if profile.data_dir is not None:
        task = work.task.model_copy(update={"data_dir": Path(profile.data_dir)})
        work = work.model_copy(update={"task": task})
    agent = plan.agent(board.device).model_copy(update=changes)
    return AgentFile(agent=agent, work=work)


def link_file(plan: RunPlan, board: Board, spot: Spot) -> EmulateFile | None:
    """Return a board's link helper's configuration; None where links are real."""
    link = board.profile.link
    if not isinstance(link, EmulatedLink):
        return None
    experiment = plan.experiment
    return EmulateFile(
        seed=experiment.seed,
        radio=experiment.radio,
        record=Path(spot.run / "link"),
        radio_socket=Path(spot.radio_socket),
        start=Start.ON_BEGIN,
        # A board is there to be shaped; its other interfaces are left alone.
        allow_host=True,
        devices=[DeviceConfig(attach=link.interface)],
        world=WorldConfig(devices=experiment.devices.count, drives=(board.device,)),
    )


def board_files(
    plan: RunPlan, inventory: Inventory, board: Board, spot: Spot
) -> dict[str, tuple[bytes, int]]:
    """Return a board's configuration files and their modes."""
    agent = agent_file(plan, inventory, board, spot)
    files = {"agent.json": (agent.model_dump_json(indent=2).encode(), 0o600)}
    link = link_file(plan, board, spot)
    if link is not None:
        text = yaml.safe_dump(link.model_dump(mode="json", exclude_none=True), sort_keys=False)
        files["link.yaml"] = text.encode(), 0o600
    return files
