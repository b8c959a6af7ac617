"""What all devices of a task share; apart from the workbench so that reading it needs no torch."""

from pydantic import Field

from fadelab_agent.config import PartitionConfig, TaskConfig, TrainingConfig
from fadelab_proto.config import StrictModel


class WorkbenchConfig(StrictModel):
    """One task, how it is divided and how it is trained."""

    task: TaskConfig
    partition: PartitionConfig
    training: TrainingConfig
    devices: int = Field(ge=1)
    seed: int = Field(ge=0)
