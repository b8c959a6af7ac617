"""Everything the processes of a local run agree on before they are forked."""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from fadelab.experiment import Experiment
from fadelab_agent.agent import AgentConfig
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_emulation.emulator import EmulatorConfig
from fadelab_server.config import ServerConfig, StopConfig, TaskSpec

# The address of backends.topology; the port is free in a network of the run's own.
SERVER = "10.77.0.1:50051"
# Reading a process's private memory takes the kernel some 10 ms: a sample of agents has to do.
_MEASURED_AGENTS = 64


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """One run on this machine."""

    experiment: Experiment
    run_dir: Path
    sockets_dir: Path
    """A short path: unix sockets allow 107 bytes."""
    data_dir: Path
    run_id: int
    command_mono_s: float
    """When the command was given."""

    @classmethod
    def create(cls, experiment: Experiment, run_dir: Path, sockets_dir: Path) -> "LocalPlan":
        """Draw a run identifier and note the time."""
        return cls(
            experiment=experiment,
            run_dir=run_dir,
            sockets_dir=sockets_dir,
            data_dir=experiment.task.data_dir.absolute(),
            run_id=secrets.randbits(32),
            command_mono_s=time.monotonic(),
        )

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
    def schedule_path(self) -> Path:
        """The recorded timeline."""
        return self.run_dir / "links.schedule"

    @property
    def initial_path(self) -> Path:
        """The model of version 0."""
        return self.run_dir / "checkpoints" / f"{self.experiment.task.name}-initial.npy"

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
        )

    def workbench(self) -> WorkbenchConfig:
        """Return what all devices share."""
        experiment = self.experiment
        return WorkbenchConfig(
            task=experiment.task,
            partition=experiment.partition,
            training=experiment.training,
            devices=experiment.devices.count,
            seed=experiment.seed,
        )

    def server(self, *, dimension: int, layout_hash: int) -> ServerConfig:
        """Return the server's configuration, given what only the model knows."""
        experiment = self.experiment
        return ServerConfig(
            run_id=self.run_id,
            listen=SERVER,
            operator_socket=self.operator_socket,
            events_dir=self.events_dir,
            checkpoint_dir=self.run_dir / "checkpoints",
            devices=experiment.devices.count,
            tasks=(
                TaskSpec(
                    name=experiment.task.name,
                    dimension=dimension,
                    layout_hash=layout_hash,
                    initial=self.initial_path,
                ),
            ),
            aggregation=experiment.method.pieces().aggregation,
            stop=StopConfig(duration_s=experiment.duration_s, max_versions=experiment.max_versions),
            max_payload_bytes=experiment.transport.max_payload_bytes,
        )

    def agent(self, device: int) -> AgentConfig:
        """Return one agent's configuration."""
        experiment = self.experiment
        pieces = experiment.method.pieces()
        return AgentConfig(
            run_id=self.run_id,
            device=device,
            server=SERVER,
            radio_socket=self.radio_socket,
            events_dir=self.events_dir,
            policy=pieces.policy,
            error_memory=pieces.error_memory,
            max_payload_bytes=experiment.transport.max_payload_bytes,
            uplink_power_w=experiment.radio.uplink_power_w,
            downlink_power_w=experiment.radio.downlink_power_w,
            compute=experiment.devices.compute,
            stall_s=experiment.transport.stall_s,
            measure_memory=device % -(-experiment.devices.count // _MEASURED_AGENTS) == 0,
        )
