"""Messages for packet filters (cls_bpf) and for the hook that filters arriving packets."""

import socket
import struct

from fadelab_emulation.netlink.classic_bpf import Program, assemble
from fadelab_emulation.netlink.message import (
    CREATE,
    CREATE_OR_REPLACE,
    NLM_F_ECHO,
    Request,
    attribute,
    string,
    unsigned,
)
from fadelab_emulation.netlink.traffic import (
    RTM_GETQDISC,
    RTM_NEWQDISC,
    TCA_KIND,
    TCA_OPTIONS,
    TCMSG,
    queue_body,
)

RTM_NEWTFILTER = 44
INGRESS_HOOK = 0xFFFFFFF2
"""Parent of filters on arriving packets (clsact's TC_H_MIN_INGRESS)."""
EGRESS_HOOK = 0xFFFFFFF3
"""Parent of filters on packets to be sent, in front of all queues (TC_H_MIN_EGRESS)."""
DROP, STEAL, GO_ON = 2, 4, 0xFFFFFFFF
"""What a program at a hook returns (TC_ACT_SHOT, _STOLEN, _UNSPEC): discard, discard without the
sender's knowing, let the next filter decide."""
ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800

TC_H_CLSACT = 0xFFFFFFF1
CLSACT_HANDLE = 0xFFFF0000
_TCA_BPF_OPS_LEN, _TCA_BPF_OPS, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 4, 5, 7, 8
_BPF_DIRECT_ACTION = 1
_BPF_INSTRUCTION_BYTES = 8


def add_ingress_hook(index: int) -> Request:
    """Install the hook for filters on arriving packets (clsact)."""
    body = queue_body(index, CLSACT_HANDLE, TC_H_CLSACT, "clsact", b"")
    return Request("install the hook for arriving packets", RTM_NEWQDISC, CREATE, body)


def read_ingress_hook(index: int) -> Request:
    """Ask for the hook's counters: packets that met a filter, and how many filters dropped.

    Decode the answer with :func:`fadelab_emulation.netlink.traffic.parse_shaper`.
    """
    body = TCMSG.pack(0, 0, 0, index, CLSACT_HANDLE, TC_H_CLSACT, 0)
    return Request(f"read the ingress hook of interface {index}", RTM_GETQDISC, NLM_F_ECHO, body)


def set_ingress_filter(
    index: int,
    priority: int,
    program: Program,
    *,
    name: str,
    protocol: int = ETH_P_IP,
    hook: int = INGRESS_HOOK,
) -> Request:
    """Have a program judge each packet at a hook; replaces the former one at once.

    There is no moment without a filter: the kernel swaps one program for the other.
    """
    options = _options(program, name) + unsigned(_TCA_BPF_FLAGS, _BPF_DIRECT_ACTION)
    body = _filter_body(index, hook, priority, protocol, options)
    return Request(f"set the filter {name!r}", RTM_NEWTFILTER, CREATE_OR_REPLACE, body)


def add_class_filter(index: int, shaper: int, program: Program) -> Request:
    """Have a program choose the class of each IPv4 packet that is sent: it returns the handle."""
    body = _filter_body(index, shaper, 1, ETH_P_IP, _options(program, "classes"))
    return Request("install the packet classes", RTM_NEWTFILTER, CREATE, body)


def _options(program: Program, name: str) -> bytes:
    code = assemble(program)
    return (
        attribute(_TCA_BPF_OPS_LEN, struct.pack("=H", len(code) // _BPF_INSTRUCTION_BYTES))
        + attribute(_TCA_BPF_OPS, code)
        + string(_TCA_BPF_NAME, name)
    )


def _filter_body(index: int, parent: int, priority: int, protocol: int, options: bytes) -> bytes:
    priority_and_protocol = (priority << 16) | socket.htons(protocol)
    head = TCMSG.pack(0, 0, 0, index, 1, parent, priority_and_protocol)
    return head + string(TCA_KIND, "bpf") + attribute(TCA_OPTIONS, options)
