"""Messages for delay lines: an intermediate functional block (IFB) with sch_netem on it."""

import struct
from functools import cache
from statistics import NormalDist

from fadelab_emulation.backends.impairment.base import LaneLoss
from fadelab_emulation.netlink.links import IFLA_IFNAME, IFLA_LINKINFO, RTM_NEWLINK
from fadelab_emulation.netlink.message import (
    CHANGE,
    CREATE,
    NLM_F_ECHO,
    Request,
    attribute,
    nested,
    string,
)
from fadelab_emulation.netlink.traffic import (
    RTM_GETQDISC,
    RTM_NEWQDISC,
    TC_H_ROOT,
    TCMSG,
    queue_body,
)

_IFF_UP = 1
_IFINFO = struct.Struct("=BBHiII")
_IFLA_INFO_KIND = 1

_DELAY, _DELAY_CLASS, _LOSS = 0x10000, 0x10001, 0x20000
_QUEUE_OPTIONS = struct.Struct("=IIIIII")
_RATE = struct.Struct("=IiIi")
_GILBERT_ELLIOTT = struct.Struct("=IIII")
_NETEM_DELAY_DIST, _NETEM_LOSS, _NETEM_RATE = 2, 5, 6
_NETEM_LATENCY64, _NETEM_JITTER64 = 10, 11
_NETEM_LOSS_GE = 2
_UNLIMITED_PACKETS = 0x7FFFFFFF
_HIGHEST = 0xFFFFFFFF
_DISTRIBUTION_SCALE = 8192
"""A table entry of this size is one standard deviation (NETEM_DIST_SCALE)."""
_DISTRIBUTION_ENTRIES = 2048


def create_ifb(name: str, index: int) -> Request:
    """Make an IFB: what is sent out of it comes back as if it had arrived where it first did."""
    body = (
        _IFINFO.pack(0, 0, 0, index, _IFF_UP, _IFF_UP)
        + string(IFLA_IFNAME, name)
        + nested(IFLA_LINKINFO, string(_IFLA_INFO_KIND, "ifb"))
    )
    return Request(f"create the delay line {name}", RTM_NEWLINK, CREATE, body)


def add_delay(index: int) -> Request:
    """Install netem on an IFB, without any delay yet.

    * Its limit is none: what a line holds is bounded by the shaper in front of it (rate times
      delay), and a wire loses nothing because much of it is under way.
    * Its rate is the highest that 32 bits hold (34 Gbit/s). It shapes nothing, but netem keeps
      packets in order only where it has a rate: the next packet then leaves no sooner than the one
      before it, however the jitter falls (netem_enqueue in net/sched/sch_netem.c; the child queue
      that older advice puts there no longer does it).
    * Its table is a normal distribution; without one netem's jitter is uniform, with a standard
      deviation of 58 % of what was asked.
    """
    options = (
        _delay_options(0.0, 0.0)
        + attribute(_NETEM_DELAY_DIST, normal_table())
        + attribute(_NETEM_RATE, _RATE.pack(_HIGHEST, 0, 0, 0))
    )
    body = queue_body(index, _DELAY, TC_H_ROOT, "netem", options)
    return Request("install the delay (sch_netem)", RTM_NEWQDISC, CREATE, body)


def set_delay(index: int, delay_s: float, jitter_s: float) -> Request:
    """Set mean and standard deviation; packets under way keep theirs, table and rate stay."""
    body = queue_body(index, _DELAY, TC_H_ROOT, "netem", _delay_options(delay_s, jitter_s))
    return Request("set a delay", RTM_NEWQDISC, CHANGE, body)


def _delay_options(delay_s: float, jitter_s: float) -> bytes:
    # In nanoseconds: the older fields count in 64 ns and end at 274 s.
    return (
        _QUEUE_OPTIONS.pack(0, _UNLIMITED_PACKETS, 0, 0, 0, 0)
        + attribute(_NETEM_LATENCY64, struct.pack("=q", round(delay_s * 1e9)))
        + attribute(_NETEM_JITTER64, struct.pack("=q", round(jitter_s * 1e9)))
    )


@cache
def normal_table() -> bytes:
    """Return a normal distribution as netem wants it: 16-bit quantiles, equally likely."""
    normal = NormalDist()
    count = _DISTRIBUTION_ENTRIES
    quantiles = [normal.inv_cdf((number + 0.5) / count) for number in range(count)]
    # Quantiles at the middle of each step spread a little less than what they stand for.
    spread = (sum(quantile**2 for quantile in quantiles) / count) ** 0.5
    entries = [round(quantile / spread * _DISTRIBUTION_SCALE) for quantile in quantiles]
    return struct.pack(f"={count}h", *entries)


def add_loss(index: int) -> Request:
    """Install a second netem, behind the first, that loses packets.

    In the first one every change of delay would take the chain back to its good state.
    """
    body = queue_body(index, _LOSS, _DELAY_CLASS, "netem", _loss_options(LaneLoss(0, 0, 0, 1)))
    return Request("install the loss (sch_netem)", RTM_NEWQDISC, CREATE, body)


def set_loss(index: int, loss: LaneLoss) -> Request:
    """Set the probabilities of the second netem; its chain begins anew in the good state."""
    body = queue_body(index, _LOSS, _DELAY_CLASS, "netem", _loss_options(loss))
    return Request("set a loss probability", RTM_NEWQDISC, CHANGE, body)


def _loss_options(loss: LaneLoss) -> bytes:
    """Return the parameters p, r, h and 1 - k of netem's Gilbert-Elliott model.

    They are named as by S. Salsano et al., "Definition of a general and intuitive loss model for
    packet networks and its implementation in the Netem module in the Linux kernel", 2012.
    """
    probabilities = (loss.to_bad, loss.to_good, 1 - loss.in_bad, loss.in_good)
    model = _GILBERT_ELLIOTT.pack(*(round(p * _HIGHEST) for p in probabilities))
    return _QUEUE_OPTIONS.pack(0, _UNLIMITED_PACKETS, 0, 0, 0, 0) + nested(
        _NETEM_LOSS, attribute(_NETEM_LOSS_GE, model)
    )


def read_loss(index: int) -> Request:
    """Ask for the second netem's counters; see :func:`~.traffic.parse_shaper`."""
    body = TCMSG.pack(0, 0, 0, index, 0, _DELAY_CLASS, 0)
    return Request(f"read the losses of interface {index}", RTM_GETQDISC, NLM_F_ECHO, body)
