"""What all devices of a task share; apart from the workbench so that reading it needs no torch."""

from pydantic import Field

from fadelab_agent.config import PartitionConfig, TaskConfig, TrainingConfig
from fadelab_agent.drift_config import DriftConfig, NoDrift
from fadelab_proto.config import StrictModel


class WorkbenchConfig(StrictModel):
    """One task, how it is divided and how it is trained."""

    name: str | None = Field(None, description="The task's data set's name when left out.")
    number: int = Field(0, ge=0, description="The task's, as the server counts.")
    task: TaskConfig
    partition: PartitionConfig
    training: TrainingConfig
    drift: DriftConfig = NoDrift()
    devices: int = Field(ge=1)
    seed: int = Field(ge=0)

    @property
    def task_name(self) -> str:
        """Return what server and events call the task."""
        return self.task.name if self.name is None else self.name
