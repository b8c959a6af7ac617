"""Sets of numbers that mostly are runs: what has arrived of an update."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from fadelab_proto import federation_pb2 as pb


class RangeSet:
    """Non-negative integers, kept as disjoint runs of consecutive ones in order.

    Adding costs a search among the runs, of which there are few where packets come in order.
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._count = 0
        for number in numbers:
            self.add(number)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __iter__(self) -> Iterator[int]:
        for first, last in zip(self._firsts, self._lasts, strict=True):
            yield from range(first, last + 1)

    def add(self, number: int) -> bool:
        """Add a number; return whether it was new."""
        at = bisect_right(self._firsts, number) - 1
        if at >= 0 and number <= self._lasts[at]:
            return False
        self._count += 1
        follows = at >= 0 and self._lasts[at] == number - 1
        precedes = at + 1 < len(self._firsts) and self._firsts[at + 1] == number + 1
        if follows and precedes:
            self._lasts[at] = self._lasts.pop(at + 1)
            del self._firsts[at + 1]
        elif follows:
            self._lasts[at] = number
        elif precedes:
            self._firsts[at + 1] = number
        else:
            self._firsts.insert(at + 1, number)
            self._lasts.insert(at + 1, number)
        return True

    def messages(self) -> list[pb.PacketRange]:
        """Return the runs as messages."""
        return [
            pb.PacketRange(first=first, last=last)
            for first, last in zip(self._firsts, self._lasts, strict=True)
        ]
