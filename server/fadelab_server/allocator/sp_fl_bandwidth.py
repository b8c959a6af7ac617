"""Bandwidth shares of devices and of their packets by successive convex approximation.

With the power split given, the losses ``z = c_s / alpha`` and ``y = c_m / (1 - alpha)`` are convex
in the widths of the packets. Around a point the objective is replaced by a convex one with the same
gradient::

    J_z e^(z - z0)  +  J_y (y - y0) + a p0^2 (y - y0)^2

(the inverse success of signs as it is; for moduli ``p >= p0 (1 + y0 - y)`` inside the squared bias,
and the rest linear). It is separable, so its minimum with all bandwidth spent is found by Newton's
iteration with one multiplier; a line search on the true objective then makes the step safe.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fadelab_server.allocator.sp_fl_error import GradientStatistics
from fadelab_server.allocator.sp_fl_link import (
    Outage,
    PacketLinks,
    Shares,
    modulus_outage,
    sign_outage,
    success_of,
)
from fadelab_server.allocator.sp_fl_objective import by_losses, objective
from fadelab_server.allocator.uplink import F64

_MOST_INNER = 30
_MOST_HALVINGS = 30
_CLOSE = 1e-10


def least_band(devices: int) -> float:
    """Return the share of bandwidth that every packet gets at least."""
    return 1e-3 / devices


def better_band(
    links: PacketLinks, statistics: GradientStatistics, shares: Shares, *, free_class: bool
) -> Shares:
    """Return the shares after one convex approximation; never worse.

    Args:
        links: of all devices.
        statistics: of their gradients.
        shares: where to approximate; their bands sum up to 1.
        free_class: divide every device's band between its packets anew (``fdm`` only), instead of
            keeping its class share.

    """
    widths = _Widths.of(shares, links, free_class=free_class)
    model = _Surrogate.at(links, statistics, shares, widths)
    direction = model.minimum() - widths.share
    before = objective(links, statistics, shares)
    step = 1.0
    for _ in range(_MOST_HALVINGS):
        trial = replace(widths, share=widths.share + step * direction).shares(shares)
        if objective(links, statistics, trial) < before:
            return trial
        step /= 2
    return shares


@dataclass(frozen=True, slots=True, eq=False)
class _Widths:
    """The variables: shares of all bandwidth, in one row, or one for signs and one for moduli."""

    share: F64
    """Shape ``(1, devices)`` or ``(2, devices)``, sum 1."""
    sign_part: F64 | float
    """What a packet has of its row's width."""
    modulus_part: F64 | float

    @classmethod
    def of(cls, shares: Shares, links: PacketLinks, *, free_class: bool) -> "_Widths":
        if links.access != "fdm":
            return cls(_feasible(shares.band[None]), 1.0, 1.0)
        if free_class:
            rows = np.stack([shares.band * shares.sign, shares.band * (1 - shares.sign)])
            return cls(_feasible(rows), 1.0, 1.0)
        return cls(_feasible(shares.band[None]), shares.sign, 1 - shares.sign)

    def shares(self, before: Shares) -> Shares:
        band = self.share.sum(axis=0)
        sign = self.share[0] / band if len(self.share) == 2 else before.sign
        return replace(before, band=band, sign=sign)


