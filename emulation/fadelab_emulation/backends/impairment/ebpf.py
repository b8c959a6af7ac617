"""Seeded Gilbert-Elliott loss per packet class, drawn by an eBPF program in the kernel."""

import os
import struct
from collections.abc import Sequence

import numpy as np

from fadelab_emulation.backends.impairment import ebpf_program as program
from fadelab_emulation.backends.impairment.base import (
    Arrivals,
    Direction,
    Port,
    PortState,
)
from fadelab_emulation.backends.impairment.bpf import (
    BpfRefusedError,
    SharedTable,
    load_classifier,
)
from fadelab_emulation.backends.impairment.chain import first_state, thresholds
from fadelab_emulation.backends.impairment.filters import LOSS_PRIORITY, attach_program
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.netlink.message import Request

_THRESHOLDS = struct.Struct("=4I")
_CHAIN = struct.Struct("=Q")
_DIRECTIONS = len(Direction)


def ebpf_problem() -> str:
    """Return why seeded loss cannot be had here and what helps; empty if it can."""
    try:
        table = SharedTable(program.RECORD_BYTES)
    except BpfRefusedError as error:
        return str(error)
    try:
        os.close(load_classifier(program.loss_program(table, 0, ())))
    except BpfRefusedError as error:
        return str(error)
    finally:
        table.close()
    return ""


class EbpfLoss:
    """Loss by :class:`~.chain.LossChain`, run in the kernel where packets arrive.

    Each packet class at each port has a chain and random numbers of its own. With the same seed
    the k-th IPv4 packet of a class at a port meets the same fate in every run, as long as the
    probabilities are the same; the relay loses the same ones.

    Probabilities, chains and counters lie in memory that is shared with the kernel, so a change is
    a write of 16 bytes. It leaves the chain where it is, in the good or in the bad state, and the
    random numbers go on. (A packet that is judged during the write may see some of the old
    probabilities.)

    Raises BpfRefusedError where the kernel refuses eBPF; :func:`ebpf_problem` asks beforehand.
    """

    name = "ebpf"
    loss_is_seeded = True

    def __init__(self, plan: LinkPlan) -> None:
        self._classes = tuple(plan.classes)
        self._lanes = 1 + len(self._classes)
        records = plan.devices * _DIRECTIONS * self._lanes
        self._table = SharedTable(max(1, records) * program.RECORD_BYTES)
        self._unattached: dict[int, int] = {}
        """Descriptors of programs whose filters have yet to be installed, by their offset."""
        self._seed = plan.seed

    def prepare(self, port: Port) -> list[Request]:
        """Return what attaches the port's program; until the first change it loses nothing."""
        offset = self._offset(port)
        for lane in range(self._lanes):
            state = first_state(self._seed, port.device, port.direction, lane)
            _CHAIN.pack_into(self._table.memory, offset + lane * program.RECORD_BYTES, state)
        code = program.loss_program(self._table, offset, self._classes)
        descriptor = load_classifier(code)
        self._unattached[offset] = descriptor
        return [attach_program(port.index, LOSS_PRIORITY, descriptor, "seeded loss")]

    def change(self, port: Port, state: PortState) -> list[Request]:
        """Write the probabilities; there is nothing to send. Raises ValueError for a delay."""
        if state.delay_s or state.jitter_s:
            raise ValueError(
                f"device {port.device} is asked for a delay of {state.delay_s:g} s and a jitter of "
                f"{state.jitter_s:g} s, which eBPF cannot give; use the back-end netem or relay"
            )
        offset = self._offset(port)
        self._release(offset)
        memory = self._table.memory
        for loss in state.losses:
            _THRESHOLDS.pack_into(memory, offset + program.IN_GOOD, *thresholds(loss))
            offset += program.RECORD_BYTES
        return []

    def read(self, ports: Sequence[Port]) -> list[Arrivals]:
        """Return the counts of these ports, all classes together."""
        words = np.frombuffer(self._table.memory, dtype=np.uint64)
        per_record = program.RECORD_BYTES // words.itemsize
        records = words[: len(words) // per_record * per_record].reshape(-1, per_record)
        counts: list[Arrivals] = []
        for port in ports:
            first = self._offset(port) // program.RECORD_BYTES
            mine = records[first : first + self._lanes]
            arrived = int(mine[:, program.ARRIVED // words.itemsize].sum())
            counts.append(Arrivals(arrived, int(mine[:, program.LOST // words.itemsize].sum())))
        return counts

    def close(self) -> None:
        """Give back what the program and its memory hold here; attached programs go on."""
        for offset in tuple(self._unattached):
            self._release(offset)
        self._table.close()

    def _offset(self, port: Port) -> int:
        place = port.device * _DIRECTIONS + port.direction
        return place * self._lanes * program.RECORD_BYTES

    def _release(self, offset: int) -> None:
        """Close a program's descriptor: its filter keeps the program from now on."""
        descriptor = self._unattached.pop(offset, None)
        if descriptor is not None:
            os.close(descriptor)
