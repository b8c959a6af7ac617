"""What arrived of signs and moduli, against what was predicted: the summary's part on SP-FL."""

import math

from fadelab.methods import SpFlMethod
from fadelab.results.record import Event, RunRecord
from fadelab.results.sp_fl_schema import ClassArrivals, SpFlRounds

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
    return SpFlRounds(
        loss=method.loss,
        rounds=len(rounds),
        updates=len(signs),
        both=sum(sign > 0 and modulus > 0 for event in rounds for sign, modulus in _arrived(event)),
        signs_alone=sum(
            sign > 0 and modulus == 0 for event in rounds for sign, modulus in _arrived(event)
        ),
        none=sum(sign == 0 for event in rounds for sign, _ in _arrived(event)),
        sign=_arrivals(signs),
        modulus=_arrivals(moduli),
        mean_sign_power=sum(power) / len(power) if power else None,
        last_kappa=float(str(kappas[-1])) if kappas else None,
    )


def _arrivals(pairs: list[tuple[float, float]]) -> ClassArrivals:
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
    )


def _arrived(event: Event) -> list[tuple[float, float]]:
    return _pairs(event, "arrived_sign", "arrived_modulus")


def _pairs(event: Event, first: str, second: str) -> list[tuple[float, float]]:
    return list(zip(_numbers(event, first), _numbers(event, second), strict=True))


def _numbers(event: Event, key: str) -> list[float]:
    value = event.get(key)
    return [float(number) for number in value] if isinstance(value, list) else []
