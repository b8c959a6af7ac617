"""What SP-FL decides for a round: who sends, and when moduli are worth their resources."""

from typing import Any

import numpy as np
import pytest
from tests.server.sp_fl_cell import DEVICES, cell

from fadelab_server.allocator.sp_fl_round import RoundDecision, UpdateFigures, decide_round
from fadelab_server.sp_fl_config import SpFlConfig

KNOWN = UpdateFigures(1.0, 0.7, 0.15, compensation_energy=0.8)


def decided(deadline_s: float, figures: UpdateFigures = KNOWN, **settings: Any) -> RoundDecision:
    config = SpFlConfig.model_validate({"deadline_s": deadline_s} | settings)
    return decide_round(config, cell(deadline_s), dict.fromkeys(range(DEVICES), figures), kappa=0.3)


def test_until_something_stands_in_for_moduli_they_are_sent_however_coarse() -> None:
    coarse = UpdateFigures(1.0, 0.0, 6.0, compensation_energy=0.0)
    first = decided(0.15, coarse)
    assert np.max(first.sign_success * first.modulus_success) > 0.5
    later = decided(0.15, UpdateFigures(1.0, 0.7, 6.0, compensation_energy=0.8))
    assert np.max(later.modulus_success) < 0.05
    assert np.min(later.sign_success) > 0.5


def test_signs_come_first_once_moduli_are_known() -> None:
    unknown = UpdateFigures(1.0, 0.0, 0.15, compensation_energy=0.0)
    before = decided(0.15, unknown, allocation="signs_first")
    after = decided(0.15, allocation="signs_first")
    np.testing.assert_allclose(before.shares.power, before.shares.sign)
    np.testing.assert_allclose(after.shares.power, 0.99)
    assert np.all(after.sign_success > before.sign_success)


@pytest.mark.parametrize("allocation", ["power", "bandwidth", "full"])
def test_what_is_decided_is_better_than_an_equal_division(allocation: str) -> None:
    assert (
        decided(0.2, allocation=allocation).objective < decided(0.2, allocation="equal").objective
    )


def test_the_best_channels_alone_share_all_resources() -> None:
    found = decided(0.2, scheduled=0.5, allocation="equal", packets="joint")
    assert found.devices == tuple(range(DEVICES // 2))
    np.testing.assert_allclose(found.shares.band, 2 / DEVICES)
    everybody = decided(0.2, allocation="equal", packets="joint")
    assert np.all(found.sign_success > everybody.sign_success[: DEVICES // 2])


def test_devices_out_of_reach_stay_silent() -> None:
    found = decided(0.01)
    assert 0 < len(found.devices) < DEVICES
    assert decided(0.01, allocation="equal").devices == tuple(range(DEVICES))