def _feasible(share: F64) -> F64:
    """Return shares of which none is below its least, with the sum 1."""
    floor = least_band(share.shape[1])
    above = np.maximum(share - floor, 0.0)
    result: F64 = floor + above * (1 - floor * share.size) / above.sum()
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Surrogate:
    """The convex objective around a point."""

    links: PacketLinks
    shares: Shares
    widths: _Widths
    sign_loss: F64
    modulus_loss: F64
    sign_slope: F64
    """``J_z``, at least 0: what of it is negative is in ``linear``."""
    modulus_slope: F64
    bend: F64
    """``a p0^2``."""
    linear: F64
    """Derivatives that no convex term has, by share."""

    @classmethod
    def at(
        cls,
        links: PacketLinks,
        statistics: GradientStatistics,
        shares: Shares,
        widths: _Widths,
    ) -> "_Surrogate":
        sign, modulus = _losses(links, shares, widths)
        parts = by_losses(links, statistics, sign.cost, modulus.cost)
        _, arrives = success_of(links, sign.cost, modulus.cost)
        bias = statistics.kappa * statistics.residue / (2 * len(arrives))
        linear = np.zeros_like(widths.share)
        linear[0] += np.minimum(parts.by_sign_loss, 0) * sign.slope
        linear[-1] += np.minimum(parts.by_modulus_loss, 0) * modulus.slope
        return cls(
            links,
            shares,
            widths,
            sign.cost,
            modulus.cost,
            np.maximum(parts.by_sign_loss, 0),
            np.maximum(parts.by_modulus_loss, 0),
            bias * arrives**2,
            linear,
        )

    def minimum(self) -> F64:
        """Return the widths of the least value with the same sum, none below its least."""
        share, floor = self.widths.share, least_band(self.widths.share.shape[1])
        value, slope, curvature = self._evaluate(share)
        for _ in range(_MOST_INNER):
            if not curvature.any():
                break  # no packet of any device matters: all widths are as good
            step = _balanced(slope, curvature, share <= floor * (1 + 1e-9))
            shrinking = step < 0
            room = (share - floor)[shrinking] / -step[shrinking]
            length = min(1.0, float(room.min(initial=np.inf)))
            for _ in range(_MOST_HALVINGS):
                trial = np.maximum(share + length * step, floor)
                found = self._evaluate(trial)
                if found[0] <= value:
                    break
                length /= 2
            else:
                break
            share, (value, slope, curvature) = trial, found
            if np.abs(length * step).max() < _CLOSE:
                break
        return share

    def _evaluate(self, share: F64) -> tuple[float, F64, F64]:
        widths = replace(self.widths, share=share)
        sign, modulus = _losses(self.links, self.shares, widths)
        growth = self.sign_slope * np.exp(np.minimum(sign.cost - self.sign_loss, 100.0))
        beyond = modulus.cost - self.modulus_loss
        rise = np.maximum(self.modulus_slope + 2 * self.bend * beyond, 0.0)
        value = growth + self.modulus_slope * beyond + self.bend * beyond**2
        slope, curvature = self.linear.copy(), np.zeros_like(share)
        slope[0] += growth * sign.slope
        slope[-1] += rise * modulus.slope
        curvature[0] += growth * (sign.slope**2 + sign.curvature)
        curvature[-1] += rise * modulus.curvature + 2 * self.bend * modulus.slope**2
        # A packet that nothing depends on has none.
        curvature = np.maximum(curvature, 1e-12 * curvature.max())
        return float(value.sum() + (self.linear * share).sum()), slope, curvature


def _balanced(slope: F64, curvature: F64, at_floor: NDArray[np.bool_]) -> F64:
    """Return Newton's step with the sum 0 in which nobody at the least width gets less."""
    held = np.zeros(slope.shape, dtype=bool)
    while True:
        weight = np.where(held, 0.0, 1 / curvature)
        step: F64 = ((slope * weight).sum() / weight.sum() - slope) * weight
        more = at_floor & (step < 0)
        if not more.any():
            return step
        held |= more


def _losses(links: PacketLinks, shares: Shares, widths: _Widths) -> tuple[Outage, Outage]:
    """Return the losses and their derivatives by the variables."""
    now = widths.shares(shares)
    sign, modulus = sign_outage(links, now), modulus_outage(links, now)
    return (
        _scaled(sign, 1 / shares.power, widths.sign_part * links.bandwidth_hz),
        _scaled(modulus, 1 / (1 - shares.power), widths.modulus_part * links.bandwidth_hz),
    )


def _scaled(cost: Outage, factor: F64, width: F64 | float) -> Outage:
    return Outage(
        factor * cost.cost, factor * cost.slope * width, factor * cost.curvature * width**2
    )
