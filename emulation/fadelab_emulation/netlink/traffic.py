"""Messages for queueing disciplines, classes and packet filters, and the shaper's counters."""

import socket
import struct
from typing import NamedTuple

from fadelab_emulation.netlink.message import (
    CHANGE,
    CREATE,
    CREATE_OR_REPLACE,
    NLM_F_ECHO,
    Request,
    attribute,
    attributes,
    string,
    unsigned,
)

RTM_NEWQDISC = 36
RTM_GETQDISC = 38
RTM_NEWTCLASS = 40
RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45

TC_H_ROOT = 0xFFFFFFFF
_TC_H_CLSACT = 0xFFFFFFF1
_TC_H_CLSACT_HANDLE = 0xFFFF0000
_TC_H_MIN_INGRESS = 0xFFFFFFF2

MTU_FRAME_BYTES = 1514
MAX_RATE_BPS = 8 * 0xFFFFFFFF
"""The 32-bit rate field counts bytes per second."""

_TICK_S = 64e-9
_TCMSG = struct.Struct("=BBHiIII")
_RATE_SPEC = "BBHhHI"
_LINKLAYER_ETHERNET = 1
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS = 1, 2, 3
_TC_STATS = struct.Struct("=QIIIIIII")

_TCA_TBF_PARMS, _TCA_TBF_BURST = 1, 6
_TBF_PARMS = struct.Struct(f"={_RATE_SPEC}12xIII")
_HTB_PARMS = struct.Struct(f"={_RATE_SPEC}{_RATE_SPEC}IIIII")
_TCA_HTB_PARMS, _TCA_HTB_INIT, _TCA_HTB_DIRECT_QLEN = 1, 2, 5

_TCA_BPF_OPS_LEN, _TCA_BPF_OPS, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 4, 5, 7, 8
_BPF_DIRECT_ACTION = 1
_BPF_INSTRUCTION = struct.Struct("=HBBI")
_BPF_LOAD, _BPF_JUMP_IF_GE, _BPF_RETURN = 0x20, 0x35, 0x06
_SKF_AD_RANDOM = 0xFFFFF038
_TC_ACT_OK, _TC_ACT_SHOT = 0, 2
_ETH_P_IP = 0x0800


def _qdisc(index: int, handle: int, parent: int, kind: str, options: bytes) -> bytes:
    body = _TCMSG.pack(0, 0, 0, index, handle, parent, 0) + string(_TCA_KIND, kind)
    return body + attribute(_TCA_OPTIONS, options) if options else body


def open_tbf(index: int, handle: int, *, rate_bps: int, burst_bytes: int) -> bytes:
    """Return the body of a root token bucket (sch_tbf) that lets packets pass at ``rate_bps``."""
    parms = _TBF_PARMS.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, rate_bps // 8, 0, 0, 0)
    options = attribute(_TCA_TBF_PARMS, parms) + unsigned(_TCA_TBF_BURST, burst_bytes)
    return _qdisc(index, handle, TC_H_ROOT, "tbf", options)


def closed_tbf(index: int, handle: int, *, retry_s: float) -> bytes:
    """Return the body of a root token bucket (sch_tbf) through which no packet can ever pass.

    The least chargeable packet size (``mpu``) is 65 535 bytes, but the bucket holds no more than
    two frames' worth of tokens: every packet costs more than there can be. sch_tbf compares a
    packet's true size with the bucket on arrival, so packets still queue; and whenever the first
    of them is refused it tries again after the missing tokens' time, here ``retry_s``. A packet
    waiting at the gate thus finds it open at most ``retry_s`` after it was opened, without any
    frame sent to wake it. (net/sched/sch_tbf.c and psched_l2t_ns in include/net/sch_generic.h;
    the least packet size is honoured from Linux 5.17 and its stable branches of January 2022.)
    """
    least_bytes, bucket_bytes = 0xFFFF, 2 * MTU_FRAME_BYTES
    rate = round((least_bytes - bucket_bytes) / retry_s)
    ticks = round(bucket_bytes / rate / _TICK_S)
    parms = _TBF_PARMS.pack(0, _LINKLAYER_ETHERNET, 0, 0, least_bytes, rate, 0, ticks, 0)
    return _qdisc(index, handle, TC_H_ROOT, "tbf", attribute(_TCA_TBF_PARMS, parms))


def add_tbf(body: bytes) -> Request:
    """Install a token bucket given by :func:`open_tbf` or :func:`closed_tbf`."""
    return Request("install the contact gate", RTM_NEWQDISC, CREATE, body)


def change_tbf(body: bytes) -> Request:
    """Alter the installed token bucket."""
    return Request("move the contact gate", RTM_NEWQDISC, CHANGE, body)


def add_htb(index: int, handle: int, parent: int, default_minor: int) -> Request:
    """Install a hierarchical token bucket whose unclassified packets go to ``default_minor``.

    Its direct queue, which packets of priority ``handle`` go to, holds nothing: they are dropped.
    """
    options = attribute(_TCA_HTB_INIT, struct.pack("=IIIII", 3, 10, default_minor, 0, 0))
    options += unsigned(_TCA_HTB_DIRECT_QLEN, 0)
    body = _qdisc(index, handle, parent, "htb", options)
    return Request("install the shaper", RTM_NEWQDISC, CREATE, body)


