"""Shadowing: normal in dB, correlated along the path by halves."""

import numpy as np
import pytest
from scipy import stats

from fadelab_emulation.propagation.shadowing import Shadowing, ShadowingConfig
from fadelab_emulation.scene import Scene


def shadowing(devices: int, std_db: float, decorrelation_m: float, seed: int = 5) -> Shadowing:
    scene = Scene((10.0, 10.0), (5.0, 5.0), 5.9e9, devices, seed)
    return ShadowingConfig(std_db=std_db, decorrelation_m=decorrelation_m).build(scene)


def test_values_are_normal_with_the_given_deviation_early_and_late() -> None:
    model = shadowing(20_000, std_db=4.0, decorrelation_m=10.0)
    first = model.advance(np.zeros(20_000))
    last = first
    for _ in range(30):
        last = model.advance(np.full(20_000, 2.0))
    for values in (first, last):
        assert stats.kstest(values, "norm", args=(0.0, 4.0)).pvalue > 1e-3


@pytest.mark.parametrize(("step_m", "steps"), [(1.0, 10), (2.5, 4), (10.0, 1), (5.0, 4), (0.1, 30)])
def test_correlation_halves_with_every_decorrelation_distance(step_m: float, steps: int) -> None:
    devices = 20_000
    model = shadowing(devices, std_db=3.0, decorrelation_m=10.0)
    first = model.advance(np.zeros(devices))
    last = first
    for _ in range(steps):
        last = model.advance(np.full(devices, step_m))
    expected = np.exp(-np.log(2) * step_m * steps / 10.0)
    assert np.corrcoef(first, last)[0, 1] == pytest.approx(expected, abs=4 / np.sqrt(devices))


def test_a_device_that_stands_keeps_its_shadowing() -> None:
    model = shadowing(2, std_db=4.0, decorrelation_m=10.0)
    first = model.advance(np.zeros(2))
    later = model.advance(np.array([0.0, 5.0]))
    assert later[0] == first[0]
    assert later[1] != first[1]


def test_zero_deviation_is_off() -> None:
    model = shadowing(3, std_db=0.0, decorrelation_m=10.0)
    assert not model.advance(np.zeros(3)).any()


def test_devices_are_independent_of_each_other_and_of_their_number() -> None:
    few, many = shadowing(3, 4.0, 10.0), shadowing(400, 4.0, 10.0)
    series = []
    for _ in range(400):
        a, b = few.advance(np.full(3, 50.0)), many.advance(np.full(400, 50.0))
        assert np.array_equal(a, b[:3])
        series.append(b)
    over_time = np.array(series)
    correlation = np.corrcoef(over_time[:, 0], over_time[:, 1])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(400)
