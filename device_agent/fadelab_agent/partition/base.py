"""What every partition shares: the parts it returns and how they are cut to equal size."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class PartitionError(ValueError):
    """The samples cannot be divided as asked; the message is one sentence for the user."""


def cut_to_smallest(parts: list[Indices], rng: np.random.Generator) -> list[Indices]:
    """Leave samples out at random until every part is as small as the smallest."""
    size = min(len(part) for part in parts)
    return [rng.choice(part, size, replace=False) for part in parts]
