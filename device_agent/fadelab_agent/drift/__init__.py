"""Local samples that change in emulated time; one file each for what a device holds when."""

from typing import assert_never

import numpy as np

from fadelab_agent.drift.base import DriftTime, LocalSet, Part
from fadelab_agent.drift.growing import growing
from fadelab_agent.drift.label_shift import label_shift
from fadelab_agent.drift.rotation import RotatedPictures, rotated, rotation
from fadelab_agent.drift_config import (
    DriftConfig,
    GrowingDrift,
    LabelShiftDrift,
    NoDrift,
    RotationDrift,
)
from fadelab_agent.partition import Indices

__all__ = [
    "DriftTime",
    "LocalSet",
    "Part",
    "RotatedPictures",
    "local_set",
    "rotated",
]


def local_set(config: DriftConfig, part: Part, time: DriftTime) -> LocalSet:
    """Return what a device holds after some time; the same arguments always give the same set.

    Args:
        config: how samples change.
        part: the device's part of the task's samples.
        time: how long it has waited and computed.

    """
    match config:
        case NoDrift():
            return LocalSet(part.indices)
        case GrowingDrift():
            chosen = growing(config, part, time.periods(config))
        case LabelShiftDrift():
            chosen = label_shift(config, part, time.periods(config))
        case RotationDrift():
            return LocalSet(part.indices, rotation(config, time.periods(config)))
        case _:
            assert_never(config)
    ordered: Indices = np.sort(chosen)
    return LocalSet(ordered)
