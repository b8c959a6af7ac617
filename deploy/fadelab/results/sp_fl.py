"""What arrived of signs and moduli, against what was predicted: the summary's part on SP-FL."""

import math

import numpy as np
from numpy.typing import NDArray

from fadelab.methods import SpFlMethod
from fadelab.results.record import Event, RunRecord, number
from fadelab.results.sp_fl_schema import ClassArrivals, SpFlRounds
from fadelab_emulation.rate.class_rates import MODULUS, SIGN
from fadelab_emulation.schedule import ScheduleReader

_Z = 1.96
"""Standard deviations on either side that hold 95 % of a normal distribution."""


def sp_fl_rounds(record: RunRecord) -> SpFlRounds | None:
    """Return what became of the rounds' packets; None if the method is another."""
    method = record.experiment.method
    if not isinstance(method, SpFlMethod):
        return None
    rounds = record.of("server", "sp_fl_round")
    signs = [pair for event in rounds for pair in _pairs(event, "predicted_sign", "arrived_sign")]
    # Moduli were predicted given the signs; without these they do not count.
    moduli = [
        (predicted, arrived / sign)
        for event in rounds
        for (predicted, arrived), sign in zip(
            _pairs(event, "predicted_modulus", "arrived_modulus"),
            _numbers(event, "arrived_sign"),
            strict=True,
        )
        if sign > 0
    ]
    kappas = [event["kappa"] for event in rounds if isinstance(event.get("kappa"), float)]
    power = [share for event in rounds for share in _numbers(event, "power")]
    arrived = [sign > 0 for sign, _ in (pair for event in rounds for pair in _arrived(event))]
    sign_carried, modulus_carried = _carried(record, rounds)
    given_signs = [own for own, sign in zip(modulus_carried, arrived, strict=False) if sign]
    return SpFlRounds(
        loss=method.loss,
        rounds=len(rounds),
        updates=len(signs),
        both=sum(sign > 0 and modulus > 0 for event in rounds for sign, modulus in _arrived(event)),
        signs_alone=sum(
            sign > 0 and modulus == 0 for event in rounds for sign, modulus in _arrived(event)
        ),
        none=sum(sign == 0 for event in rounds for sign, _ in _arrived(event)),
        sign=_arrivals(signs, sign_carried),
        modulus=_arrivals(moduli, given_signs),
        mean_sign_power=sum(power) / len(power) if power else None,
        last_kappa=float(str(kappas[-1])) if kappas else None,
    )


def _carried(record: RunRecord, rounds: list[Event]) -> tuple[list[bool], list[bool]]:
    """Return for all updates whether links would have carried signs and moduli at their rates.

    Empty where rounds do not end at a deadline, or nobody recorded what links were to do.
    """
    schedule, start_s = record.schedule, record.start_mono_s
    timed = [event for event in rounds if isinstance(event.get("end_mono_s"), float)]
    method = record.experiment.method
    by_deadline = isinstance(method, SpFlMethod) and method.loss == "deadline"
    if not by_deadline or schedule is None or start_s is None or len(timed) < len(rounds):
        return [], []
    found: list[list[bool]] = []
    for name, key in ((SIGN, "sign_bits"), (MODULUS, "modulus_bits")):
        rate_bps = schedule.lane_rate_bps(schedule.lanes.index(name), uplink=True)
        found.append(
            [
                bool(bits >= number(event, key))
                for event in timed
                for bits in _bits(event, start_s, schedule, rate_bps)
            ]
        )
    return found[0], found[1]


def _bits(
    event: Event, start_s: float, schedule: ScheduleReader, rate_bps: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return what a class has carried in a round at its rates, for the round's devices."""
    begin_s, end_s = (number(event, name) - start_s for name in ("begin_mono_s", "end_mono_s"))
    edges_s = np.arange(len(rate_bps) + 1) * schedule.tick_s
    during_s = np.diff(np.clip(edges_s, begin_s, end_s))
    devices = [int(device) for device in _numbers(event, "devices")]
    bits: NDArray[np.float64] = during_s @ rate_bps[:, devices].astype(np.float64)
    return bits


def _arrivals(pairs: list[tuple[float, float]], carried: list[bool]) -> ClassArrivals:
    """Return how what was predicted compares with what arrived.

    The number of arrivals is a sum of independent trials with the predicted probabilities; a
    normal approximation of it, half an arrival wider (continuity), gives the interval.
    """
    count = len(pairs)
    if not count:
        return ClassArrivals(packets=0)
    expected = math.fsum(predicted for predicted, _ in pairs)
    arrived = math.fsum(share for _, share in pairs)
    deviation = math.sqrt(math.fsum(p * (1 - p) for p, _ in pairs))
    reach = (_Z * deviation + 0.5) / count
    predicted, empirical = expected / count, arrived / count
    return ClassArrivals(
        packets=count,
        predicted=predicted,
        empirical=empirical,
        low=max(0.0, predicted - reach),
        high=min(1.0, predicted + reach),
        inside=abs(empirical - predicted) <= reach,
        carried=sum(carried) / len(carried) if carried else None,
    )


def _arrived(event: Event) -> list[tuple[float, float]]:
    return _pairs(event, "arrived_sign", "arrived_modulus")


def _pairs(event: Event, first: str, second: str) -> list[tuple[float, float]]:
    return list(zip(_numbers(event, first), _numbers(event, second), strict=True))


def _numbers(event: Event, key: str) -> list[float]:
    value = event.get(key)
    return [float(number) for number in value] if isinstance(value, list) else []
