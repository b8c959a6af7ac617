"""Link adaptation against rows read off TS 38.214 and the curve worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_scene

from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel
from fadelab_emulation.rate.mcs import LinkAdaptation, McsConfig, spectral_efficiency

# Noise of exactly 1 microwatt in 1 MHz, so that a gain of 1e-6 is 0 dB at 1 W.
EASY = {"bandwidth_hz": 1e6, "noise_dbm_per_hz": -90.0, "noise_figure_db": 0.0}


def model(**settings: object) -> LinkAdaptation:
    return McsConfig.model_validate(EASY | settings).build(make_scene())


def rate_up_bps(adaptation: LinkAdaptation, *snr_db: float) -> float:
    """Return the rate over equal blocks of these SNRs."""
    fading = np.power(10, np.array(snr_db) / 10)[:, None]
    share = np.full(len(snr_db), 1 / len(snr_db))
    channel = Channel(np.full((1, 1), 1e-6), np.zeros(1, dtype=np.int64), fading, share)
    return float(adaptation.rates(channel, np.ones(1), 1.0).rate_up_bps[0])


@pytest.mark.parametrize(
    ("index", "efficiency"),
    [(0, 0.2344), (9, 1.3262), (10, 1.3281), (16, 2.5703), (17, 2.5664), (28, 5.5547)],
)
def test_rows_of_the_64qam_table(index: int, efficiency: float) -> None:
    table = spectral_efficiency("qam64")
    assert len(table) == 29
    assert table[index] == pytest.approx(efficiency, abs=5e-5)


@pytest.mark.parametrize(
    ("index", "efficiency"),
    [(0, 0.2344), (4, 1.1758), (5, 1.4766), (19, 5.1152), (20, 5.3320), (26, 7.1602), (27, 7.4063)],
)
def test_rows_of_the_256qam_table(index: int, efficiency: float) -> None:
    table = spectral_efficiency("qam256")
    assert len(table) == 28
    assert table[index] == pytest.approx(efficiency, abs=5e-5)


def test_a_rate_by_hand() -> None:
    """5.1152 bit need 10 log10(2^5.1152 - 1) = 15.27 dB, with a gap of 3 dB 18.27 dB.

    The next scheme, of 5.3320 bit, needs 18.94 dB. At 18.6 dB the odds against an error are 9 times
    exp((18.6 - 18.27) / 0.15): 1.2 % of the blocks are lost.
    """
    threshold_db = 10 * np.log10(2**5.115234375 - 1) + 3
    assert threshold_db == pytest.approx(18.27, abs=0.01)
    bler = 1 / (1 + 9 * np.exp((18.6 - threshold_db) / 0.15))
    assert bler == pytest.approx(0.012, abs=0.001)
    expected_bps = 1e6 * (1 - 0.14) * 5.115234375 * (1 - bler)
    assert rate_up_bps(model(), 18.6) == pytest.approx(expected_bps, rel=1e-9)


def test_the_highest_scheme_is_the_most_there_is() -> None:
    assert rate_up_bps(model(overhead=0.0), 80.0) == pytest.approx(7.40625e6)
    assert rate_up_bps(model(overhead=0.0, table="qam64"), 80.0) == pytest.approx(5.5546875e6)


def test_a_block_too_weak_for_any_scheme_carries_nothing_and_the_mean_has_a_floor() -> None:
    assert rate_up_bps(model(), -40.0) == MIN_RATE_BPS
    assert rate_up_bps(model(), -400.0) == MIN_RATE_BPS
    strong_bps = rate_up_bps(model(), 30.0)
    assert rate_up_bps(model(), 30.0, -40.0) == pytest.approx(strong_bps / 2)


def test_uplink_and_downlink_have_their_own_schemes() -> None:
    channel = Channel(
        np.full((1, 1), 1e-6), np.zeros(1, dtype=np.int64), np.ones((1, 1)), np.ones(1)
    )
    rates = model(overhead=0.0).rates(channel, np.array([1e8]), 1e-8)
    assert rates.rate_up_bps[0] == pytest.approx(7.40625e6)
    assert rates.rate_down_bps[0] == MIN_RATE_BPS
    assert rates.snr_up_db[0] == pytest.approx(80.0)


SNR_DB = st.floats(-30, 60)
SETTINGS = st.fixed_dictionaries(
    {
        "table": st.sampled_from(["qam64", "qam256"]),
        "target_bler": st.floats(0.001, 0.5),
        "gap_db": st.floats(0, 10),
        "slope_db": st.floats(0.01, 2),
    }
)


@settings(deadline=None)
@given(SETTINGS, SNR_DB)
def test_the_chosen_scheme_meets_the_target_and_the_next_one_does_not(
    chosen: dict[str, object], snr_db: float
) -> None:
    adaptation = model(**chosen)
    target = float(str(chosen["target_bler"]))
    snrs_db = np.array([snr_db])
    scheme = adaptation.scheme(snrs_db)
    if scheme[0] >= 0:
        assert adaptation.bler(scheme, snrs_db)[0] <= target * (1 + 1e-9)
    if scheme[0] + 1 < {"qam64": 29, "qam256": 28}[str(chosen["table"])]:
        assert adaptation.bler(scheme + 1, snrs_db)[0] > target * (1 - 1e-9)


@settings(deadline=None)
@given(SETTINGS, SNR_DB, st.floats(0, 30))
def test_more_signal_never_costs_more_than_the_target_error_rate(
    chosen: dict[str, object], snr_db: float, more_db: float
) -> None:
    adaptation = model(**chosen)
    both = np.array([snr_db, snr_db + more_db])
    assert np.diff(adaptation.scheme(both))[0] >= 0
    least = 1 - float(str(chosen["target_bler"]))
    weak_bps, strong_bps = (rate_up_bps(adaptation, one) for one in both)
    assert strong_bps >= least * weak_bps * (1 - 1e-9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("table", "qam1024"),
        ("target_bler", 0.0),
        ("target_bler", 1.0),
        ("overhead", 1.0),
        ("slope_db", 0.0),
        ("gap_db", -1.0),
        ("bandwidth_hz", 0.0),
    ],
)
def test_impossible_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        model(**{field: value})
