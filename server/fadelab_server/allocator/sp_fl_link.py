"""How likely the packets of signs and of moduli arrive, by power, bandwidth and time.

Yue et al., "Prioritizing gradient sign over modulus", arXiv 2603.10763, send signs and moduli in
packets of their own with unequal resources. Under block Rayleigh fading with mean gain G a packet
of l bits, sent with power x P on W Hz for T seconds, is lost if the channel's capacity is below l /
T, so that::

    P(ok) = exp(-c / x),    c = (W N0 / (P G)) (2^(l / (W T)) - 1)

(the outage of a Rayleigh channel; how the paper shares resources is reconstructed from its
abstract).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fadelab_server.allocator.uplink import F64

Access = Literal["fdm", "tdm", "parallel"]
Fading = Literal["independent", "common"]

# Beyond these no packet arrives, and products of exponentials still fit into a number.
_LARGEST_EXPONENT = 100.0
_LARGEST_LOSS = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class PacketLinks:
    """What is known of the links and of the two packets of every device."""

    noise_per_hz: F64
    """``N0 / (P_k G_k)``: noise on 1 Hz over the mean received power, 1/Hz; shape ``(devices,)``."""
    bandwidth_hz: float
    """Of all devices together."""
    deadline_s: float
    sign_bits: float
    modulus_bits: float
    access: Access = "fdm"
    """The packets of a device divide its band (``fdm``) or its time (``tdm``) by the class share, or each
    has all of both (``parallel``), which is spectrum for nothing."""
    fading: Fading = "independent"
    """Whether both packets of a device meet one fade (``common``), or each its own."""

    def __post_init__(self) -> None:
        """Refuse what is no link; ValueError says why."""
        if not np.all(np.isfinite(self.noise_per_hz) & (self.noise_per_hz > 0)):
            raise ValueError("noise_per_hz must be positive and finite")
        sizes = (self.bandwidth_hz, self.deadline_s, self.sign_bits, self.modulus_bits)
        if not all(0 < size < np.inf for size in sizes):
            raise ValueError(
                f"bandwidth, deadline and packet sizes must be positive and finite; got {sizes}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How a device's resources are divided; arrays over devices."""

    power: F64
    """Share of a device's power for signs, "alpha", in (0, 1)."""
    band: F64
    """Share of all bandwidth, "beta"; they sum up to at most 1."""
    sign: F64
    """Share of the device's band (or time) for signs, "nu", in (0, 1)."""


@dataclass(frozen=True, slots=True, eq=False)
class Outage:
    """``c`` of a packet, and its derivatives by the width in Hz."""

    cost: F64
    slope: F64
    curvature: F64


def outage(links: PacketLinks, bits: float, width_hz: F64, time_s: F64 | float) -> Outage:
    """Return ``c`` for all devices; convex and falling in the width."""
    nats_hz = np.log(2) * bits / time_s
    # Where a number could not hold it, the packet is lost either way.
    exponent = np.minimum(nats_hz / width_hz, _LARGEST_EXPONENT)
    growth, noise = np.exp(exponent), links.noise_per_hz
    return Outage(
        noise * width_hz * np.expm1(exponent),
        noise * (np.expm1(exponent) - exponent * growth),
        noise * exponent**2 * growth / width_hz,
    )


def sign_outage(links: PacketLinks, shares: Shares) -> Outage:
    """Return ``c`` of the sign packets."""
    width_hz = shares.band * links.bandwidth_hz
    if links.access == "fdm":
        return outage(links, links.sign_bits, width_hz * shares.sign, links.deadline_s)
    time = shares.sign if links.access == "tdm" else 1.0
    return outage(links, links.sign_bits, width_hz, links.deadline_s * time)


def modulus_outage(links: PacketLinks, shares: Shares) -> Outage:
    """Return ``c`` of the modulus packets."""
    width_hz = shares.band * links.bandwidth_hz
    if links.access == "fdm":
        return outage(links, links.modulus_bits, width_hz * (1 - shares.sign), links.deadline_s)
    time = 1 - shares.sign if links.access == "tdm" else 1.0
    return outage(links, links.modulus_bits, width_hz, links.deadline_s * time)


def success(links: PacketLinks, shares: Shares) -> tuple[F64, F64]:
    """Return ``P(signs arrive)`` and ``P(moduli arrive | signs arrive)`` of every device.

    With a common fade the stronger packet arrives whenever the weaker does.
    """
    return success_of(links, *losses(links, shares))


def losses(links: PacketLinks, shares: Shares) -> tuple[F64, F64]:
    """Return ``-ln P(ok)`` of sign and modulus packets, each for itself."""
    return (
        sign_outage(links, shares).cost / shares.power,
        modulus_outage(links, shares).cost / (1 - shares.power),
    )


def success_of(links: PacketLinks, sign_loss: F64, modulus_loss: F64) -> tuple[F64, F64]:
    """Return the two probabilities of :func:`success` from :func:`losses`."""
    sign_loss = np.minimum(sign_loss, _LARGEST_LOSS)
    if links.fading == "common":
        modulus_loss = np.maximum(modulus_loss - sign_loss, 0.0)
    return np.exp(-sign_loss), np.exp(-modulus_loss)
