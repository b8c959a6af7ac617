"""Everything the processes of a local run agree on before they are forked."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fadelab.class_routes import marked_routes, uplink_shares
from fadelab.experiment import Experiment
from fadelab.local.trial import choose_backend
from fadelab.methods import DmaFlMethod
from fadelab.periods import scheduling_of
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.config import ComputeConfig
from fadelab_agent.period_config import PeriodConfig
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_emulation.backends.choice import Choice, Need
from fadelab_emulation.emulator import BackendFacts, EmulatorConfig
from fadelab_emulation.packet_class import class_marks
from fadelab_emulation.sources import needs
from fadelab_proto.seeds import Stream, generator
from fadelab_server.config import ServerConfig, StopConfig, TaskSpec
from fadelab_server.scheduler.config import SchedulingConfig

# The address of backends.topology; the port is free in a network of the run's own.
PORT = 50051
SERVER = f"10.77.0.1:{PORT}"
# Reading a process's private memory takes the kernel some 10 ms: a sample of agents has to do.
_MEASURED_AGENTS = 64


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the server needs to know of a task's model."""

    dimension: int
    layout_hash: int
    layers: tuple[int, ...] = ()


def task_seed(seed: int, number: int) -> int:
    """Return what one task's data, model and batches are drawn from; the first has the run's own."""
    if number == 0:
        return seed
    return int(generator(seed, Stream.TASK, number).integers(2**63))


def draw_run_id() -> int:
    """Return what tells a run's messages from those of another."""
    return secrets.randbits(32)


