"""Roads of 3GPP TR 37.885 against hand-worked points, and vehicles in the way."""

import numpy as np
import pytest
from places import check_first_devices_keep_theirs, evaluate, line_scene, motion, on_line
from scenes import make_scene

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.tr37885 import BlockageLaw, Tr37885Config, blockage_law
from fadelab_emulation.scene import Scene

# All points at 5.9 GHz: log10(5.9) = 0.770852; antennas at 10 and 1.5 m, so that 100 m on the
# ground are d = 100.3606 m, log10(d) = 2.001563.
URBAN_DB = 86.2256  # 38.77 + 16.7 * 2.001563 + 18.2 * 0.770852 = 38.77 + 33.4261 + 14.0295
HIGHWAY_DB = 87.8483  # 32.4 + 20 * 2.001563 + 20 * 0.770852 = 32.4 + 40.0313 + 15.4170
BUILDINGS_DB = 111.4660  # 36.85 + 30 * 2.001563 + 18.9 * 0.770852 = 36.85 + 60.0469 + 14.5691

DEVICES = 20_000


def v2x(devices: int = 1, site_height_m: float = 10.0, device_height_m: float = 1.5) -> Scene:
    return line_scene(
        devices,
        carrier_hz=5.9e9,
        site_height_m=site_height_m,
        device_height_m=device_height_m,
    )


def config(**settings: object) -> Tr37885Config:
    return Tr37885Config.model_validate(settings)


@pytest.mark.parametrize(("scenario", "loss_db"), [("urban", URBAN_DB), ("highway", HIGHWAY_DB)])
def test_with_line_of_sight(scenario: str, loss_db: float) -> None:
    mean = evaluate(config(scenario=scenario, line_of_sight="always"), v2x(), [100.0])
    assert mean.loss_db[0, 0] == pytest.approx(loss_db, abs=1e-3)
    assert mean.shadowing_std_db == pytest.approx(np.array([[3.0]]))


def test_buildings_stand_between_different_streets() -> None:
    # Streets of 20 m through the base station along x and y; 100 m away in all three cases.
    scene = make_scene(3, area_m=(500.0, 500.0), sites_m=[(0.0, 0.0)], carrier_hz=5.9e9)
    place_m = np.array([[99.5, 9.987], [60.0, 80.0], [0.0, 100.0]])
    model = config(line_of_sight="always", street_width_m=20).build(scene)
    mean = model.advance(scene.geometry(place_m), motion(3))
    expected = [URBAN_DB, BUILDINGS_DB, URBAN_DB]
    assert mean.loss_db[:, 0].tolist() == pytest.approx(expected, abs=1e-3)
    assert mean.shadowing_std_db is not None
    assert mean.shadowing_std_db[:, 0].tolist() == [3.0, 4.0, 3.0]


@pytest.mark.parametrize(
    ("scenario", "ground_m", "probability"),
    [
        ("highway", 5.0, 1.0),
        ("highway", 100.0, 0.8403),  # 2.1013e-6 * 1e4 - 0.2 + 1.0193 = 0.0210 - 0.2 + 1.0193
        ("highway", 475.0, 0.5434),  # 2.1013e-6 * 225625 - 0.95 + 1.0193 = 0.4741 - 0.95 + 1.0193
        ("highway", 600.0, 0.4150),  # 0.54 - 0.001 * 125
        ("highway", 1100.0, 0.0),  # 0.54 - 0.625 < 0
        ("urban", 4.0, 1.0),  # 1.05 * exp(-0.0456) = 1.003
        ("urban", 100.0, 0.3358),  # 1.05 * exp(-1.14) = 1.05 * 0.31982
    ],
)
def test_share_of_links_in_sight(scenario: str, ground_m: float, probability: float) -> None:
    drawn_db, in_sight_db, behind_db = (
        evaluate(
            config(scenario=scenario, line_of_sight=choice), v2x(DEVICES), [ground_m] * DEVICES
        ).loss_db
        for choice in ("random", "always", "never")
    )
    # Where the vehicle, the same in both, would cost anything at all, the states can be told apart.
    telling = behind_db > in_sight_db
    in_sight = drawn_db[telling] == in_sight_db[telling]
    assert np.all(in_sight | (drawn_db[telling] == behind_db[telling]))
    sigma = np.sqrt(probability * (1 - probability) / in_sight.size)
    assert in_sight.mean() == pytest.approx(probability, abs=4 * sigma + 1e-4)


