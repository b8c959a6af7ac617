"""The bpf(2) system call and an assembler for eBPF, as far as loss needs them."""

import ctypes
import errno
import mmap
import os
import platform
import struct
from enum import IntEnum

_SYSTEM_CALL = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _PROG_LOAD = 0, 5
_MAP_TYPE_ARRAY = 2
_PROG_TYPE_SCHED_CLS = 3
_F_MMAPABLE = 1 << 10
_ATTRIBUTE_BYTES = 144
_LOG_BYTES = 1 << 16
_MAP_CREATE_ATTRIBUTES = struct.Struct("=IIIII")
_PROG_LOAD_ATTRIBUTES = struct.Struct("=IIQQIIQ")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class BpfRefusedError(OSError):
    """eBPF cannot be had here; the text is one sentence with the cause and one with the remedy."""


def _refusal(number: int, log: str = "") -> BpfRefusedError:
    if number in (errno.EPERM, errno.EACCES) and not log:
        return BpfRefusedError(
            "Seeded loss needs eBPF, which this kernel grants to nobody but root outside user "
            "namespaces and containers. Run as root, in a container with `--cap-add BPF --cap-add "
            "NET_ADMIN`, or ask for independent losses."
        )
    if number == errno.ENOSYS:
        return BpfRefusedError(
            "Seeded loss needs eBPF, which this kernel or processor architecture "
            f"({platform.machine()}) does not offer. Use a kernel with CONFIG_BPF_SYSCALL on "
            "x86_64 or aarch64, or ask for independent losses."
        )
    # The log ends with the reason and, behind it, statistics.
    said = [line for line in log.strip().splitlines() if not line.startswith("processed ")]
    detail = ": ".join([os.strerror(number), *said[-1:]])
    return BpfRefusedError(
        f"The kernel refused the eBPF program for seeded loss ({detail}). Use Linux 5.12 or later, "
        "or ask for independent losses."
    )


def _bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2); returns a descriptor or a negative error number."""
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        return -errno.ENOSYS
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTE_BYTES)
    result = _libc.syscall(
        ctypes.c_long(number), ctypes.c_long(command), buffer, ctypes.c_ulong(_ATTRIBUTE_BYTES)
    )
    return int(result) if result >= 0 else -ctypes.get_errno()


class SharedTable:
    """Memory that eBPF programs and this process share: an array map of one large value."""

    def __init__(self, size_bytes: int) -> None:
        """Raise BpfRefusedError where it cannot be had."""
        attributes = _MAP_CREATE_ATTRIBUTES.pack(_MAP_TYPE_ARRAY, 4, size_bytes, 1, _F_MMAPABLE)
        self.descriptor = _bpf(_MAP_CREATE, attributes)
        if self.descriptor < 0:
            raise _refusal(-self.descriptor)
        page = mmap.PAGESIZE
        self.memory = mmap.mmap(self.descriptor, (size_bytes + page - 1) // page * page)

    def close(self) -> None:
        """Let go of it; it lives on as long as a program uses it."""
        self.memory.close()
        os.close(self.descriptor)


class Register(IntEnum):
    """The registers: R0 result, R1 to R5 scratch, R6 to R9 kept over packet loads."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9


class Size(IntEnum):
    """Size bits of a load or store."""

    WORD = 0x00
    HALF = 0x08
    BYTE = 0x10
    DOUBLE = 0x18


class Jump(IntEnum):
    """Comparisons of 64-bit registers, unsigned."""

    ALWAYS = 0x00
    EQUAL = 0x10
    GREATER = 0x20
    NOT_EQUAL = 0x50
    GREATER_OR_EQUAL = 0x30


class Alu(IntEnum):
    """Arithmetic."""

    ADD = 0x00
    SUBTRACT = 0x10
    MULTIPLY = 0x20
    OR = 0x40
    AND = 0x50
    SHIFT_LEFT = 0x60
    SHIFT_RIGHT = 0x70
    XOR = 0xA0
    MOVE = 0xB0


_INSTRUCTION = struct.Struct("=BBhi")
_BY_REGISTER = 0x08
_PSEUDO_MAP_VALUE = 2
_ATOMIC_COMPARE_AND_SWAP = 0xF1
_NETWORK_HEADER = -0x100000
"""Offset from which packet loads count from the IP header (SKF_NET_OFF)."""


