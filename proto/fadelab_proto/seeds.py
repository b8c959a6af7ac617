"""Named, seeded random generators: the only source of randomness in Fadelab.

Every generator is derived from the experiment's one seed, a named stream and optional keys (a
device number, an update number). Streams are independent, so adding a draw to one never shifts
another, and two runs with the same seed make the same choices.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The purposes for which random numbers are drawn. Values are part of the seed: never reuse."""

    DATA = 1
    MODEL = 2
    MOBILITY = 3
    CHANNEL = 4
    LOSS = 5
    TRAINING = 6
    CODEC = 7
    DOWNLINK = 8
    DRIFT = 9
    RECEPTION = 10
    TASK = 11
    PROCESSOR = 12
    PROBE = 13


def generator(seed: int, stream: Stream, *keys: int) -> np.random.Generator:
    """Return the generator of ``stream`` for ``keys``, the same for the same arguments.

    Args:
        seed: the experiment's seed, >= 0.
        stream: what the numbers are for.
        keys: further distinctions, each >= 0, such as device number and update number.

    """
    # As a spawn key, not as entropy: entropy is padded with zeros, so a trailing key of 0 would be
    # the same as none.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream), *keys)))
