"""UMi and UMa of 3GPP TR 38.901 against hand-worked points, and their line of sight in space."""

import numpy as np
import pytest
from places import check_first_devices_keep_theirs, evaluate, line_scene, motion, on_line
from scenes import make_scene

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import MeanLoss, PathLossConfig
from fadelab_emulation.propagation.line_of_sight import LineOfSight
from fadelab_emulation.propagation.tr38901 import (
    Tr38901UmaConfig,
    Tr38901UmiConfig,
    roof_sight,
)
from fadelab_emulation.scene import Scene

# All points at 3.5 GHz: log10(3.5) = 0.544068, 20 log10(3.5) = 10.8814, 21.3 log10(3.5) = 11.5886.


def umi(ground_m: list[float], choice: str, device_height_m: float = 1.5) -> MeanLoss:
    config = Tr38901UmiConfig.model_validate({"line_of_sight": choice})
    scene = line_scene(len(ground_m), device_height_m=device_height_m)
    return evaluate(config, scene, ground_m)


def uma(ground_m: list[float], choice: str, device_height_m: float = 1.5) -> MeanLoss:
    config = Tr38901UmaConfig.model_validate({"line_of_sight": choice})
    scene = line_scene(len(ground_m), site_height_m=25.0, device_height_m=device_height_m)
    return evaluate(config, scene, ground_m)


def test_umi_with_line_of_sight() -> None:
    # Antennas 8.5 m apart in height; break point 4 * 9 * 0.5 * 3.5e9 / 3e8 = 210 m.
    #   10 m (and anything nearer): d = 13.1244, log10 = 1.118080
    #        32.4 + 21 * 1.118080 + 10.8814 = 66.7610
    #  100 m: d = 100.3606, log10 = 2.001563:  32.4 + 42.0328 + 10.8814 = 85.3142
    #  500 m: d = 500.0722, log10 = 2.699033; 9.5 log10(210^2 + 8.5^2) = 9.5 * 4.645149 = 44.1289
    #        32.4 + 107.9613 + 10.8814 - 44.1289 = 107.1138
    mean = umi([3.0, 10.0, 100.0, 500.0], "always")
    expected = [66.7610, 66.7610, 85.3142, 107.1138]
    assert mean.loss_db[:, 0].tolist() == pytest.approx(expected, abs=1e-3)
    assert mean.shadowing_std_db is not None
    assert mean.shadowing_std_db.tolist() == [[4.0]] * 4


def test_umi_without_line_of_sight() -> None:
    # 100 m: 22.4 + 35.3 * 2.001563 + 11.5886 = 104.6438
    # At 10 m height, d = 100, 0.3 (10 - 1.5) = 2.55: 22.4 + 70.6 + 11.5886 - 2.55 = 102.0386
    mean = umi([100.0], "never")
    assert mean.loss_db[0, 0] == pytest.approx(104.6438, abs=1e-3)
    assert mean.shadowing_std_db == pytest.approx(np.array([[7.82]]))
    assert umi([100.0], "never", 10.0).loss_db[0, 0] == pytest.approx(102.0386, abs=1e-3)


def test_uma_with_line_of_sight() -> None:
    # Antennas 23.5 m apart in height; break point 4 * 24 * 0.5 * 3.5e9 / 3e8 = 560 m.
    #  200 m: d = 201.3759, log10 = 2.304007:  28 + 22 * 2.304007 + 10.8814 = 89.5695
    # 1000 m: log10(d) = 3.000120; 9 log10(560^2 + 23.5^2) = 9 * 5.497140 = 49.4743
    #         28 + 120.0048 + 10.8814 - 49.4743 = 109.4119
    mean = uma([200.0, 1000.0], "always")
    assert mean.loss_db[:, 0].tolist() == pytest.approx([89.5695, 109.4119], abs=1e-3)
    assert mean.shadowing_std_db is not None
    assert mean.shadowing_std_db.tolist() == [[4.0], [4.0]]


def test_uma_without_line_of_sight() -> None:
    # 200 m: 13.54 + 39.08 * 2.304007 + 10.8814 = 114.4620
    # At 10 m height: d = 200.5617, log10 = 2.302248, 0.6 (10 - 1.5) = 5.1
    #         13.54 + 89.9719 + 10.8814 - 5.1 = 109.2932
    mean = uma([200.0], "never")
    assert mean.loss_db[0, 0] == pytest.approx(114.4620, abs=1e-3)
    assert mean.shadowing_std_db == pytest.approx(np.array([[6.0]]))
    assert uma([200.0], "never", 10.0).loss_db[0, 0] == pytest.approx(109.2932, abs=1e-3)


