"""What devices learn: one task, or several that compete for their processors and uplinks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.methods import MethodConfig
from fadelab_agent.config import PartitionConfig, TaskConfig, TrainingConfig
from fadelab_agent.drift_config import DriftConfig, NoDrift
from fadelab_proto.config import StrictModel

if TYPE_CHECKING:
    from fadelab.experiment import Experiment

TaskKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""The name of one of several tasks: small letters, digits and '_', a letter first."""


class LearningTask(StrictModel):
    """One task: what is learned, how its data are divided and how devices train."""

    task: TaskConfig
    partition: PartitionConfig
    training: TrainingConfig
    importance: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="What the task's learning counts beside the others': gamma of DMA-FL.",
    )
    energy_weight: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="What the energy spent on it counts beside the others': chi of DMA-FL.",
    )
    drift: DriftConfig = Field(
        NoDrift(), description="How local samples change in time; for method dma_fl."
    )


def check_tasks(tasks: Mapping[str, LearningTask], method: MethodConfig) -> None:
    """Raise ValueError where a method cannot do what the tasks ask of it."""
    pieces = method.pieces()
    one_only = pieces.contacts or pieces.allocation or pieces.divides_radio or pieces.reports
    if len(tasks) > 1 and one_only:
        raise ValueError(
            f"method {method.name} is for one task, and tasks has {len(tasks)}: "
            "fedavg, fedasync, fedbuff, lazy and dma_fl take several"
        )
    for name, one in tasks.items():
        if one.drift.kind != "none" and pieces.periods is None:
            raise ValueError(
                f"'tasks.{name}.drift' is for method dma_fl, whose schedule can be at_once or "
                "rounds as in other methods"
            )


def check_one_task(experiment: "Experiment", where: str) -> None:
    """Refuse several tasks where processes are started that train one alone.

    Args:
        experiment: what is to be run.
        where: what cannot do it, as the sentence begins.

    Raises:
        FadelabError: USAGE.

    """
    if len(experiment.learning) > 1:
        raise FadelabError(
            ExitCode.USAGE,
            f"{where} trains one task, and the experiment has {len(experiment.learning)} under "
            "tasks: run it on this machine, without --deploy",
        )
