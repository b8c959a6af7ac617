"""The packet filter that loses packets by a seeded Gilbert-Elliott chain per packet class."""

from collections.abc import Sequence

from fadelab_emulation.backends.impairment.bpf import (
    Alu,
    Assembler,
    Jump,
    Register,
    SharedTable,
    Size,
)
from fadelab_emulation.backends.impairment.chain import MULTIPLIER, XORSHIFT
from fadelab_emulation.backends.plan import ClassMark

CHAIN = 0
"""u64 at this offset of a record: random state, and in bit 32 whether the chain is bad."""
ARRIVED, LOST = 8, 16
"""u64 counters."""
IN_GOOD, IN_BAD, TO_BAD, TO_GOOD = 24, 28, 32, 36
"""u32 thresholds, in the order of LaneLoss."""
RECORD_BYTES = 64
"""One cache line for each class at each port."""

_ATTEMPTS = 4
"""How often a processor tries again when another one took the same random number meanwhile."""
_TC_ACT_UNSPEC, _TC_ACT_SHOT = -1, 2
_TOS, _FRAGMENT, _PROTOCOL = 1, 6, 9
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
_TCP, _UDP = 6, 17

R0, R1, R2, R3, R4, R5 = (Register(number) for number in range(6))
_CONTEXT, _RECORD = Register.R6, Register.R7
_HEADER_BYTES = _TAKEN = Register.R8
_TRIES = Register.R9


def loss_program(table: SharedTable, offset: int, classes: Sequence[ClassMark]) -> bytes:
    """Return the program of one port, whose records start at ``offset`` of the table.

    A surviving packet goes on to the next filter (TC_ACT_UNSPEC), a lost one ends here.
    """
    asm = Assembler()
    asm.alu(Alu.MOVE, _CONTEXT, R1)
    asm.load_table(_RECORD, table, offset)
    _find_record(asm, classes)
    _move_chain(asm)
    _judge(asm)
    return asm.assemble()


def _find_record(asm: Assembler, classes: Sequence[ClassMark]) -> None:
    """Advance to the record of the packet's class, by the rules of :mod:`~.backends.classes`."""
    dscps = [(lane, m.dscp) for lane, m in enumerate(classes, 1) if m.dscp is not None]
    ports = [(lane, m.port) for lane, m in enumerate(classes, 1) if m.port is not None]
    if dscps:
        asm.load_ip(Size.BYTE, _TOS)
        asm.alu(Alu.SHIFT_RIGHT, R0, 2)
    for lane, dscp in dscps:
        asm.alu(Alu.MOVE, R2, lane * RECORD_BYTES)
        asm.jump("found", Jump.EQUAL, R0, dscp)
    if ports:
        _load_ports(asm)
    for lane, port in ports:
        asm.alu(Alu.MOVE, R2, lane * RECORD_BYTES)
        asm.jump("found", Jump.EQUAL, R0, port)
        asm.jump("found", Jump.EQUAL, R1, port)
    asm.label("default")
    asm.alu(Alu.MOVE, R2, 0)
    asm.label("found")
    asm.alu(Alu.ADD, _RECORD, R2)


def _load_ports(asm: Assembler) -> None:
    """Load the ports into R0 and R1; a packet without them belongs to the default class."""
    asm.load_ip(Size.HALF, _FRAGMENT)
    asm.alu(Alu.AND, R0, _MORE_FRAGMENTS_OR_OFFSET)
    asm.jump("default", Jump.NOT_EQUAL, R0, 0)
    asm.load_ip(Size.BYTE, _PROTOCOL)
    asm.jump("ports", Jump.EQUAL, R0, _TCP)
    asm.jump("default", Jump.NOT_EQUAL, R0, _UDP)
    asm.label("ports")
    asm.load_ip(Size.BYTE, 0)
    asm.alu(Alu.AND, R0, 0x0F)
    asm.alu(Alu.SHIFT_LEFT, R0, 2)
    asm.alu(Alu.MOVE, _HEADER_BYTES, R0)
    asm.load_ip(Size.WORD, 0, beyond=_HEADER_BYTES)
    asm.alu(Alu.MOVE, R1, R0)
    asm.alu(Alu.AND, R1, 0xFFFF)
    asm.alu(Alu.SHIFT_RIGHT, R0, 16)


