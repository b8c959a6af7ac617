"""Messages for filters on a port's ingress hook that do more than classic BPF can."""

import socket
import struct

from fadelab_emulation.netlink.classic_bpf import Operation, Step, assemble
from fadelab_emulation.netlink.filters import ETH_P_IP, INGRESS_HOOK, RTM_NEWTFILTER
from fadelab_emulation.netlink.message import (
    CREATE_OR_REPLACE,
    Request,
    attribute,
    string,
    unsigned,
)
from fadelab_emulation.netlink.traffic import TCA_KIND, TCA_OPTIONS, TCMSG

LOSS_PRIORITY = 2
REDIRECT_PRIORITY = 3

_TCA_BPF_ACT, _TCA_BPF_CLASSID, _TCA_BPF_OPS_LEN, _TCA_BPF_OPS = 1, 3, 4, 5
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_TCA_ACT_KIND, _TCA_ACT_OPTIONS = 1, 2
_TCA_MIRRED_PARMS = 2
_MIRRED_PARMS = struct.Struct("=IIiiiiI")
_EGRESS_REDIRECT = 1
_TC_ACT_STOLEN = 4
_MATCH = 0xFFFFFFFF


def attach_program(index: int, priority: int, descriptor: int, name: str) -> Request:
    """Let an eBPF program decide about arriving IPv4 packets; its result is the verdict."""
    options = (
        unsigned(_TCA_BPF_FD, descriptor)
        + string(_TCA_BPF_NAME, name)
        + unsigned(_TCA_BPF_FLAGS, _DIRECT_ACTION)
    )
    return _ingress_filter("attach the loss program", index, priority, options)


def redirect_arriving(index: int, priority: int, target: int, protocol: int = ETH_P_IP) -> Request:
    """Send arriving packets of a protocol out of another interface instead (act_mirred).

    The classifier is a classic BPF program that matches everything: cls_bpf is needed for losses
    anyway, so this asks for no further kernel module and, unlike eBPF's own redirect, for no
    privilege beyond that of shaping.
    """
    code = assemble([Step(Operation.RETURN, _MATCH)])
    parms = _MIRRED_PARMS.pack(0, 0, _TC_ACT_STOLEN, 0, 0, _EGRESS_REDIRECT, target)
    action = attribute(
        1,
        string(_TCA_ACT_KIND, "mirred")
        + attribute(_TCA_ACT_OPTIONS, attribute(_TCA_MIRRED_PARMS, parms)),
    )
    options = (
        attribute(_TCA_BPF_OPS_LEN, struct.pack("=H", 1))
        + attribute(_TCA_BPF_OPS, code)
        + string(_TCA_BPF_NAME, "delay line")
        + unsigned(_TCA_BPF_CLASSID, 1)
        + attribute(_TCA_BPF_ACT, action)
    )
    operation = "lead arriving packets through another interface"
    return _ingress_filter(operation, index, priority, options, protocol)


def _ingress_filter(
    operation: str, index: int, priority: int, options: bytes, protocol: int = ETH_P_IP
) -> Request:
    """Return a filter, if nothing else is said for IPv4 alone: late ARP frames cost a second."""
    head = TCMSG.pack(0, 0, 0, index, 1, INGRESS_HOOK, priority << 16 | socket.htons(protocol))
    body = head + string(TCA_KIND, "bpf") + attribute(TCA_OPTIONS, options)
    return Request(operation, RTM_NEWTFILTER, CREATE_OR_REPLACE, body)