def test_no_line_of_sight_is_never_better_than_line_of_sight() -> None:
    # 22.5 m high and 10 m away: d = 10.3078, log10 = 1.013164. Without line of sight it would be
    # 13.54 + 39.5945 + 10.8814 - 12.6 = 51.4158, with it 28 + 22.2896 + 10.8814 = 61.1710.
    assert uma([10.0], "never", 22.5).loss_db[0, 0] == pytest.approx(61.1710, abs=1e-3)


def test_loss_is_continuous_at_the_break_point() -> None:
    for mean in (umi([209.999, 210.001], "always"), uma([559.999, 560.001], "always")):
        assert mean.loss_db[0, 0] == pytest.approx(mean.loss_db[1, 0], abs=1e-3)
        assert mean.loss_db[0, 0] < mean.loss_db[1, 0]


DEVICES = 20_000
FOUR_SIGMA = 4 * np.sqrt(0.25 / DEVICES)


def share_in_sight(config: PathLossConfig, scene: Scene, ground_m: float) -> float:
    mean = evaluate(config, scene, [ground_m] * scene.devices)
    assert mean.shadowing_std_db is not None
    return float((mean.shadowing_std_db == 4.0).mean())


@pytest.mark.parametrize(
    ("ground_m", "probability"),
    [
        (17.9, 1.0),
        (50.0, 0.5196),  # 0.36 + exp(-50/36) * 0.64 = 0.36 + 0.24935 * 0.64
        (100.0, 0.2310),  # 0.18 + exp(-100/36) * 0.82 = 0.18 + 0.06218 * 0.82
    ],
)
def test_share_of_links_in_sight_umi(ground_m: float, probability: float) -> None:
    share = share_in_sight(Tr38901UmiConfig(), line_scene(DEVICES), ground_m)
    assert share == pytest.approx(probability, abs=FOUR_SIGMA)


@pytest.mark.parametrize(
    ("device_height_m", "ground_m", "probability"),
    [
        (1.5, 18.0, 1.0),
        (1.5, 100.0, 0.3477),  # 0.18 + exp(-100/63) * 0.82 = 0.18 + 0.20448 * 0.82
        # 20.5 m high: C' = 0.75^1.5 = 0.64952; at 200 m, 5/4 * 2^3 * exp(-200/150) = 2.63597:
        # (0.09 + exp(-200/63) * 0.91) * (1 + 0.64952 * 2.63597) = 0.12805 * 2.71211
        (20.5, 200.0, 0.3473),
        (13.0, 200.0, 0.1280),
    ],
)
def test_share_of_links_in_sight_uma(
    device_height_m: float, ground_m: float, probability: float
) -> None:
    scene = line_scene(DEVICES, site_height_m=25.0, device_height_m=device_height_m)
    share = share_in_sight(Tr38901UmaConfig(), scene, ground_m)
    assert share == pytest.approx(probability, abs=FOUR_SIGMA)


def test_high_devices_have_the_roofs_as_their_ground_now_and_then() -> None:
    # At 20.5 m and 1000 m: C = 0.64952 * 5/4 * 10^3 * exp(-1000/150) = 1.03325, so the ground is
    # the street with probability 1/2.03325 = 0.4918 and 12, 15 or 18 m with 0.1694 each. Break
    # points: 21840 m, 5157 m, 2567 m and, with 18 m, 4 * 7 * 2.5 * 35/3 = 816.7 m: only there does
    # the steep part show. log10(d) = 3.000004:
    #   28 + 66.0001 + 10.8814 = 104.8815;  28 + 120.0002 + 10.8814 - 9 * 5.824103 = 106.4646
    loss_db = uma([1000.0] * DEVICES, "always", 20.5).loss_db[:, 0]
    steep = loss_db > 105
    assert loss_db[~steep] == pytest.approx(104.8815, abs=1e-3)
    assert loss_db[steep] == pytest.approx(106.4646, abs=1e-3)
    assert steep.mean() == pytest.approx(0.1694, abs=FOUR_SIGMA)


