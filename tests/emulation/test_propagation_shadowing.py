"""Shadowing: normal in dB, correlated along the path by halves."""

import numpy as np
import pytest
from scenes import make_scene
from scipy import stats

from fadelab_emulation.propagation.shadowing import Shadowing, ShadowingConfig


def shadowing(
    devices: int, std_db: float | None, decorrelation_m: float, sites: int = 1
) -> Shadowing:
    scene = make_scene(devices, sites_m=[(10.0 * site, 0.0) for site in range(sites)], seed=5)
    return ShadowingConfig(std_db=std_db, decorrelation_m=decorrelation_m).build(scene)


def test_values_are_normal_with_the_given_deviation_early_and_late() -> None:
    model = shadowing(20_000, std_db=4.0, decorrelation_m=10.0)
    first = model.advance(np.zeros(20_000), None)
    last = first
    for _ in range(30):
        last = model.advance(np.full(20_000, 2.0), None)
    for values in (first, last):
        assert stats.kstest(values[:, 0], "norm", args=(0.0, 4.0)).pvalue > 1e-3
        assert values.std() == pytest.approx(4.0, rel=4 / np.sqrt(2 * 20_000))


@pytest.mark.parametrize(("step_m", "steps"), [(1.0, 10), (2.5, 4), (10.0, 1), (5.0, 4), (0.1, 30)])
def test_correlation_halves_with_every_decorrelation_distance(step_m: float, steps: int) -> None:
    devices = 20_000
    model = shadowing(devices, std_db=3.0, decorrelation_m=10.0)
    first = model.advance(np.zeros(devices), None)
    last = first
    for _ in range(steps):
        last = model.advance(np.full(devices, step_m), None)
    expected = np.exp(-np.log(2) * step_m * steps / 10.0)
    correlation = np.corrcoef(first[:, 0], last[:, 0])[0, 1]
    assert correlation == pytest.approx(expected, abs=4 / np.sqrt(devices))


def test_a_device_that_stands_keeps_its_shadowing() -> None:
    model = shadowing(2, std_db=4.0, decorrelation_m=10.0)
    first = model.advance(np.zeros(2), None)
    assert np.array_equal(model.advance(np.zeros(2), None), first)
    later = model.advance(np.array([0.0, 5.0]), None)
    assert later[0] == first[0]
    assert later[1] != first[1]


def test_zero_deviation_is_off() -> None:
    model = shadowing(3, std_db=0.0, decorrelation_m=10.0)
    assert not model.advance(np.zeros(3), np.full((3, 1), 4.0)).any()


def test_the_path_loss_model_has_a_say_where_the_settings_have_none() -> None:
    own_std_db = np.array([[4.0], [8.0], [0.0]])
    given, left_out = shadowing(3, 2.0, 10.0), shadowing(3, None, 10.0)
    normal = given.advance(np.zeros(3), own_std_db) / 2.0
    assert left_out.advance(np.zeros(3), own_std_db) == pytest.approx(own_std_db * normal)
    assert not left_out.advance(np.zeros(3), None).any()


def test_devices_are_independent_of_each_other_and_of_their_number() -> None:
    few, many = shadowing(3, 4.0, 10.0), shadowing(400, 4.0, 10.0)
    series = []
    for _ in range(400):
        a = few.advance(np.full(3, 50.0), None)
        b = many.advance(np.full(400, 50.0), None)
        assert np.array_equal(a, b[:3])
        series.append(b[:, 0])
    over_time = np.array(series)
    correlation = np.corrcoef(over_time[:, 0], over_time[:, 1])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(400)


def test_sites_cast_shadows_of_their_own() -> None:
    values = shadowing(20_000, 4.0, 10.0, sites=3).advance(np.zeros(20_000), None)
    assert values.shape == (20_000, 3)
    off_diagonal = np.corrcoef(values.T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(off_diagonal) < 4 / np.sqrt(20_000))


@pytest.mark.parametrize("field", [{"std_db": -1.0}, {"std_db": 21.0}, {"decorrelation_m": 0.0}])
def test_impossible_settings_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="than"):
        ShadowingConfig.model_validate(field)
