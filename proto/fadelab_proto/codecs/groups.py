"""Runs of consecutive coordinates that share a scale: the whole vector, blocks, or layers.

A packet that covers some of the coordinates says where its groups begin (little-endian)::

    u32  number of groups m, at least 1
    only if m > 1:
    u32  coordinates of the first group within the packet
    u32  coordinates of each group between first and last, or 0 if these differ
    u32  each of these m - 2, if they differ

The last group takes the rest.
"""

import struct
from dataclasses import dataclass

import numpy as np

from fadelab_proto.codecs.base import CodecError, Index

_NUMBER = struct.Struct("<I")
_SIZES = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Groups:
    """How the coordinates of a vector are divided; without arguments, not at all.

    Args:
        block: coordinates of each group, the last one possibly shorter.
        layers: coordinates of each group, in order; they add up to the vector's.

    """

    block: int | None = None
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.block is not None and self.layers is not None:
            raise CodecError("scales are shared by blocks or by layers, not by both")
        if self.block is not None and self.block < 1:
            raise CodecError(f"a block of {self.block} coordinates is too small; at least 1")
        if self.layers is not None and (not self.layers or min(self.layers) < 1):
            raise CodecError("every layer must have at least one coordinate")

    def starts(self, dimension: int) -> Index:
        """Return the first coordinate of each group of a vector, beginning with 0.

        Raises:
            CodecError: if the layers do not add up to the vector.

        """
        if self.layers is not None:
            if sum(self.layers) != dimension:
                raise CodecError(
                    f"the layers have {sum(self.layers)} coordinates together, "
                    f"the vector has {dimension}"
                )
            return np.concatenate(([0], np.cumsum(self.layers[:-1], dtype=np.int64)))
        return np.arange(0, dimension, self.block or max(1, dimension), dtype=np.int64)


def write_groups(starts: Index) -> bytes:
    """Return the description of groups that begin at ``starts``, the first of them at 0."""
    if len(starts) == 1:
        return _NUMBER.pack(1)
    sizes = np.diff(starts)
    between = sizes[1:]
    alike = int(between[0]) if len(between) and (between == between[0]).all() else 0
    head = _NUMBER.pack(len(starts)) + _SIZES.pack(int(sizes[0]), alike)
    return head if alike else head + between.astype("<u4").tobytes()


def read_groups(payload: memoryview, count: int, *, scale_bytes: int) -> tuple[Index, memoryview]:
    """Return where the groups of a packet's coordinates begin, and what follows their description.

    Args:
        payload: begins with a description.
        count: coordinates that the packet covers.
        scale_bytes: what follows for every group at least, which bounds their number.

    Raises:
        CodecError: if the payload does not begin with groups of that many coordinates.

    """
    if len(payload) < _NUMBER.size:
        raise CodecError("the payload ends within the description of its groups")
    (groups,), rest = _NUMBER.unpack_from(payload), payload[_NUMBER.size :]
    if not 1 <= groups <= min(count, len(payload) // scale_bytes):
        raise CodecError(
            f"{len(payload)} payload bytes cannot scale {groups} groups of {count} coordinates"
        )
    if groups == 1:
        return np.zeros(1, dtype=np.int64), rest
    (first, alike), rest = _take(rest, 2)
    if alike:
        between = np.full(groups - 2, alike)
    else:
        between, rest = _take(rest, groups - 2)
    sizes = np.concatenate(([first], between))
    starts = np.concatenate(([0], np.cumsum(sizes)))
    if sizes.min() < 1 or starts[-1] >= count:
        raise CodecError(f"the groups do not fit into {count} coordinates")
    return starts, rest


def _take(payload: memoryview, numbers: int) -> tuple[Index, memoryview]:
    if len(payload) < 4 * numbers:
        raise CodecError("the payload ends within the description of its groups")
    taken = np.frombuffer(payload, dtype="<u4", count=numbers).astype(np.int64)
    return taken, payload[4 * numbers :]
