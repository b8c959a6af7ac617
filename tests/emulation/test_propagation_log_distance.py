"""Log-distance path loss against hand-worked points."""

import numpy as np
import pytest

from fadelab_emulation.propagation.log_distance import (
    LogDistance,
    LogDistanceConfig,
    free_space_loss_db,
)
from fadelab_emulation.scene import Scene


def built(config: LogDistanceConfig, carrier_hz: float = 5.9e9) -> LogDistance:
    return config.build(Scene((10.0, 10.0), (5.0, 5.0), carrier_hz, 1, 0))


@pytest.mark.parametrize(
    ("distance_m", "carrier_hz", "loss_db"),
    [
        # 32.45 + 20 log10(f/MHz) + 20 log10(d/km), by hand.
        (1.0, 2.4e9, 40.05),
        (1.0, 5.9e9, 47.86),
        (1000.0, 1e9, 92.45),
    ],
)
def test_free_space_by_hand(distance_m: float, carrier_hz: float, loss_db: float) -> None:
    assert free_space_loss_db(distance_m, carrier_hz) == pytest.approx(loss_db, abs=0.01)


def test_exponent_two_is_free_space_everywhere() -> None:
    model = built(LogDistanceConfig(exponent=2.0))
    for distance_m in (1.0, 37.0, 900.0):
        expected = free_space_loss_db(distance_m, 5.9e9)
        assert model.loss_db(np.array([distance_m]))[0] == pytest.approx(expected)


def test_a_decade_costs_ten_times_the_exponent() -> None:
    model = built(LogDistanceConfig(exponent=3.5, reference_distance_m=2.0, reference_loss_db=60.0))
    assert model.loss_db(np.array([2.0, 20.0, 200.0])) == pytest.approx([60.0, 95.0, 130.0])


def test_nearer_than_the_reference_is_as_at_the_reference() -> None:
    model = built(LogDistanceConfig(reference_distance_m=5.0, reference_loss_db=50.0))
    assert model.loss_db(np.array([0.0, 1.0, 5.0])).tolist() == [50.0, 50.0, 50.0]


def test_no_antenna_amplifies() -> None:
    model = built(LogDistanceConfig(reference_distance_m=0.1), carrier_hz=1e6)
    assert model.loss_db(np.array([0.1]))[0] == 0.0


@pytest.mark.parametrize(
    "field", [{"exponent": 0.5}, {"reference_distance_m": 0.0}, {"reference_loss_db": -3.0}]
)
def test_impossible_settings_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="greater than"):
        LogDistanceConfig.model_validate(field)
