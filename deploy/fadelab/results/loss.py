"""Whether links lost as many packets as they were told to."""

import math

import numpy as np
from numpy.typing import NDArray

from fadelab.results.record import Event, number
from fadelab.results.schema import LossFidelity
from fadelab_emulation.link_state import PacketLoss
from fadelab_emulation.schedule import ScheduleReader

_TICKS_LOOKED_AT = 64

FloatArray = NDArray[np.float64]


def loss_fidelity(account: Event, direction: str, burstiness: float) -> LossFidelity | None:
    """Return one direction's lost packets against the expected ones; None if none were counted.

    Args:
        account: the link's ``link_account`` event.
        direction: ``up`` or ``down``.
        burstiness: see :func:`burstiness`.

    """
    if f"{direction}_arrived_packets" not in account:
        return None
    arrived = int(number(account, f"{direction}_arrived_packets"))
    lost = int(number(account, f"{direction}_lost_packets"))
    expected = number(account, f"{direction}_expected_losses")
    return LossFidelity(
        arrived=arrived, lost=lost, expected=expected, z=_z(arrived, lost, expected, burstiness)
    )


def _z(arrived: int, lost: int, expected: float, burstiness: float) -> float | None:
    if lost == 0 and expected == 0:
        return None
    kept_share = 1 - expected / arrived if arrived > 0 else 1.0
    # At least one packet: where almost nothing is expected, a count has no less uncertainty.
    deviation = math.sqrt(max(1.0, burstiness * expected * kept_share))
    return (lost - expected) / deviation


def burstiness(schedule: ScheduleReader) -> dict[str, FloatArray]:
    """Return by how much bursts increase the variance of the number of lost packets.

    1 where losses are independent. The largest value of all packet classes, over some ticks spread
    over the schedule; by direction, shape ``(devices,)``.
    """
    chosen = np.unique(np.linspace(0, schedule.ticks - 1, _TICKS_LOOKED_AT).astype(int))
    ticks = [schedule.tick(int(index)) for index in chosen]
    return {
        "up": _largest([lane.loss for tick in ticks for lane in tick.up], schedule.devices),
        "down": _largest([lane.loss for tick in ticks for lane in tick.down], schedule.devices),
    }


def _largest(losses: list[PacketLoss], devices: int) -> FloatArray:
    largest: FloatArray = np.max([np.ones(devices), *map(variance_factor, losses)], axis=0)
    return largest


def variance_factor(loss: PacketLoss) -> FloatArray:
    """Return the variance of the losses in a long sequence over that of independent losses.

    The chain's state has the autocorrelation ``(1 - to_bad - to_good)^k`` over k packets, so the
    loss indicators have the covariance ``(in_bad - in_good)^2 b (1 - b) (1 - to_bad - to_good)^k``
    with b the share of the bad state; the factor is one plus twice the sum of these over their
    variance. For a chain that loses in the bad state alone, and then everything, it is the
    ``(1 + r) / (1 - r)`` of any first-order process.
    """
    moves = loss.to_bad + loss.to_good
    moving = moves > 0
    safe_moves = np.where(moving, moves, 1.0)
    bad = np.where(moving, loss.to_bad / safe_moves, 0.0)
    variance = loss.mean * (1 - loss.mean)
    covariances = (loss.in_bad - loss.in_good) ** 2 * bad * (1 - bad) * (1 - safe_moves)
    ratio = np.divide(covariances, variance, out=np.zeros_like(variance), where=variance > 0)
    factor: FloatArray = 1 + 2 * ratio / safe_moves
    return factor