def _move_chain(asm: Assembler) -> None:
    """Move the chain and leave the second random number in R4, its threshold in R5.

    The chain is one 64-bit word that is exchanged only if no other processor did so meanwhile:
    each packet takes its own pair of random numbers, in the order in which packets come. The rest
    has no branches, because the kernel walks through every path of a program that it loads.
    """
    asm.alu(Alu.MOVE, _TRIES, _ATTEMPTS)
    asm.label("again")
    asm.load(Size.DOUBLE, _TAKEN, _RECORD, CHAIN)
    asm.alu32(Alu.MOVE, R1, _TAKEN)
    asm.alu(Alu.MOVE, R2, _TAKEN)
    asm.alu(Alu.SHIFT_RIGHT, R2, 32)
    _random(asm)
    _load_threshold(asm, TO_BAD)
    # R4 - R5 - 1 is negative if R4 <= R5: its sign bit says whether the state changes.
    asm.alu(Alu.SUBTRACT, R4, R5)
    asm.alu(Alu.SUBTRACT, R4, 1)
    asm.alu(Alu.SHIFT_RIGHT, R4, 63)
    asm.alu(Alu.XOR, R2, R4)
    _random(asm)
    _load_threshold(asm, IN_GOOD)
    asm.alu(Alu.SHIFT_LEFT, R2, 32)
    asm.alu(Alu.OR, R2, R1)
    asm.alu(Alu.MOVE, R0, _TAKEN)
    asm.compare_and_swap(_RECORD, CHAIN, R2)
    asm.jump("judge", Jump.EQUAL, R0, _TAKEN)
    asm.alu(Alu.SUBTRACT, _TRIES, 1)
    asm.jump("again", Jump.NOT_EQUAL, _TRIES, 0)


def _load_threshold(asm: Assembler, offset: int) -> None:
    """Load into R5 the good (R2 = 0) or bad (R2 = 1) state's threshold; R3 is lost.

    The mask changes nothing, but shows the kernel that no other memory can be meant.
    """
    asm.alu(Alu.MOVE, R3, R2)
    asm.alu(Alu.AND, R3, 1)
    asm.alu(Alu.SHIFT_LEFT, R3, 2)
    asm.alu(Alu.ADD, R3, _RECORD)
    asm.load(Size.WORD, R5, R3, offset)


def _random(asm: Assembler) -> None:
    """Advance the random state in R1 and put its random number into R4; R3 is lost."""
    for shift, bits in zip(
        (Alu.SHIFT_LEFT, Alu.SHIFT_RIGHT, Alu.SHIFT_LEFT), XORSHIFT, strict=True
    ):
        asm.alu32(Alu.MOVE, R3, R1)
        asm.alu32(shift, R3, bits)
        asm.alu32(Alu.XOR, R1, R3)
    asm.alu32(Alu.MOVE, R4, R1)
    asm.alu32(Alu.MULTIPLY, R4, MULTIPLIER)


def _judge(asm: Assembler) -> None:
    """Count the packet; lose it if the random number in R4 is at most R5."""
    asm.label("judge")
    asm.alu(Alu.MOVE, R1, 1)
    asm.atomic_add(_RECORD, ARRIVED, R1)
    asm.alu(Alu.MOVE, R0, _TC_ACT_UNSPEC)
    asm.jump("leave", Jump.GREATER, R4, R5)
    asm.atomic_add(_RECORD, LOST, R1)
    asm.alu(Alu.MOVE, R0, _TC_ACT_SHOT)
    asm.label("leave")
    asm.leave()
