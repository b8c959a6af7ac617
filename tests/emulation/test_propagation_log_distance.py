"""Log-distance path loss against hand-worked points."""

import numpy as np
import pytest
from places import check_first_devices_keep_theirs, evaluate, line_scene

from fadelab_emulation.propagation.free_space import free_space_loss_db
from fadelab_emulation.propagation.log_distance import LogDistanceConfig


def losses_db(
    config: LogDistanceConfig,
    ground_m: list[float],
    carrier_hz: float = 5.9e9,
    site_height_m: float = 1.5,
) -> list[float]:
    scene = line_scene(len(ground_m), carrier_hz=carrier_hz, site_height_m=site_height_m)
    return evaluate(config, scene, ground_m).loss_db[:, 0].tolist()


def test_exponent_two_is_free_space_everywhere() -> None:
    ground_m = [1.0, 37.0, 900.0]
    expected = free_space_loss_db(np.array(ground_m), 5.9e9)
    assert losses_db(LogDistanceConfig(exponent=2.0), ground_m) == pytest.approx(expected)


def test_a_decade_costs_ten_times_the_exponent() -> None:
    config = LogDistanceConfig(exponent=3.5, reference_distance_m=2.0, reference_loss_db=60.0)
    assert losses_db(config, [2.0, 20.0, 200.0]) == pytest.approx([60.0, 95.0, 130.0])


def test_nearer_than_the_reference_is_as_at_the_reference() -> None:
    config = LogDistanceConfig(reference_distance_m=5.0, reference_loss_db=50.0)
    assert losses_db(config, [0.0, 1.0, 5.0]) == [50.0, 50.0, 50.0]


def test_no_antenna_amplifies() -> None:
    config = LogDistanceConfig(reference_distance_m=0.1)
    assert losses_db(config, [0.1], carrier_hz=1e6) == [0.0]


def test_the_usual_cell_free_gain() -> None:
    # -30.5 - 36.7 log10(d) dB with access points 10 m above the devices: at 100 m on the ground,
    # d = sqrt(100^2 + 10^2) = 100.4988 m, log10(d) = 2.002161, 36.7 * 2.002161 = 73.4793.
    config = LogDistanceConfig(exponent=3.67, reference_loss_db=30.5)
    assert losses_db(config, [100.0], site_height_m=11.5) == pytest.approx([103.9793], abs=1e-3)


def test_it_leaves_shadowing_to_the_settings() -> None:
    assert evaluate(LogDistanceConfig(), line_scene(), [50.0]).shadowing_std_db is None


def test_first_devices_keep_theirs() -> None:
    check_first_devices_keep_theirs(LogDistanceConfig())


@pytest.mark.parametrize(
    "field", [{"exponent": 0.5}, {"reference_distance_m": 0.0}, {"reference_loss_db": -3.0}]
)
def test_impossible_settings_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="greater than"):
        LogDistanceConfig.model_validate(field)
