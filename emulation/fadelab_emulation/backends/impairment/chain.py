"""The seeded Gilbert-Elliott chain, in Python: what the eBPF program in the kernel does, bit for bit.

The user-space relay loses packets by it, and tests hold the kernel against it.

Random numbers are those of a xorshift generator of 32 bits with the shifts 13, 17, 5 (G. Marsaglia,
"Xorshift RNGs", J. Stat. Softw. 8(14), 2003). Its raw numbers are linear over GF(2), which shows
when two of them decide about one packet; each is therefore multiplied by an odd constant, the one
of xoroshiro64* (D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", ACM
Trans. Math. Softw. 47(4), 2021). Both steps are bijections that leave 0 where it is, so a number
is never 0 and every other one is equally likely.
"""

import numpy as np

from fadelab_emulation.backends.impairment.base import Direction, LaneLoss
from fadelab_emulation.link_state import BoolArray
from fadelab_proto.seeds import Stream, generator

MULTIPLIER = 0x9E3779BB
XORSHIFT = (13, 17, 5)
"""Shift left, right, left."""
HIGHEST = 0xFFFFFFFF
"""The highest random number; the lowest is 1."""
_SCALE = float(HIGHEST)


def first_state(seed: int, device: int, direction: Direction, lane: int) -> int:
    """Return the random state from which a packet class at a port starts: 1 .. 2^32 - 1.

    ``lane`` is 0 for the default class.
    """
    draw = generator(seed, Stream.LOSS, device, int(direction), lane)
    return int(draw.integers(1, HIGHEST, endpoint=True))


def thresholds(loss: LaneLoss) -> tuple[int, int, int, int]:
    """Return for each probability a T such that a random number is at most T that often.

    As no number is 0 and none above 2^32 - 1, probability 0 never happens and 1 always does.
    """
    in_good, in_bad, to_bad, to_good = loss
    # Written out, because links change at every tick: a loop takes twice as long.
    return (
        int(in_good * _SCALE),
        int(in_bad * _SCALE),
        int(to_bad * _SCALE),
        int(to_good * _SCALE),
    )


def next_state(state: int) -> int:
    """Return the xorshift state that follows; the random number it stands for is ``scrambled``."""
    left, right, again = XORSHIFT
    state ^= (state << left) & HIGHEST
    state ^= state >> right
    return state ^ ((state << again) & HIGHEST)


def scrambled(state: int) -> int:
    """Return the random number of a state."""
    return (state * MULTIPLIER) & HIGHEST


class LossChain:
    """Loses the packets of one class at one port.

    Every packet takes two random numbers, whatever the probabilities: the first moves the chain
    between its good and its bad state, the second decides by the state that was reached. So the
    fate of the k-th packet depends on the seed and the probabilities in force, on nothing else.
    It starts in the good state. ``random_state`` is what :func:`first_state` returns.
    """

    __slots__ = ("_bad", "_state", "_thresholds")

    def __init__(self, random_state: int, loss: LaneLoss) -> None:
        if not 0 < random_state <= HIGHEST:
            raise ValueError(f"a random state lies in 1 .. {HIGHEST}, not at {random_state}")
        self._state = random_state
        self._bad = False
        self.change(loss)

    def change(self, loss: LaneLoss) -> None:
        """Set the probabilities; the random numbers and the chain's state go on as they are."""
        self._thresholds = thresholds(loss)

    def lost(self) -> bool:
        """Return the next packet's fate."""
        in_good, in_bad, to_bad, to_good = self._thresholds
        self._state = next_state(self._state)
        if scrambled(self._state) <= (to_good if self._bad else to_bad):
            self._bad = not self._bad
        self._state = next_state(self._state)
        return scrambled(self._state) <= (in_bad if self._bad else in_good)


def loss_sequence(random_state: int, loss: LaneLoss, packets: int) -> BoolArray:
    """Return the fates of the first packets of a chain, true where lost, shape ``(packets,)``."""
    chain = LossChain(random_state, loss)
    return np.fromiter((chain.lost() for _ in range(packets)), dtype=np.bool_, count=packets)