def test_roof_sight_by_hand() -> None:
    # At 15 m: 0.2^1.5 = 0.0894427; at 300 m, 5/4 * 27 * exp(-2) = 33.75 * 0.1353353 = 4.567566.
    values = roof_sight(np.array([18.0, 300.0]), 15.0)
    assert values == pytest.approx([0.0, 0.408536], abs=1e-6)
    assert roof_sight(np.array([200.0]), 23.0) == pytest.approx([10 * 0.2635971], abs=1e-6)


def test_just_above_the_least_height_there_is_no_roof_to_choose() -> None:
    # At 13.2 m, the roofs of 12 m are not yet 1.5 m below.
    assert uma([1000.0], "always", 13.2).loss_db[0, 0] == pytest.approx(
        uma([1000.0], "always", 13.0).loss_db[0, 0], abs=0.01
    )


@pytest.mark.parametrize(("step_m", "steps"), [(5.0, 5), (25.0, 1), (0.5, 50)])
def test_line_of_sight_lasts_along_the_path(step_m: float, steps: int) -> None:
    """Two normals of correlation r = exp(-25/50) have one sign with probability 1/2 + asin(r)/pi.

    asin(0.606531) = 0.651691, so 0.7074 of the links that are as likely in sight as not are after
    25 m in the state they were in.
    """
    model = LineOfSight("random", line_scene(DEVICES))
    even: FloatArray = np.full((DEVICES, 1), 0.5)
    first = model.advance(even, np.zeros(DEVICES))
    last = first
    for _ in range(steps):
        last = model.advance(even, np.full(DEVICES, step_m))
    assert (first == last).mean() == pytest.approx(0.7074, abs=FOUR_SIGMA)


def test_a_device_that_stands_keeps_its_line_of_sight() -> None:
    scene = line_scene(500)
    model = Tr38901UmiConfig().build(scene)
    geometry = scene.geometry(on_line([60.0] * 500))
    first = model.advance(geometry, motion(500)).loss_db
    assert len(np.unique(first)) == 2
    for _ in range(10):
        assert np.array_equal(model.advance(geometry, motion(500)).loss_db, first)
    assert not np.array_equal(model.advance(geometry, motion(500, 30.0)).loss_db, first)


def test_sites_are_seen_independently() -> None:
    scene = make_scene(DEVICES, sites_m=[(0.0, 0.0), (0.0, 0.0)])
    mean = (
        Tr38901UmiConfig()
        .build(scene)
        .advance(scene.geometry(on_line([52.0] * DEVICES)), motion(DEVICES))
    )
    assert mean.shadowing_std_db is not None
    assert mean.loss_db.shape == (DEVICES, 2)
    correlation = np.corrcoef(mean.shadowing_std_db.T)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(DEVICES)


def test_first_devices_keep_theirs() -> None:
    check_first_devices_keep_theirs(Tr38901UmiConfig())
    check_first_devices_keep_theirs(Tr38901UmaConfig(), site_height_m=25.0)


@pytest.mark.parametrize(
    ("scene", "sentence"),
    [
        ({"carrier_hz": 0.4e9}, r"UMi .* 0\.5 to 100 GHz, but carrier_hz is 0\.4 GHz"),
        ({"carrier_hz": 101e9}, "carrier_hz is 101 GHz"),
        ({"site_height_m": 25.0}, "base stations at 10 m, but site_height_m is 25"),
        ({"device_height_m": 1.0}, r"devices at 1\.5 to 22\.5 m, but device_height_m is 1"),
        ({"device_height_m": 23.0}, "but device_height_m is 23"),
    ],
)
def test_what_the_standard_does_not_cover_is_refused(
    scene: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Tr38901UmiConfig().build(line_scene(**scene))


def test_uma_asks_for_its_own_height() -> None:
    with pytest.raises(ValueError, match=r"UMa .* base stations at 25 m, but site_height_m is 10"):
        Tr38901UmaConfig().build(line_scene())


def test_an_area_too_large_is_refused_unless_it_wraps_around() -> None:
    area_m = (6000.0, 800.0)
    corner = make_scene(area_m=area_m, sites_m=[(3000.0, 400.0), (0.0, 0.0)])
    with pytest.raises(ValueError, match=r"up to 5000 m on the ground, .* can be 6053 m"):
        Tr38901UmiConfig().build(corner)
    Tr38901UmiConfig().build(make_scene(area_m=area_m, sites_m=[(3000.0, 400.0)]))
    Tr38901UmiConfig().build(make_scene(area_m=area_m, sites_m=[(0.0, 0.0)], wrap_around=True))
