"""A task as it begins: version 0 from a file, an empty rule."""

import numpy as np

from fadelab_server.aggregation import build_rule
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.config import ServerConfig, TaskSpec
from fadelab_server.model_steps import build_steps
from fadelab_server.model_store import ModelStore, Version
from fadelab_server.task_state import TaskState


def new_task(config: ServerConfig, spec: TaskSpec, now_s: float) -> TaskState:
    """Return the state of a task that nobody has contributed to.

    Raises:
        CheckpointError: if its file does not hold a float32 vector of the model's size.

    """
    vector = np.load(spec.initial, allow_pickle=False)
    if vector.shape != (spec.dimension,) or vector.dtype != np.float32:
        raise CheckpointError(
            f"{spec.initial} holds {vector.dtype}{list(vector.shape)}, "
            f"not float32[{spec.dimension}] for task '{spec.name}'"
        )
    return TaskState(
        spec,
        build_rule(config.aggregation, spec.dimension, seed=config.seed),
        ModelStore([Version(0, vector, now_s)], config.history_bytes),
        roster=frozenset(range(config.devices)),
        substitute=config.substitute,
        steps=build_steps(config, spec),
    )
