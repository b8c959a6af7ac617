"""From an experiment to what its server and devices need for scheduled local periods."""

from collections.abc import Mapping

import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.learning_tasks import LearningTask
from fadelab.methods import DmaFlMethod, MethodConfig
from fadelab_agent.config import ComputeConfig, TrainingConfig
from fadelab_proto.seeds import Stream, generator
from fadelab_server.scheduler.config import (
    Interval,
    PeriodSettings,
    SchedulingConfig,
    TaskScheduling,
)


def check_periods(
    method: DmaFlMethod, tasks: Mapping[str, LearningTask], compute: ComputeConfig
) -> None:
    """Raise ValueError where local periods cannot be scheduled as the experiment says."""
    for name, task in tasks.items():
        training = task.training
        if training.local_steps is None or training.growth:
            raise ValueError(
                f"method dma_fl decides about local steps: the training of task '{name}' needs "
                "local_steps, those of a first period, and no growth"
            )
        if training.optimiser != "sgd" or training.momentum or training.weight_decay:
            raise ValueError(
                f"method dma_fl measures gradients by what plain steps along them do: the training "
                f"of task '{name}' must have the optimiser sgd, without momentum and weight_decay"
            )
    lowest, highest = method.cpu_hz
    if not lowest <= compute.cpu_hz <= highest:
        raise ValueError(
            f"devices.compute.cpu_hz is {compute.cpu_hz:g}, which first periods have; it must lie "
            f"within method.cpu_hz, from {lowest:g} to {highest:g}"
        )


def check_same_processors(method: MethodConfig, where: str) -> None:
    """Refuse drawn processors where all agents read one file.

    Raises:
        FadelabError: USAGE.

    """
    if isinstance(method, DmaFlMethod) and (method.capacitance_j_s2 or method.cycles_per_sample):
        raise FadelabError(
            ExitCode.USAGE,
            f"method.capacitance_j_s2 and method.cycles_per_sample give each device a processor of "
            f"its own, and {where} has one file for all agents: leave them out, or run it locally",
        )


def scheduling_of(
    method: DmaFlMethod,
    tasks: Mapping[str, LearningTask],
    compute: ComputeConfig,
    *,
    devices: int,
    seed: int,
    duration_s: float,
) -> SchedulingConfig:
    """Return what the server's scheduler goes by; processors are drawn as Table II has them.

    The clock of a first period, and of fixed resources, is that of ``compute`` divided among the
    tasks, since they compute side by side.
    """
    rng = generator(seed, Stream.PROCESSOR)
    settings = {name: getattr(method, name) for name in PeriodSettings.model_fields}
    return SchedulingConfig(
        **settings,
        window_s=duration_s,
        tasks=tuple(_task(task, task.training) for task in tasks.values()),
        first_cpu_hz=compute.cpu_hz / len(tasks),
        capacitance_j_s2=tuple(
            _drawn(rng, method.capacitance_j_s2, compute.capacitance_j_s2, (devices,)).tolist()
        ),
        cycles_per_sample=tuple(
            tuple(row)
            for row in _drawn(
                rng, method.cycles_per_sample, compute.cycles_per_sample, (devices, len(tasks))
            ).tolist()
        ),
    )


def _task(task: LearningTask, training: TrainingConfig) -> TaskScheduling:
    return TaskScheduling(
        importance=task.importance,
        energy_weight=task.energy_weight,
        learning_rate=training.learning_rate,
        proximal=training.proximal,
        steps=training.steps_for(1),
        batch_size=training.batch_size,
    )


def _drawn(
    rng: np.random.Generator, limits: Interval | None, given: float, shape: tuple[int, ...]
) -> np.ndarray:
    return np.full(shape, given) if limits is None else rng.uniform(*limits, shape)
