"""The error as a function of how likely packets are lost."""

from dataclasses import dataclass

import numpy as np

from fadelab_server.allocator.sp_fl_error import ErrorParts, GradientStatistics, error_parts
from fadelab_server.allocator.sp_fl_link import PacketLinks, Shares, losses, success_of
from fadelab_server.allocator.uplink import F64


@dataclass(frozen=True, slots=True, eq=False)
class LossParts:
    """Every device's part of the objective, and its derivatives."""

    value: F64
    by_sign_loss: F64
    """By ``z = -ln P(sign packet ok)``."""
    by_modulus_loss: F64
    """By ``y = -ln P(modulus packet ok)``."""


def objective(links: PacketLinks, statistics: GradientStatistics, shares: Shares) -> float:
    """Return ``bias / 2 + L eta var / 2``."""
    return float(by_losses(links, statistics, *losses(links, shares)).value.sum())


def by_losses(
    links: PacketLinks, statistics: GradientStatistics, sign_loss: F64, modulus_loss: F64
) -> LossParts:
    """Return the objective as a function of both losses."""
    sign, modulus = success_of(links, sign_loss, modulus_loss)
    parts: ErrorParts = error_parts(statistics, 1 / sign, modulus)
    # d(1/q)/dz = 1/q;  dp/dy = -p;  with a common fade p = e^-(y - z), so dp/dz = p, or p is 1.
    by_sign = parts.by_inverse / sign
    by_modulus = -parts.by_modulus * modulus
    if links.fading == "common":
        by_modulus = np.where(modulus_loss > sign_loss, by_modulus, 0.0)
        by_sign = by_sign - by_modulus
    return LossParts(parts.value, by_sign, by_modulus)