@dataclass(frozen=True, slots=True)
class LinksOfRun:
    """What the links have to do and what carries them; found out before anything is made."""

    command_mono_s: float
    """When the command was given."""
    needs: frozenset[Need]
    choice: Choice

    @classmethod
    def choose(cls, experiment: Experiment) -> "LinksOfRun":
        """Choose a back-end for an experiment on this machine.

        Raises:
            FadelabError: ENVIRONMENT, if it has none that can do what is asked.

        """
        command_mono_s = time.monotonic()
        radio = experiment.radio
        found = needs(radio, experiment.devices.count, experiment.seed, experiment.duration_s)
        marks = class_marks(radio.classes)
        choice = choose_backend(radio.backend, found, radio.window, marks)
        return cls(command_mono_s, found, choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run, wherever its processes are."""

    experiment: Experiment
    run_dir: Path
    sockets_dir: Path
    """A short path: unix sockets allow 107 bytes."""
    data_dir: Path
    run_id: int

    @property
    def events_dir(self) -> Path:
        """Where every process logs."""
        return self.run_dir / "events"

    @property
    def operator_socket(self) -> Path:
        """The server's local socket."""
        return self.sockets_dir / "operator"

    @property
    def radio_socket(self) -> Path:
        """The emulator's local socket."""
        return self.sockets_dir / "radio"

    @property
    def state_dir(self) -> Path:
        """What agents keep for the case that one is killed; of no use after the run."""
        return self.run_dir / "state"

    @property
    def time_scale(self) -> float:
        """Emulated seconds per second."""
        return self.experiment.radio.time_scale

    @property
    def schedule_path(self) -> Path:
        """The recorded timeline."""
        return self.run_dir / "links.schedule"

    @property
    def initial_path(self) -> Path:
        """The only task's model of version 0."""
        return self.initial_path_of(next(iter(self.experiment.learning)))

    def initial_path_of(self, task: str) -> Path:
        """Return where the model of version 0 is of a task."""
        return self.run_dir / "checkpoints" / f"{task}-initial.npy"

    def workbench(self) -> WorkbenchConfig:
        """Return what all devices share in a run of one task."""
        return self.workbenches()[0]

    def workbenches(self) -> tuple[WorkbenchConfig, ...]:
        """Return what all devices share of each task."""
        experiment = self.experiment
        return tuple(
            WorkbenchConfig(
                name=name,
                number=number,
                task=own.task,
                partition=own.partition,
                training=own.training,
                drift=own.drift,
                devices=experiment.devices.count,
                seed=task_seed(experiment.seed, number),
            )
            for number, (name, own) in enumerate(experiment.learning.items())
        )

    def server(
        self, *, dimension: int, layout_hash: int, layers: tuple[int, ...] = ()
    ) -> ServerConfig:
        """Return the server's configuration for one task, given what only its model knows."""
        return self.server_of([ModelFacts(dimension, layout_hash, layers)])

    def server_of(self, models: Sequence[ModelFacts]) -> ServerConfig:
        """Return the server's configuration, given what only the tasks' models know."""
        experiment = self.experiment
        pieces = experiment.method.pieces()
        return ServerConfig(
            run_id=self.run_id,
            listen=SERVER,
            datagram_listen=SERVER if experiment.transport.classes.datagrams() else None,
            operator_socket=self.operator_socket,
            radio_socket=self.radio_socket if pieces.divides_radio or pieces.allocation else None,
            events_dir=self.events_dir,
            checkpoint_dir=self.run_dir / "checkpoints",
            devices=experiment.devices.count,
            tasks=tuple(
                TaskSpec(
                    name=name,
                    dimension=model.dimension,
                    layout_hash=model.layout_hash,
                    layers=model.layers,
                    initial=self.initial_path_of(name),
                )
                for name, model in zip(experiment.learning, models, strict=True)
            ),
            aggregation=pieces.aggregation,
            partial_updates=("keep" if pieces.cut_updates in ("keep", "substitute") else "discard"),
            substitute=pieces.substitute,
            allocation=pieces.allocation,
            scheduling=self.scheduling(),
            journal_keeps=pieces.periods is not None,
            stop=StopConfig(duration_s=experiment.duration_s, max_versions=experiment.max_versions),
            max_payload_bytes=experiment.transport.max_payload_bytes,
            downlink=experiment.transport.downlink,
            seed=experiment.seed,
            accelerate=experiment.transport.accelerate,
            time_scale=self.time_scale,
        )

    def scheduling(self) -> SchedulingConfig | None:
        """Return what the server schedules local periods by, if it does."""
        experiment = self.experiment
        if not isinstance(experiment.method, DmaFlMethod):
            return None
        return scheduling_of(
            experiment.method,
            experiment.learning,
            experiment.devices.compute,
            devices=experiment.devices.count,
            seed=experiment.seed,
            duration_s=experiment.duration_s,
        )

    def _periods(self, device: int) -> PeriodConfig | None:
        scheduling = self.scheduling()
        if scheduling is None:
            return None
        return PeriodConfig(
            cycles_per_sample=scheduling.cycles_per_sample[device],
            probe_samples=scheduling.probe_samples,
        )

    def _compute(self, device: int) -> ComputeConfig:
        scheduling, compute = self.scheduling(), self.experiment.devices.compute
        if scheduling is None:
            return compute
        own = {"capacitance_j_s2": scheduling.capacitance_j_s2[device]}
        return compute.model_copy(update=own)

    def agent(self, device: int) -> AgentConfig:
        """Return one agent's configuration."""
        experiment = self.experiment
        pieces = experiment.method.pieces()
        return AgentConfig(
            run_id=self.run_id,
            seed=experiment.seed,
            device=device,
            server=SERVER,
            radio_socket=self.radio_socket,
            events_dir=self.events_dir,
            state_dir=self.state_dir / f"agent-{device}",
            state_sync=False,
            policy=pieces.policy,
            error_memory=pieces.error_memory,
            innovation=pieces.innovation,
            contact=pieces.contacts,
            reports=pieces.reports,
            periods=self._periods(device),
            reports_updates=pieces.allocation is not None,
            substitute=pieces.substitute,
            gives_up=pieces.cut_updates != "resume",
            keeps_model=experiment.transport.downlink.kind != "full",
            max_payload_bytes=experiment.transport.max_payload_bytes,
            classes=marked_routes(experiment.transport.classes, experiment.radio.classes),
            mtu_bytes=experiment.transport.mtu_bytes,
            uplink_shares=uplink_shares(experiment.radio.classes, PORT),
            uplink_power_w=experiment.radio.uplink_power_w,
            downlink_power_w=experiment.radio.downlink_power_w,
            compute=self._compute(device),
            accelerate=experiment.transport.accelerate,
            stall_s=experiment.transport.stall_s,
            time_scale=self.time_scale,
            measure_memory=device % -(-experiment.devices.count // _MEASURED_AGENTS) == 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPlan(RunPlan):
    """One run on this machine."""

    command_mono_s: float
    """When the command was given."""
    links: LinksOfRun

    @classmethod
    def create(
        cls, experiment: Experiment, links: LinksOfRun, run_dir: Path, sockets_dir: Path
    ) -> "LocalPlan":
        """Draw a run identifier."""
        return cls(
            experiment=experiment,
            run_dir=run_dir,
            sockets_dir=sockets_dir,
            data_dir=experiment.first.task.data_dir.absolute(),
            run_id=draw_run_id(),
            command_mono_s=links.command_mono_s,
            links=links,
        )

    def emulator(self) -> EmulatorConfig:
        """Return the emulator's configuration."""
        experiment = self.experiment
        return EmulatorConfig(
            devices=experiment.devices.count,
            seed=experiment.seed,
            radio=experiment.radio,
            radio_socket=self.radio_socket,
            events_dir=self.events_dir,
            schedule_path=self.schedule_path,
            achieved_path=self.run_dir / "links.achieved",
            backend=BackendFacts.of(self.links.choice),
            times_delays=Need.DELAY in self.links.needs,
        )
