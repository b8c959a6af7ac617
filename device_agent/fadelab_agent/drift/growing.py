"""Samples are added to the local set periodically (DMA-FL, arXiv 2305.13503, section VI)."""

import numpy as np

from fadelab_agent.drift.base import Part
from fadelab_agent.drift_config import GrowingDrift
from fadelab_agent.partition import Indices


def growing(config: GrowingDrift, part: Part, periods: int) -> Indices:
    """Return the samples that are held after some periods; none is ever given back."""
    samples = part.shuffled
    if config.order == "by_class":
        rank = np.empty(int(part.group_order.max()) + 1, dtype=np.int64)
        rank[part.group_order] = np.arange(len(part.group_order))
        samples = samples[np.argsort(rank[part.groups], kind="stable")]
    first = max(1, round(config.initial_share * len(samples)))
    return samples[: first + periods * config.samples_per_period]
