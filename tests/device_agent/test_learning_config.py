"""The learning part of an experiment: impossible values are refused where they are written."""

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from fadelab_agent.config import (
    ClassesPerDevicePartition,
    ComputeConfig,
    DirichletPartition,
    MlpModel,
    PartitionConfig,
    TaskConfig,
    TrainingConfig,
)


def test_kinds_select_the_alternatives() -> None:
    task = TaskConfig.model_validate({"name": "digits", "model": {"kind": "mlp", "hidden": 128}})
    assert task.model == MlpModel(hidden=128)
    adapter: TypeAdapter[PartitionConfig] = TypeAdapter(PartitionConfig)
    assert adapter.validate_python({"kind": "dirichlet", "beta": 0.1}) == DirichletPartition(
        beta=0.1
    )
    assert adapter.validate_python({"kind": "classes_per_device", "counts": [1, 5]}) == (
        ClassesPerDevicePartition(counts=(1, 5))
    )


@pytest.mark.parametrize(
    "task",
    [
        {"name": "imagenet"},
        {"name": "digits", "model": {"kind": "mlp", "hidden": 0}},
        {"name": "digits", "model": {"kind": "cnn_466k"}},
        {"name": "digits", "modle": {"kind": "mlp"}},
    ],
)
def test_impossible_tasks_are_refused(task: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TaskConfig.model_validate(task)


@pytest.mark.parametrize(
    "change",
    [
        {"local_epochs": 1},
        {"local_steps": None},
        {"local_steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"proximal": -0.1},
    ],
)
def test_impossible_training_is_refused(change: dict[str, object]) -> None:
    valid = {"local_steps": 10, "batch_size": 32, "learning_rate": 0.1}
    TrainingConfig.model_validate(valid)
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(valid | change)


def test_impossible_partitions_and_processors_are_refused() -> None:
    with pytest.raises(ValidationError):
        DirichletPartition(beta=0.0)
    with pytest.raises(ValidationError):
        ClassesPerDevicePartition(counts=())
    with pytest.raises(ValidationError):
        ComputeConfig(cpu_hz=-1.0)


def test_epochs_count_whole_batches() -> None:
    config = TrainingConfig(local_epochs=3, batch_size=32, learning_rate=0.1)
    assert config.steps_for(100) == 9
    assert config.steps_for(5) == 3
    assert config.batch_for(5) == 5
    assert TrainingConfig(local_steps=7, batch_size=32, learning_rate=0.1).steps_for(100) == 7


def test_reading_an_experiment_does_not_import_torch() -> None:
    code = (
        "import sys, fadelab_agent.config, fadelab_agent.compute; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
