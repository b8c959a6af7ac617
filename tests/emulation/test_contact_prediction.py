"""Predictions: what the error of a forecast is like, and that the oracle tells the truth."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sights import true_remaining_s

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.base import CONTACT_HORIZON_S, ContactState
from fadelab_emulation.contact.prediction import Forecast, ForecastConfig, OracleConfig
from fadelab_emulation.link_state import BoolArray, FloatArray, LinkTick
from fadelab_emulation.schedule import COLUMNS
from fadelab_emulation.world import RadioWorld

RADIO: dict[str, Any] = {
    "tick_s": 0.2,
    "area_m": [600, 600],
    "sites": {"kind": "grid", "columns": 2, "rows": 2},
    "mobility": {"kind": "random_waypoint", "speed_mps": [20, 40], "pause_s": [0, 2]},
    "shadowing": {"std_db": 5, "decorrelation_m": 10},
    "fading": {"kind": "rayleigh", "coherence_s": 0.25},
    "rate": {"kind": "shannon", "bandwidth_hz": 200e3},
}
COVERAGE = {"kind": "coverage", "radius_m": 120, "hysteresis_m": 5, "interruption_s": 0.3}
SNR = {"kind": "snr_threshold", "threshold_db": 24, "hysteresis_db": 2, "interruption_s": 0.2}
EXPONENTIAL = {"kind": "exponential", "mean_contact_s": 3, "mean_gap_s": 2}


def ticks(count: int, *, devices: int = 6, seed: int = 3, **changes: object) -> list[LinkTick]:
    world = RadioWorld(RadioConfig.model_validate({**RADIO, **changes}), devices, seed)
    return [world.step() for _ in range(count)]


def column(run: list[LinkTick], name: str) -> np.ndarray:
    return np.array([getattr(tick, name) for tick in run])


def state(is_open: BoolArray, predicted_s: float, announced_s: float | None = None) -> ContactState:
    devices = len(is_open)
    return ContactState(
        is_open,
        np.zeros(devices, dtype=np.int64),
        np.where(is_open, predicted_s, 0.0),
        None if announced_s is None else np.full(devices, announced_s),
    )


def windows(config: ForecastConfig, devices: int, count: int, seed: int = 1) -> FloatArray:
    """Return forecasts of contacts of 100 s, shape ``(windows, ticks, devices)``."""
    model = Forecast(config, devices, seed)
    everyone, nobody = np.ones(devices, dtype=np.bool_), np.zeros(devices, dtype=np.bool_)
    forecasts = []
    for _ in range(count):
        forecasts.append([model.predict(state(everyone, 100.0)) for _ in range(3)])
        assert not model.predict(state(nobody, 100.0)).any()
    return np.array(forecasts)


def test_the_error_has_the_given_bias_and_standard_deviation() -> None:
    """20 000 windows: standard errors of 0.2 / 141 and 0.2 / 200, five of which are allowed."""
    forecasts = windows(ForecastConfig(error_std=0.2, bias=0.1), 1000, 20) / 100 - 1
    assert forecasts.mean() == pytest.approx(0.1, abs=0.0071)
    assert forecasts.std() == pytest.approx(0.2, abs=0.005)


def test_the_error_is_drawn_for_each_window_and_device_alone() -> None:
    config = ForecastConfig(error_std=0.2)
    forecasts = windows(config, 20, 10)
    assert np.array_equal(forecasts[:, 0], forecasts[:, 2])
    assert len(np.unique(forecasts[:, 0])) == 200
    assert np.array_equal(forecasts[..., :3], windows(config, 3, 10))
    assert not np.array_equal(forecasts, windows(config, 20, 10, seed=2))


def test_a_forecast_is_neither_negative_nor_beyond_the_horizon() -> None:
    wild = windows(ForecastConfig(error_std=10.0), 200, 5)
    assert wild.min() == 0.0
    assert (wild == 0.0).mean() == pytest.approx(0.46, abs=0.05)
    long = Forecast(ForecastConfig(bias=0.5), 1, 1)
    assert long.predict(state(np.array([True]), 3000.0)).tolist() == [CONTACT_HORIZON_S]


def test_an_announced_outage_ends_a_forecast_however_wrong_that_is() -> None:
    is_open = np.array([True, False])
    model = Forecast(ForecastConfig(bias=1.0), 2, 1)
    assert model.predict(state(is_open, 10.0, announced_s=12.0)).tolist() == [12.0, 0.0]
    assert model.predict(state(is_open, 5.0, announced_s=11.0)).tolist() == [10.0, 0.0]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    contact=st.sampled_from([COVERAGE, SNR, EXPONENTIAL]),
    horizon=st.integers(1, 60),
)
def test_the_oracle_tells_the_true_remaining_contact(
    seed: int, contact: dict[str, Any], horizon: int
) -> None:
    """Every tick of a random world: its answer is the time to the recorded closing."""
    run = ticks(
        200,
        seed=seed,
        contact=contact,
        outages=[
            {"windows_s": [[3, 4]]},
            {"windows_s": [[9, 12], [15, 16]], "devices": [1], "announced": True},
        ],
        prediction={"kind": "oracle", "horizon_s": horizon * 0.2},
    )
    is_open = column(run, "is_open")
    assert 0.01 < is_open.mean() < 0.99
    true_s = true_remaining_s(is_open, 0.2, horizon)
    assert column(run, "predicted_contact_s")[: len(true_s)] == pytest.approx(true_s, abs=1e-9)


@pytest.mark.parametrize("contact", [COVERAGE, SNR, EXPONENTIAL])
@pytest.mark.parametrize(
    "prediction",
    [{"kind": "forecast", "error_std": 0.3, "bias": 0.1}, {"kind": "oracle", "horizon_s": 5}],
)
def test_no_prediction_changes_any_other_number(
    contact: dict[str, Any], prediction: dict[str, Any]
) -> None:
    plain, told = ticks(120, contact=contact), ticks(120, contact=contact, prediction=prediction)
    for name in (*COLUMNS, "is_open", "site"):
        same = column(plain, name).tobytes() == column(told, name).tobytes()
        assert same == (name != "predicted_contact_s")


def test_a_forecast_of_the_world_is_cut_at_an_announced_outage() -> None:
    outages = [{"windows_s": [[4.1, 5]], "announced": True}]
    always = ticks(30, outages=outages, prediction={"kind": "forecast", "bias": 0.5})
    predicted_s = column(always, "predicted_contact_s")[:, 0]
    before = np.arange(21) * 0.2
    assert predicted_s[:21] == pytest.approx(4.1 - before)
    assert predicted_s[21:25].tolist() == [0.0] * 4
    assert predicted_s[25:].tolist() == [CONTACT_HORIZON_S] * 5


def test_the_geometric_forecast_is_not_far_from_the_truth() -> None:
    """Random waypoint in one disc: turns shorten and lengthen, the median ratio is about 1."""
    disc = {"kind": "coverage", "radius_m": 120}
    runs = [
        ticks(1000, devices=30, contact=disc, prediction=prediction)
        for prediction in ({"kind": "forecast"}, {"kind": "oracle", "horizon_s": 60})
    ]
    forecast_s, true_s = (column(run, "predicted_contact_s") for run in runs)
    is_open = (true_s > 0) & (true_s < 60)
    assert 0.8 < np.median(forecast_s[is_open] / true_s[is_open]) < 1.25


@pytest.mark.parametrize(
    ("given_settings", "sentence"),
    [
        ({"error_std": -0.1}, "greater than or equal to 0"),
        ({"bias": -1.1}, "greater than or equal to -1"),
    ],
)
def test_an_impossible_error_is_refused(given_settings: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ForecastConfig.model_validate(given_settings)


def test_an_oracle_that_sees_nothing_or_for_ever_is_refused() -> None:
    for horizon_s in (0.0, 1e9):
        with pytest.raises(ValueError, match="horizon_s"):
            OracleConfig(horizon_s=horizon_s)