class Assembler:
    """Collects instructions (kernel: Documentation/bpf/standardization/instruction-set.rst).

    An operand that is a Register is read from it, an int is taken as it is. Jumps name a label
    that is placed by :meth:`label`, before or after.
    """

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: dict[int, str] = {}

    def label(self, name: str) -> None:
        """Give the next instruction a name."""
        self._labels[name] = len(self._code)

    def jump(
        self, target: str, how: Jump = Jump.ALWAYS, left: int = 0, right: Register | int = 0
    ) -> None:
        """Go to ``target``, always or where the comparison holds."""
        self._jumps[len(self._code)] = target
        self._binary(0x05 | how, left, right)

    def alu(self, operation: Alu, target: Register, operand: Register | int) -> None:
        """Compute on 64 bits: target = target (operation) operand."""
        self._binary(0x07 | operation, target, operand)

    def alu32(self, operation: Alu, target: Register, operand: Register | int) -> None:
        """Compute on the lower 32 bits; the upper ones become 0."""
        self._binary(0x04 | operation, target, operand)

    def load(self, size: Size, target: Register, base: Register, offset: int) -> None:
        """Read memory at ``base + offset``."""
        self._emit(0x61 | size, target, base, offset)

    def load_table(self, target: Register, table: SharedTable, offset: int) -> None:
        """Point a register into a shared table."""
        self._emit(0x18, target, _PSEUDO_MAP_VALUE, 0, table.descriptor)
        self._emit(0, 0, 0, 0, offset)

    def load_ip(self, size: Size, offset: int, beyond: Register | None = None) -> None:
        """Read the packet into R0, in host order, ``offset`` (+ ``beyond``) behind its IP header.

        R6 must hold the program's context; R1 to R5 are lost. A packet that ends before ends the
        program with result 0.
        """
        if beyond is None:
            self._emit(0x20 | size, 0, 0, 0, _NETWORK_HEADER + offset)
        else:
            self._emit(0x40 | size, 0, beyond, 0, _NETWORK_HEADER + offset)

    def atomic_add(self, base: Register, offset: int, operand: Register) -> None:
        """Add to a 64-bit word of memory."""
        self._emit(0xDB, base, operand, offset)

    def compare_and_swap(self, base: Register, offset: int, new: Register) -> None:
        """Store ``new`` if a 64-bit word of memory equals R0; R0 becomes what was there."""
        self._emit(0xDB, base, new, offset, _ATOMIC_COMPARE_AND_SWAP)

    def leave(self) -> None:
        """End the program; R0 is its result."""
        self._emit(0x95)

    def assemble(self) -> bytes:
        """Return the program's bytes."""
        offsets = {at: self._labels[label] - at - 1 for at, label in self._jumps.items()}
        return b"".join(
            _INSTRUCTION.pack(operation, source << 4 | target, offsets.get(at, offset), immediate)
            for at, (operation, target, source, offset, immediate) in enumerate(self._code)
        )

    def _binary(self, operation: int, target: int, operand: Register | int) -> None:
        if isinstance(operand, Register):
            self._emit(operation | _BY_REGISTER, target, operand)
        else:
            self._emit(operation, target, 0, 0, operand)

    def _emit(
        self, operation: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0
    ) -> None:
        signed = (immediate + 0x80000000) % 0x100000000 - 0x80000000
        self._code.append((operation, target, source, offset, signed))


def load_classifier(code: bytes) -> int:
    """Have the kernel check a packet classifier and return its descriptor.

    Raises BpfRefusedError. The kernel is asked for its reasons only after a refusal: writing them
    down doubles the time a program takes to load.
    """
    program, license_text = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")

    def load(level: int, log: ctypes.Array[ctypes.c_char] | None) -> int:
        where = ctypes.addressof(log) if log is not None else 0
        attributes = _PROG_LOAD_ATTRIBUTES.pack(
            _PROG_TYPE_SCHED_CLS,
            len(code) // 8,
            ctypes.addressof(program),
            ctypes.addressof(license_text),
            level,
            len(log) if log is not None else 0,
            where,
        )
        return _bpf(_PROG_LOAD, attributes)

    descriptor = load(0, None)
    if descriptor < 0:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        load(1, log)
        raise _refusal(-descriptor, log.value.decode(errors="replace"))
    return descriptor
