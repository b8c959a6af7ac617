"""What single measurements are allowed."""

import pytest

from fadelab.experiment import ValidityConfig
from fadelab.results.bounds import (
    calibrated_delay_holds,
    calibrated_rate_holds,
    delay_holds,
    loss_holds,
)
from fadelab.results.schema import DelayFidelity, LossFidelity

BOUNDS = ValidityConfig()


def delay(error_ms: float, *, jitter_ms: float = 0.0, probes: int = 25) -> DelayFidelity:
    return DelayFidelity(
        programmed_ms=100.0,
        achieved_ms=100.0 + error_ms,
        error_ms=error_ms,
        jitter_ms=jitter_ms,
        transmission_ms=0.25,
        probes=probes,
    )


@pytest.mark.parametrize(
    ("found", "fine"),
    [
        # 1 % of 100 ms and 0.5 ms; upwards also the 0.25 ms that a probe takes to be sent.
        (delay(1.74), True),
        (delay(1.76), False),
        (delay(-1.49), True),
        (delay(-1.51), False),
        (delay(9.0, probes=4), True),
        (delay(9.0, probes=5), False),
        # 5 standard errors of the median of 25 probes: 5 * sqrt(3) * 10 / 5 = 17.3 ms more.
        (delay(19.0, jitter_ms=10.0), True),
        (delay(19.1, jitter_ms=10.0), False),
        (None, True),
    ],
)
def test_delays(found: DelayFidelity | None, fine: bool) -> None:
    assert delay_holds(found, BOUNDS) is fine


@pytest.mark.parametrize(
    ("lost", "expected", "z", "fine"),
    [
        (150, 100.0, 4.9, True),
        (152, 100.0, 5.1, False),
        (49, 100.0, -5.1, False),
        (19, 2.0, 9.0, True),
        (20, 2.0, 9.0, False),
        (0, 0.0, None, True),
    ],
)
def test_losses(lost: int, expected: float, z: float | None, fine: bool) -> None:
    found = LossFidelity(arrived=10_000, lost=lost, expected=expected, z=z)
    assert loss_holds(found, BOUNDS) is fine
    assert loss_holds(None, BOUNDS)


@pytest.mark.parametrize(
    ("programmed_bps", "error_bps", "fine"),
    [
        # 2 % of 20 Mbit/s.
        (20e6, 399e3, True),
        (20e6, -401e3, False),
        # 1 Mbit/s in 60 packets of 625 bytes: two of them in 0.3 s are 33.3 kbit/s.
        (1e6, 33e3, True),
        (1e6, 34e3, False),
        # 64 kbit/s: packets are no smaller than 100 bytes, two of them are 5.33 kbit/s.
        (64e3, -5.3e3, True),
        (64e3, -5.4e3, False),
    ],
)
def test_calibrated_rates(programmed_bps: float, error_bps: float, fine: bool) -> None:
    assert calibrated_rate_holds(programmed_bps, programmed_bps + error_bps, BOUNDS) is fine


@pytest.mark.parametrize(
    ("achieved_ms", "jitter_ms", "fine"),
    [
        # 20 ms, 1 % of it and 0.5 ms; upwards also the 8 ms that a probe takes to be sent.
        (28.69, 0.0, True),
        (28.71, 0.0, False),
        (19.31, 0.0, True),
        (19.29, 0.0, False),
        (14.0, 2.0, True),
        (None, 0.0, False),
    ],
)
def test_calibrated_delays(achieved_ms: float | None, jitter_ms: float, fine: bool) -> None:
    found = calibrated_delay_holds(
        20.0, achieved_ms, BOUNDS, jitter_ms=jitter_ms, transmission_ms=8.0
    )
    assert found is fine
