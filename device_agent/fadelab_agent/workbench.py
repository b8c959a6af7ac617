"""Loading a task once for many devices.

The launcher loads data set and model in one process, takes one training step so that everything
lazy in torch has happened, and forks the agents from it: they share the memory and start in
milliseconds.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fadelab_agent.drift import DriftTime
from fadelab_agent.drifting_work import DriftingSamples
from fadelab_agent.metric import Baseline
from fadelab_agent.models import build_model
from fadelab_agent.partition import Indices, partition
from fadelab_agent.period_work import PeriodOutcome, Stretches
from fadelab_agent.tasks import TaskData, load_task
from fadelab_agent.training import FlatModel, evaluate, train_locally
from fadelab_agent.training.optimisers import OPTIMISERS
from fadelab_agent.work import Trained
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto.local_period import LocalPlan

F32 = NDArray[np.float32]


class Workbench:
    """Data, model and partition of one task.

    Raises:
        DataSetError: if the data set is missing or broken.
        PartitionError: if it cannot be divided among so many devices.

    """

    def __init__(self, config: WorkbenchConfig, data_dir: Path | None = None) -> None:
        torch.set_num_threads(1)
        self.config = config
        self.data: TaskData = load_task(config.task, data_dir)
        self.model = FlatModel(build_model(config.task.model, self.data, config.seed))
        self.initial: F32 = self.model.vector.copy()
        self.parts = partition(
            config.partition,
            self.data.groups.numpy(),
            config.devices,
            self.data.group_count,
            config.seed,
        )
        self.layers = tuple(layer.count for layer in self.model.layers)
        self.layout_hash = _layout_hash(self.model)

    def warm_up(self) -> None:
        """Take one training step and one evaluation, and put the model back."""
        self.device(0).train(self.initial, 0)
        evaluate(self.model, self.data)
        self.model.load(self.initial)

    def device(self, number: int) -> "DeviceWork":
        """Return the task as device ``number`` has it."""
        return DeviceWork(self, number, self.parts[number])

    def validator(self) -> "DeviceWork":
        """Return the task for an agent that evaluates and never trains."""
        return DeviceWork(self, 0, self.parts[0])


def after_fork() -> None:
    """Have torch notice that it is in a forked process, before several threads use it at once.

    It replaces its pool of threads at its first use there, and a second thread that comes meanwhile
    finds none.
    """
    torch.set_num_threads(1)


class DeviceWork:
    """One task on one device; see :class:`fadelab_agent.work.TaskWork`."""

    def __init__(self, bench: Workbench, device: int, indices: Indices) -> None:
        self._bench = bench
        self._device = device
        self._indices = indices
        self.name: str = bench.config.task_name
        self.dimension = bench.model.dimension
        self.layers = bench.layers
        self.layout_hash = bench.layout_hash
        self.samples = len(indices)
        training = bench.config.training
        keeps = training.optimiser_state == "keep"
        self._optimiser = OPTIMISERS[training.optimiser](training) if keeps else None
        self._drifting = DriftingSamples(
            bench.config, bench.data, bench.model, device=device, indices=indices
        )

    def train(self, base: F32, update_number: int) -> Trained:
        """Train locally from ``base``; see :func:`train_locally`."""
        bench = self._bench
        bench.model.load(base)
        result = train_locally(
            bench.model,
            bench.data,
            self._indices,
            bench.config.training,
            seed=bench.config.seed,
            device=self._device,
            update=update_number,
            optimiser=self._optimiser,
        )
        return Trained(
            delta=result.delta,
            steps=result.steps,
            batch_size=result.samples // result.steps,
            loss=result.loss,
        )

    def samples_after(self, *, idle_s: float, active_s: float) -> int:
        """Return how many samples the device holds after so much drift time."""
        return len(self._drifting.held(DriftTime(idle_s, active_s)).indices)

    def train_period(
        self,
        base: F32,
        plan: LocalPlan,
        times: Stretches,
        *,
        update_number: int,
        probe_samples: int,
    ) -> PeriodOutcome:
        """Train and measure one scheduled period."""
        return self._drifting.period(
            base, plan, times, update_number=update_number, probe_samples=probe_samples
        )

    def evaluate(self, vector: F32) -> tuple[float, float]:
        """Return loss and metric on the test set."""
        self._bench.model.load(vector)
        return evaluate(self._bench.model, self._bench.data)

    def baseline(self) -> Baseline | None:
        """Return what a rule that learns nothing achieves on the test set."""
        return self._bench.data.baseline()


def _layout_hash(model: FlatModel) -> int:
    """Return the first 64 bits of SHA-256 over the names and shapes of all layers."""
    text = ";".join(f"{layer.name}:{layer.shape}" for layer in model.layers)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
