"""Classic BPF programs, written with labels instead of counted jumps.

Classic BPF needs no privilege besides that of installing a filter, so it works for an ordinary
user in a user namespace, where eBPF does not (kernel: Documentation/networking/filter.rst).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

_INSTRUCTION = struct.Struct("=HBBI")
_MAX_INSTRUCTIONS = 4096


class Operation(IntEnum):
    """The instructions used here; A is the accumulator, X the index register, M the memory."""

    LOAD_WORD = 0x20
    LOAD_HALF = 0x28
    LOAD_BYTE = 0x30
    LOAD_HALF_BEHIND_X = 0x48
    LOAD_MEMORY = 0x60
    STORE_MEMORY = 0x02
    LOAD_X_HEADER_LENGTH = 0xB1
    """X = 4 * (the low four bits of the byte at k): the length of an IPv4 header."""
    AND = 0x54
    JUMP_IF_EQUAL = 0x15
    JUMP_IF_GREATER = 0x25
    JUMP_IF_ANY_BIT = 0x45
    JUMP = 0x05
    RETURN = 0x06


RANDOM = 0xFFFFF038
"""Address of a fresh random word (SKF_AD_OFF + SKF_AD_RANDOM)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction; without a label a jump goes on with the next one."""

    operation: Operation
    k: int = 0
    then: str | None = None
    otherwise: str | None = None


Program = Sequence[Step | str]
"""Steps, and labels that stand before the step they name."""


def assemble(program: Program) -> bytes:
    """Return the program's instructions. Raises ValueError where it is longer than allowed."""
    places: dict[str, int] = {}
    steps: list[Step] = []
    for item in program:
        if isinstance(item, str):
            places[item] = len(steps)
        else:
            steps.append(item)
    if len(steps) > _MAX_INSTRUCTIONS:
        raise ValueError(
            f"a classic filter holds {_MAX_INSTRUCTIONS} instructions, not {len(steps)}"
        )
    return b"".join(_encode(step, at, places) for at, step in enumerate(steps))


def _encode(step: Step, at: int, places: dict[str, int]) -> bytes:
    def distance(label: str | None) -> int:
        return 0 if label is None else places[label] - at - 1

    if step.operation is Operation.JUMP:
        return _INSTRUCTION.pack(step.operation, 0, 0, distance(step.then))
    return _INSTRUCTION.pack(
        step.operation, distance(step.then), distance(step.otherwise), step.k & 0xFFFFFFFF
    )
