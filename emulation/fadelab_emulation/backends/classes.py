"""Which class a packet belongs to, as the beginning of a classic BPF program.

The DSCP is asked first, for it is an explicit mark; then the ports, class by class, so that both
directions of a connection between two marked ports land in the same class. Only the first
fragment of a datagram bears ports: all its fragments belong to the default class, unless their
DSCP says otherwise.
"""

from collections.abc import Sequence

from fadelab_emulation.backends.plan import ClassMark
from fadelab_emulation.netlink.classic_bpf import Operation, Step

_ETHERNET_BYTES = 14
_DS_FIELD = _ETHERNET_BYTES + 1
_FRAGMENT = _ETHERNET_BYTES + 6
_PROTOCOL = _ETHERNET_BYTES + 9
_SOURCE_PORT = _ETHERNET_BYTES
_DESTINATION_PORT = _ETHERNET_BYTES + 2
_DSCP_MASK = 0xFC
_FRAGMENT_MASK = 0x3FFF
"""More-fragments flag and fragment offset."""
_TCP, _UDP = 6, 17


def class_label(lane: int) -> str:
    """Return the label that a packet of this lane is sent to; lane 0 is the default class."""
    return f"class {lane}"


def classify(marks: Sequence[ClassMark]) -> list[Step | str]:
    """Return steps that jump to the label of an IPv4 packet's class.

    The packet must begin with its Ethernet header. Labels are left to the caller to place; where
    there are no marks there is nothing to ask, and the program goes on with the next step.
    """
    dscps = {lane: m.dscp for lane, m in enumerate(marks, 1) if m.dscp is not None}
    ports = {lane: m.port for lane, m in enumerate(marks, 1) if m.port is not None}
    steps: list[Step | str] = []
    if dscps:
        steps += [
            Step(Operation.LOAD_BYTE, _DS_FIELD),
            Step(Operation.AND, _DSCP_MASK),
            *(
                Step(Operation.JUMP_IF_EQUAL, dscp << 2, then=class_label(lane))
                for lane, dscp in dscps.items()
            ),
        ]
    if ports:
        steps += _load_ports()
        for lane, port in ports.items():
            steps += [
                Step(Operation.LOAD_MEMORY, 0),
                Step(Operation.JUMP_IF_EQUAL, port, then=class_label(lane)),
                Step(Operation.LOAD_MEMORY, 1),
                Step(Operation.JUMP_IF_EQUAL, port, then=class_label(lane)),
            ]
    if marks:
        steps.append(Step(Operation.JUMP, then=class_label(0)))
    return steps


def _load_ports() -> list[Step | str]:
    """Return steps that put both ports into memory; a packet without goes to the default class."""
    return [
        Step(Operation.LOAD_HALF, _FRAGMENT),
        Step(Operation.JUMP_IF_ANY_BIT, _FRAGMENT_MASK, then=class_label(0)),
        Step(Operation.LOAD_BYTE, _PROTOCOL),
        Step(Operation.JUMP_IF_EQUAL, _TCP, then="ports"),
        Step(Operation.JUMP_IF_EQUAL, _UDP, otherwise=class_label(0)),
        "ports",
        Step(Operation.LOAD_X_HEADER_LENGTH, _ETHERNET_BYTES),
        Step(Operation.LOAD_HALF_BEHIND_X, _SOURCE_PORT),
        Step(Operation.STORE_MEMORY, 0),
        Step(Operation.LOAD_HALF_BEHIND_X, _DESTINATION_PORT),
        Step(Operation.STORE_MEMORY, 1),
    ]
