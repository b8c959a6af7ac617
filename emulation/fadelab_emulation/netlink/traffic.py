"""Messages for queueing disciplines and their classes, and their counters."""

import struct
from typing import NamedTuple

from fadelab_emulation.netlink.message import (
    CHANGE,
    CREATE,
    NLM_F_ECHO,
    Request,
    attribute,
    find_attribute,
    string,
    unsigned,
)

RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTCLASS = 40
RTM_GETTCLASS = 42

TC_H_ROOT = 0xFFFFFFFF
MTU_FRAME_BYTES = 1514
MAX_RATE_BPS = 8 * 0xFFFFFFFF
"""The 32-bit rate field counts bytes per second."""

_TICK_S = 64e-9
TCMSG = struct.Struct("=BBHiIII")
_RATE_SPEC = "BBHhHI"
_LINKLAYER_ETHERNET = 1
TCA_KIND, TCA_OPTIONS, _TCA_STATS = 1, 2, 3
_TC_STATS = struct.Struct("=QIIIIIII")

_TCA_TBF_PARMS, _TCA_TBF_BURST = 1, 6
_TBF_PARMS = struct.Struct(f"={_RATE_SPEC}12xIII")
_HTB_PARMS = f"{_RATE_SPEC}{_RATE_SPEC}IIIII"
_HTB_PARMS_BYTES = struct.calcsize(f"={_HTB_PARMS}")
_HTB_CLASS = struct.Struct(f"=BBHiIII HH4s HH HH {_HTB_PARMS}")
"""Header, kind, and the nested attributes around the parameters."""
_TCA_HTB_PARMS, _TCA_HTB_INIT, _TCA_HTB_DIRECT_QLEN = 1, 2, 5


def queue_body(index: int, handle: int, parent: int, kind: str, options: bytes) -> bytes:
    """Return the body of a message about a queueing discipline."""
    body = TCMSG.pack(0, 0, 0, index, handle, parent, 0) + string(TCA_KIND, kind)
    return body + attribute(TCA_OPTIONS, options) if options else body


def open_tbf(index: int, handle: int, *, rate_bps: int, burst_bytes: int) -> bytes:
    """Return the body of a root token bucket (sch_tbf) that lets packets pass at ``rate_bps``."""
    parms = _TBF_PARMS.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, rate_bps // 8, 0, 0, 0)
    options = attribute(_TCA_TBF_PARMS, parms) + unsigned(_TCA_TBF_BURST, burst_bytes)
    return queue_body(index, handle, TC_H_ROOT, "tbf", options)


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
    return queue_body(index, handle, TC_H_ROOT, "tbf", attribute(_TCA_TBF_PARMS, parms))


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
    body = queue_body(index, handle, parent, "htb", options)
    return Request("install the shaper", RTM_NEWQDISC, CREATE, body)


def _htb_class(index: int, handle: int, rate_bps: int, burst_bytes: int) -> bytes:
    # One call packs the whole message: rates are what changes at every tick.
    rate = rate_bps // 8
    ticks = round(burst_bytes / rate / _TICK_S)
    return _HTB_CLASS.pack(
        *(0, 0, 0, index, handle, handle & 0xFFFF0000, 0),
        *(8, TCA_KIND, b"htb"),
        *(8 + _HTB_PARMS_BYTES, TCA_OPTIONS),
        *(4 + _HTB_PARMS_BYTES, _TCA_HTB_PARMS),
        *(0, _LINKLAYER_ETHERNET, 0, 0, 0, rate),
        *(0, _LINKLAYER_ETHERNET, 0, 0, 0, rate),
        *(ticks, ticks, MTU_FRAME_BYTES, 0, 0),
    )


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
    body = queue_body(index, handle, parent, "bfifo", struct.pack("=I", limit_bytes))
    return Request("install the queue", RTM_NEWQDISC, CREATE, body)


def remove_queue(index: int, handle: int, parent: int) -> Request:
    """Remove a queue and all that it holds."""
    body = TCMSG.pack(0, 0, 0, index, handle, parent, 0)
    return Request("empty the queue", RTM_DELQDISC, 0, body)


class ShaperCounters(NamedTuple):
    """What a queueing discipline or class has sent, dropped and still holds."""

    sent_bytes: int
    sent_packets: int
    dropped_packets: int
    backlog_bytes: int


def read_shaper(index: int) -> Request:
    """Ask for the counters of an interface's root queueing discipline.

    Without ECHO the kernel would tell the group of listeners only, not the one who asks.
    """
    body = TCMSG.pack(0, 0, 0, index, 0, TC_H_ROOT, 0)
    return Request(f"read the shaper of interface {index}", RTM_GETQDISC, NLM_F_ECHO, body)


def read_class(index: int, handle: int) -> Request:
    """Ask for the counters of one of a shaper's classes."""
    body = TCMSG.pack(0, 0, 0, index, handle, 0, 0)
    operation = f"read class {handle & 0xFFFF} of interface {index}"
    return Request(operation, RTM_GETTCLASS, NLM_F_ECHO, body)


def parse_shaper(body: bytes) -> ShaperCounters:
    """Decode the answer to :func:`read_shaper` or :func:`read_class`."""
    stats = _TC_STATS.unpack_from(body, find_attribute(body, TCMSG.size, _TCA_STATS))
    sent, packets, dropped, _, _, _, _, backlog = stats
    return ShaperCounters(sent, packets, dropped, backlog)
