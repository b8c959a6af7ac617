"""Free space against hand-worked points."""

import numpy as np
import pytest
from places import check_first_devices_keep_theirs, evaluate, line_scene

from fadelab_emulation.propagation.free_space import FreeSpaceConfig, free_space_loss_db


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
    assert free_space_loss_db(np.array(distance_m), carrier_hz) == pytest.approx(loss_db, abs=0.01)


def test_heights_count_and_no_antenna_amplifies() -> None:
    # Antennas 8.5 m above each other; then, at one height and 0.01 m, 4 pi d f / c < 1.
    above = evaluate(FreeSpaceConfig(), line_scene(), [0.0]).loss_db
    assert above[0, 0] == pytest.approx(32.45 + 70.88 - 41.41, abs=0.02)
    beside = line_scene(site_height_m=1.5, carrier_hz=1e9)
    assert evaluate(FreeSpaceConfig(), beside, [0.01]).loss_db[0, 0] == 0.0


def test_first_devices_keep_theirs() -> None:
    check_first_devices_keep_theirs(FreeSpaceConfig())
