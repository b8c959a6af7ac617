"""COST-Hata with three slopes against hand-worked points of Ngo et al. 2017."""

import pytest
from places import check_first_devices_keep_theirs, evaluate, line_scene

from fadelab_emulation.propagation.three_slope import ThreeSlopeConfig
from fadelab_emulation.scene import Scene


def ngo_scene(devices: int = 1, **other: float) -> Scene:
    return line_scene(
        devices, **{"carrier_hz": 1.9e9, "site_height_m": 15.0, "device_height_m": 1.65, **other}
    )


def test_hand_worked_points() -> None:
    # log10(1900) = 3.278754, log10(15) = 1.176091:
    # at 1 km, 46.3 + 33.9 * 3.278754 - 13.82 * 1.176091 - (1.1 * 3.278754 - 0.7) * 1.65
    # + (1.56 * 3.278754 - 0.8) = 46.3 + 111.1498 - 16.2536 - 4.7959 + 4.3149 = 140.7151 = L
    # (the "140.7 dB" of the literature). Then, with distances in kilometres:
    #   1000 m: L + 35 log10(1)     = 140.7151
    #    100 m: L + 35 log10(0.1)   = 140.7151 - 35       = 105.7151
    #     50 m: L + 35 log10(0.05)  = 140.7151 - 45.5361  =  95.1790
    #     20 m: L + 15 log10(0.05) + 20 log10(0.02) = 140.7151 - 19.5155 - 33.9794 = 87.2202
    #     10 m: L + 15 log10(0.05) + 20 log10(0.01) = 140.7151 - 19.5155 - 40      = 81.1996
    mean = evaluate(ThreeSlopeConfig(), ngo_scene(6), [1000.0, 100.0, 50.0, 20.0, 10.0, 0.0])
    expected = [140.7151, 105.7151, 95.1790, 87.2202, 81.1996, 81.1996]
    assert mean.loss_db[:, 0].tolist() == pytest.approx(expected, abs=1e-3)
    assert mean.shadowing_std_db is not None
    assert mean.shadowing_std_db[:, 0].tolist() == [8.0, 8.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("scene", "sentence"),
    [
        ({"carrier_hz": 5.9e9}, r"holds from 1\.5 to 2 GHz, but carrier_hz is 5\.9 GHz"),
        ({"device_height_m": 0.5}, r"devices at 1 to 10 m, but device_height_m is 0\.5"),
        ({"site_height_m": 0.0}, "site_height_m of at least 1 m, not 0"),
    ],
)
def test_what_cost_hata_does_not_cover_is_refused(scene: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ThreeSlopeConfig().build(ngo_scene(**scene))


def test_first_devices_keep_theirs() -> None:
    check_first_devices_keep_theirs(ThreeSlopeConfig(), carrier_hz=1.9e9)