def _htb_class(index: int, handle: int, rate_bps: int, burst_bytes: int) -> bytes:
    rate = rate_bps // 8
    ticks = round(burst_bytes / rate / _TICK_S)
    spec = (0, _LINKLAYER_ETHERNET, 0, 0, 0, rate)
    parms = _HTB_PARMS.pack(*spec, *spec, ticks, ticks, MTU_FRAME_BYTES, 0, 0)
    head = _TCMSG.pack(0, 0, 0, index, handle, handle & 0xFFFF0000, 0)
    options = attribute(_TCA_OPTIONS, attribute(_TCA_HTB_PARMS, parms))
    return head + string(_TCA_KIND, "htb") + options


def add_htb_class(index: int, handle: int, rate_bps: int, burst_bytes: int) -> Request:
    """Add a class that sends at most ``rate_bps`` (layer-2 bits) with the given burst."""
    body = _htb_class(index, handle, rate_bps, burst_bytes)
    return Request("add the shaper's class", RTM_NEWTCLASS, CREATE, body)


def change_htb_class(index: int, handle: int, rate_bps: int, burst_bytes: int) -> Request:
    """Alter a class's rate; unlike a token bucket's change this does not refill the tokens."""
    body = _htb_class(index, handle, rate_bps, burst_bytes)
    return Request("set a rate", RTM_NEWTCLASS, CHANGE, body)


def add_byte_queue(index: int, handle: int, parent: int, limit_bytes: int) -> Request:
    """Install a first-in-first-out queue that holds ``limit_bytes``."""
    body = _qdisc(index, handle, parent, "bfifo", struct.pack("=I", limit_bytes))
    return Request("install the queue", RTM_NEWQDISC, CREATE, body)


def add_clsact(index: int) -> Request:
    """Install the hook for filters on arriving packets."""
    body = _qdisc(index, _TC_H_CLSACT_HANDLE, _TC_H_CLSACT, "clsact", b"")
    return Request("install the loss hook", RTM_NEWQDISC, CREATE, body)


def set_loss(index: int, probability: float) -> Request:
    """Drop each arriving IPv4 packet with ``probability``; replaces the former filter at once.

    Classic BPF ``ld rand`` as direct action: it needs no eBPF, so it works without root.
    """
    threshold = min(0xFFFFFFFF, round(probability * 2**32))
    program = (
        (_BPF_LOAD, 0, 0, _SKF_AD_RANDOM),
        (_BPF_JUMP_IF_GE, 0, 1, threshold),
        (_BPF_RETURN, 0, 0, _TC_ACT_OK),
        (_BPF_RETURN, 0, 0, _TC_ACT_SHOT),
    )
    code = b"".join(_BPF_INSTRUCTION.pack(*instruction) for instruction in program)
    options = (
        attribute(_TCA_BPF_OPS_LEN, struct.pack("=H", len(program)))
        + attribute(_TCA_BPF_OPS, code)
        + string(_TCA_BPF_NAME, "loss")
        + unsigned(_TCA_BPF_FLAGS, _BPF_DIRECT_ACTION)
    )
    body = _loss_filter(index) + attribute(_TCA_OPTIONS, options)
    return Request("set a loss probability", RTM_NEWTFILTER, CREATE_OR_REPLACE, body)


def clear_loss(index: int) -> Request:
    """Take the loss filter away."""
    return Request("end packet loss", RTM_DELTFILTER, 0, _loss_filter(index))


def _loss_filter(index: int) -> bytes:
    priority_and_protocol = (1 << 16) | socket.htons(_ETH_P_IP)
    head = _TCMSG.pack(0, 0, 0, index, 1, _TC_H_MIN_INGRESS, priority_and_protocol)
    return head + string(_TCA_KIND, "bpf")


class ShaperCounters(NamedTuple):
    """What a queueing discipline has sent, dropped and still holds."""

    sent_bytes: int
    sent_packets: int
    dropped_packets: int
    backlog_bytes: int


def read_shaper(index: int) -> Request:
    """Ask for the counters of an interface's root queueing discipline.

    Without ECHO the kernel would tell the group of listeners only, not the one who asks.
    """
    body = _TCMSG.pack(0, 0, 0, index, 0, TC_H_ROOT, 0)
    return Request(f"read the shaper of interface {index}", RTM_GETQDISC, NLM_F_ECHO, body)


def parse_shaper(body: bytes) -> ShaperCounters:
    """Decode the answer to :func:`read_shaper`."""
    for kind, payload in attributes(body, _TCMSG.size):
        if kind == _TCA_STATS:
            sent, packets, dropped, _, _, _, _, backlog = _TC_STATS.unpack_from(payload)
            return ShaperCounters(sent, packets, dropped, backlog)
    raise ValueError("the kernel's answer holds no shaper counters")
