"""What the packets of one update amount to: entries, whatever parts of them arrived.

Packets may hold entries, or their signs and moduli apart. From any subset of an update's packets,
in any order, this makes the entries that count:

* an entry that arrived as such counts, also where several packets add up to it;
* what only refines entries (the lower bit planes) counts where what it refines arrived;
* of entries whose sign and modulus arrived, their exact product counts;
* a sign alone counts with a modulus that stands in for the missing one, if there is one;
* a modulus alone does not count.

Server and device use the same code, so that a device knows what became of its update.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import fsum

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import codecs
from fadelab_proto.codecs import Chunk, CodecError, Part, Segment
from fadelab_proto.packet import Packet
from fadelab_proto.runs import NO_RUNS, Runs, complement, difference, union, within
from fadelab_proto.substitutes import (
    ConstantModulus,
    LastStep,
    MeanModulus,
    ModulusOf,
    SubstituteConfig,
)

F32 = NDArray[np.float32]
Coded = Chunk | Packet
_BLOCK = 1 << 16
"""Coordinates of a segment that is made here: as many as fit into a processor's cache."""


@dataclass(frozen=True, slots=True)
class _Signs:
    """The signs of one packet, one bit for each, set for numbers below 0."""

    first: int
    count: int
    packed: NDArray[np.uint8]

    def give(self, moduli: F32, first: int) -> Segment:
        """Return moduli of coordinates from ``first`` on, which lie in the packet, with signs."""
        skip = first - self.first
        bits = np.unpackbits(
            self.packed[skip // 8 :], count=skip % 8 + len(moduli), bitorder="little"
        )[skip % 8 :]
        # A float32's highest bit is its sign: setting it is exact, and faster than multiplying.
        flipped = bits.astype(np.uint32)
        np.left_shift(flipped, 31, out=flipped)
        np.bitwise_or(flipped, moduli.view(np.uint32), out=flipped)
        return Segment(first, flipped.view(np.float32))


class JoinedUpdate:
    """The entries of one update that count, as far as its packets have arrived.

    Iterating decodes one packet after another and yields segments of values that add up to the
    update; it can be done again and again. Besides what one packet takes, only the signs stay in
    memory, a bit for each. Entries are exact products: the same as the codec's own decoding gives.

    Args:
        packets: returns the packets that have arrived, in the same order at every call.
        dimension: number of the model's coordinates.
        substitute: what stands in for missing moduli, as a function of the mean of those that
            arrived (None without any); None if signs alone do not count.

    Raises:
        CodecError: if a payload is not of its format, or parts of a coordinate come twice.

    """

    def __init__(
        self,
        packets: Callable[[], Iterable[Coded]],
        dimension: int,
        substitute: Callable[[float | None], ModulusOf | None] = lambda _: None,
    ) -> None:
        self.largest = 0.0
        """No entry is larger in magnitude."""
        self._packets = packets
        self._signs: list[_Signs] = []
        self._sign_packets: set[int] = set()
        """Their positions among the packets."""
        self._survey()
        signs = _disjoint([(own.first, own.first + own.count) for own in self._signs], "signs")
        moduli = _disjoint(self._moduli, "moduli")
        lost = difference(signs, moduli, dimension)
        products = difference(signs, lost, dimension)
        self._modulus_of = substitute(self._mean_modulus()) if len(lost) else None
        self.substituted: Runs = NO_RUNS if self._modulus_of is None else lost
        """Coordinates whose sign counts with a modulus that stands in for the missing one."""
        self.unused_signs = 0 if self._modulus_of else int(np.diff(lost, axis=1).sum())
        """How many signs arrived without a modulus, and with nothing to stand in for it."""
        self._entries = union(self._values)
        covered = union(np.concatenate((self._entries, products, self.substituted)))
        self.missing: Runs = complement(covered, dimension)
        """Coordinates of which nothing that counts arrived."""
        self._signs.sort(key=lambda own: own.first)
        self._sign_firsts = [own.first for own in self._signs]

    def __iter__(self) -> Iterator[Segment]:
        """Decode the packets anew; signs that are used without their moduli come last."""
        for position, packet in enumerate(self._packets()):
            if position in self._sign_packets:
                continue
            segment = _decoded(packet)
            if segment.part is Part.MODULI:
                yield from self._products(segment)
            elif segment.refines and len(self.missing):
                yield from self._refining(segment)
            elif segment.part is Part.VALUES:
                yield segment
        yield from self._lone_signs()

    def _survey(self) -> None:
        self._values: list[tuple[int, int]] = []
        self._moduli: list[tuple[int, int]] = []
        self._sums: list[float] = []
        for position, packet in enumerate(self._packets()):
            segment = _decoded(packet)
            run = (packet.first, packet.first + packet.count)
            if segment.part is Part.SIGNS:
                packed = np.packbits(segment.values < 0, bitorder="little")
                self._signs.append(_Signs(packet.first, packet.count, packed))
                self._sign_packets.add(position)
                continue
            self.largest = max(self.largest, segment.magnitude_bound())
            if segment.part is Part.MODULI:
                self._moduli.append(run)
                self._sums.append(float(segment.values.sum(dtype=np.float64)))
            elif not segment.refines:
                self._values.append(run)

    def _mean_modulus(self) -> float | None:
        count = sum(last - first for first, last in self._moduli)
        return fsum(self._sums) / count if count else None

    def _products(self, moduli: Segment) -> Iterator[Segment]:
        last = moduli.first + len(moduli.values)
        at = max(0, bisect_right(self._sign_firsts, moduli.first) - 1)
        while at < len(self._signs) and (signs := self._signs[at]).first < last:
            begin, end = max(moduli.first, signs.first), min(last, signs.first + signs.count)
            for first in range(begin, end, _BLOCK):
                block = moduli.values[
                    first - moduli.first : min(end, first + _BLOCK) - moduli.first
                ]
                yield signs.give(block, first)
            at += 1

    def _refining(self, segment: Segment) -> Iterator[Segment]:
        values, first = segment.values, segment.first
        for begin, end in within(self._entries, first, first + len(values)):
            yield replace(segment, first=begin, content=values[begin - first : end - first])

    def _lone_signs(self) -> Iterator[Segment]:
        if self._modulus_of is None:
            return
        for signs in self._signs:
            for begin, end in within(self.substituted, signs.first, signs.first + signs.count):
                for first in range(begin, end, _BLOCK):
                    yield signs.give(self._modulus_of(first, min(end, first + _BLOCK)), first)


def stand_in(
    config: SubstituteConfig | None, last_step: ModulusOf | None
) -> Callable[[float | None], ModulusOf | None]:
    """Return what :class:`JoinedUpdate` takes as ``substitute``.

    Args:
        config: what stands in for missing moduli; None if nothing does.
        last_step: the moduli of the global model's last step; None if it has not made one.

    """
    match config:
        case None:
            return lambda _: None
        case MeanModulus():
            return lambda mean: None if mean is None else partial(_constant, mean)
        case ConstantModulus(modulus=modulus):
            return lambda _: partial(_constant, modulus)
        case LastStep():
            return lambda _: last_step


def _constant(modulus: float, first: int, last: int) -> F32:
    return np.full(last - first, modulus, dtype=np.float32)


def _decoded(packet: Coded) -> Segment:
    return codecs.decode(packet.codec, packet.payload, first=packet.first, count=packet.count)


def _disjoint(runs: list[tuple[int, int]], what: str) -> Runs:
    merged = union(runs)
    if sum(last - first for first, last in runs) != int(np.diff(merged, axis=1).sum()):
        raise CodecError(f"the {what} of some coordinates came twice")
    return merged
