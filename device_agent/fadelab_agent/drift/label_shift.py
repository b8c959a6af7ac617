"""The mix of classes in the local set moves while its size stays."""

import numpy as np

from fadelab_agent.drift.base import Part
from fadelab_agent.drift_config import LabelShiftDrift
from fadelab_agent.partition import Indices


def label_shift(config: LabelShiftDrift, part: Part, periods: int) -> Indices:
    """Return the samples that are held after some periods.

    Of each class the first ones in the part's order are held, so that no more change than must.
    """
    classes = len(part.group_order)
    rank = np.arange(classes) / max(1, classes - 1)
    progress = min(1.0, periods / config.periods)
    weight = (1 - progress) * (1 - rank) + progress * rank if classes > 1 else np.ones(1)
    supply = np.array([int((part.groups == group).sum()) for group in part.group_order])
    size = max(1, round(config.share * len(part.shuffled)))
    counts = _counts(weight / weight.sum() * size, supply, size)
    return np.concatenate(
        [
            part.shuffled[part.groups == group][:count]
            for group, count in zip(part.group_order, counts, strict=True)
        ]
    )


def _counts(wanted: np.ndarray, supply: Indices, size: int) -> Indices:
    """Round to whole numbers that add up to ``size``; what one class lacks others make up for."""
    counts: Indices = np.minimum(np.floor(wanted).astype(np.int64), supply)
    while (lacking := size - int(counts.sum())) > 0:
        room = np.flatnonzero(counts < supply)
        # Who is furthest below its wish goes first.
        first = room[np.argsort(counts[room] - wanted[room], kind="stable")][:lacking]
        counts[first] += 1
    return counts