def vehicle_losses_db(
    *, lorry_share: float = 0.0, site_height_m: float, device_height_m: float, ground_m: float
) -> FloatArray:
    scene = v2x(DEVICES, site_height_m, device_height_m)
    where = [ground_m] * DEVICES
    behind = config(lorry_share=lorry_share, line_of_sight="never")
    with_vehicle = evaluate(behind, scene, where).loss_db
    without = evaluate(config(line_of_sight="always"), scene, where).loss_db
    return (with_vehicle - without)[:, 0]


@pytest.mark.parametrize(
    ("site_height_m", "device_height_m", "lorry_share", "ground_m", "mean_db"),
    [
        # Mean of max(0, N(m, s)): m Phi(m/s) + s phi(m/s).
        # One antenna above the car, m = 5, s = 4: 5 * 0.894350 + 4 * 0.182649 = 5.2023
        (10.0, 1.5, 0.0, 100.0, 5.2023),
        # 1000 m: m = 5 + 15 * 3 - 41 = 9, s = 4: 9 * 0.987776 + 4 * 0.031740 = 9.0169
        (10.0, 1.5, 0.0, 1000.0, 9.0169),
        # Both below, m = 9, s = 4.5: 9 * 0.977250 + 4.5 * 0.053991 = 9.0382
        (1.5, 1.5, 0.0, 100.0, 9.0382),
        # Both above a car, one above a lorry, a quarter are lorries: 5.2023 / 4 = 1.3006
        (5.0, 2.0, 0.25, 100.0, 1.3006),
        (5.0, 2.0, 0.0, 100.0, 0.0),
        (5.0, 3.5, 1.0, 100.0, 0.0),
    ],
)
def test_mean_loss_behind_a_vehicle(
    site_height_m: float,
    device_height_m: float,
    lorry_share: float,
    ground_m: float,
    mean_db: float,
) -> None:
    loss_db = vehicle_losses_db(
        lorry_share=lorry_share,
        site_height_m=site_height_m,
        device_height_m=device_height_m,
        ground_m=ground_m,
    )
    assert loss_db.min() >= -1e-9
    assert loss_db.mean() == pytest.approx(mean_db, abs=4 * 4.5 / np.sqrt(DEVICES))


def test_loss_behind_a_vehicle_is_normal_in_db_above_its_floor() -> None:
    loss_db = vehicle_losses_db(site_height_m=10.0, device_height_m=1.5, ground_m=100.0)
    # Quantiles of N(5, 4): Phi(0) = 0.5 at 5 dB, Phi(1) = 0.8413 at 9 dB, Phi(-1.25) = 0.1056 at 0.
    for at_db, share in ((1e-9, 0.1056), (5.0, 0.5), (9.0, 0.8413)):
        assert (loss_db <= at_db).mean() == pytest.approx(share, abs=4 * np.sqrt(0.25 / DEVICES))


def test_law_by_heights() -> None:
    assert blockage_law(5.0, 2.0, 1.6) is None
    assert blockage_law(1.5, 1.5, 1.6) == BlockageLaw(9.0, 4.5)
    assert blockage_law(10.0, 1.5, 1.6) == BlockageLaw(5.0, 4.0)
    assert blockage_law(1.6, 1.6, 1.6) == BlockageLaw(5.0, 4.0)


def test_a_vehicle_in_the_way_stays_there_along_the_path() -> None:
    scene = v2x(DEVICES)
    model = config(line_of_sight="never").build(scene)
    geometry = scene.geometry(on_line([100.0] * DEVICES))
    first = model.advance(geometry, motion(DEVICES)).loss_db[:, 0]
    assert np.array_equal(model.advance(geometry, motion(DEVICES)).loss_db[:, 0], first)
    # 10 m of 50: correlation exp(-0.2) = 0.819, a little less for losses cut off at 0 dB.
    later = model.advance(geometry, motion(DEVICES, 10.0)).loss_db[:, 0]
    assert 0.75 < np.corrcoef(first, later)[0, 1] < 0.83


def test_antennas_at_one_place_have_a_finite_loss() -> None:
    mean = evaluate(config(line_of_sight="always"), v2x(1, 1.5, 1.5), [0.0])
    assert mean.loss_db[0, 0] == pytest.approx(38.77 + 14.0295, abs=1e-3)


def test_first_devices_keep_theirs() -> None:
    for settings in ({}, {"scenario": "highway"}, {"lorry_share": 0.5, "street_width_m": 100.0}):
        check_first_devices_keep_theirs(config(**settings), site_height_m=2.0)


def test_a_highway_has_no_streets() -> None:
    with pytest.raises(ValueError, match="street_width_m is for the urban scenario"):
        config(scenario="highway", street_width_m=20)
