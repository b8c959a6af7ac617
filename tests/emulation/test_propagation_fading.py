"""Rayleigh, Rician and Nakagami: their laws, and channels that change along the way."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scenes import make_scene
from scipy import special, stats

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import SPEED_OF_LIGHT_MPS, FadingLaw
from fadelab_emulation.propagation.nakagami import NakagamiConfig
from fadelab_emulation.propagation.rayleigh import RayleighConfig
from fadelab_emulation.propagation.rician import RicianConfig
from fadelab_emulation.propagation.scattering import ComplexArray, PathFading, ScatteringConfig

WAVELENGTH_M = SPEED_OF_LIGHT_MPS / 5.9e9  # the carrier of make_scene

# The amount of fading, variance over squared mean, of each law: 1; (1 + 2K) / (1 + K)^2; 1/m.
LAWS: list[tuple[ScatteringConfig, float]] = [
    (RayleighConfig(), 1.0),
    (RicianConfig(k_factor_db=-40.0), 1.0 - 1e-8),
    (RicianConfig(k_factor_db=0.0), 3 / 4),
    (RicianConfig(k_factor_db=10.0), 21 / 121),
    (RicianConfig(k_factor_db=30.0), 2001 / 1001**2),
    (NakagamiConfig(m=0.5), 2.0),
    (NakagamiConfig(m=1.0), 1.0),
    (NakagamiConfig(m=2.5), 0.4),
    (NakagamiConfig(m=100.0), 0.01),
]
each_law = pytest.mark.parametrize(("config", "amount"), LAWS, ids=repr)


def in_blocks(config: ScatteringConfig) -> ScatteringConfig:
    """Return the same law with independent values, one per second."""
    settings = config.model_dump(exclude={"blocks_per_tick"})
    return type(config).model_validate({**settings, "coherence_s": 1.0})


def along_the_way(
    config: ScatteringConfig, way_m: float, steps: int, devices: int = 1, seed: int = 1
) -> FloatArray:
    """Return gains at equal distances, shape ``(steps, devices)``."""
    settings = {**config.model_dump(exclude={"coherence_s"}), "blocks_per_tick": 1000}
    model = type(config).model_validate(settings).build(make_scene(devices, seed=seed))
    ticks = steps // 1000
    speed_mps = np.full(devices, way_m / ticks)
    return np.concatenate([model.during(float(t), 1.0, speed_mps).power for t in range(ticks)])


def log_rate(law: FadingLaw, snr: float) -> float:
    return float((law.weight * np.log2(1 + snr * law.power)).sum())


@each_law
def test_quadrature_has_the_moments_of_its_law(config: ScatteringConfig, amount: float) -> None:
    law = config.build(make_scene()).law
    assert law.power.shape == law.weight.shape == (32,)
    assert law.weight.sum() == pytest.approx(1.0, abs=1e-14)
    assert (law.weight * law.power).sum() == pytest.approx(1.0, abs=1e-14)
    assert (law.weight * law.power**2).sum() - 1 == pytest.approx(amount, rel=1e-3)


@pytest.mark.parametrize("snr", [0.01, 1.0, 100.0, 1e4, 1e6])
def test_expected_rate_of_rayleigh_in_closed_form(snr: float) -> None:
    """``exp(1/s) E1(1/s) / ln 2`` (Alouini and Goldsmith, IEEE Trans. Veh. Technol. 48(4), 1999)."""
    expected = math.exp(1 / snr) * special.exp1(1 / snr) / math.log(2)
    assert log_rate(RayleighConfig().build(make_scene()).law, snr) == pytest.approx(
        expected, rel=1e-4
    )


def test_expected_rate_of_rayleigh_at_0_db_by_table() -> None:
    # E1(1) = 0.219384, e * 0.219384 = 0.596347, / ln 2 = 0.860347 bit/s/Hz.
    assert log_rate(RayleighConfig().build(make_scene()).law, 1.0) == pytest.approx(
        0.860347, abs=1e-4
    )


@pytest.mark.parametrize("snr", [0.1, 10.0, 1e5])
@pytest.mark.parametrize(("config", "amount"), LAWS[2:], ids=repr)
def test_expected_rate_agrees_with_a_million_draws(
    config: ScatteringConfig, amount: float, snr: float
) -> None:
    draw = np.random.default_rng(4)
    if isinstance(config, NakagamiConfig):
        power = draw.gamma(config.m, 1 / config.m, 1_000_000)
    else:
        assert isinstance(config, RicianConfig)
        k = 10 ** (config.k_factor_db / 10)
        normal = draw.standard_normal((2, 1_000_000)) / math.sqrt(2 * (1 + k))
        power = (math.sqrt(k / (1 + k)) + normal[0]) ** 2 + normal[1] ** 2
    rates = np.log2(1 + snr * power)
    expected = log_rate(config.build(make_scene()).law, snr)
    assert rates.mean() == pytest.approx(expected, abs=4 * rates.std() / 1000 + 1e-4 * expected)


@each_law
def test_blocks_follow_the_law(config: ScatteringConfig, amount: float) -> None:
    devices = 20_000
    power = in_blocks(config).build(make_scene(devices)).during(0, 1, np.zeros(devices)).power[0]
    assert power.mean() == pytest.approx(1.0, abs=4 * math.sqrt(amount / devices))
    assert power.var() == pytest.approx(amount, rel=0.15)
    if isinstance(config, RicianConfig):
        k = 10 ** (config.k_factor_db / 10)
        law = stats.ncx2(2, 2 * k, scale=1 / (2 * (1 + k)))
    else:
        m = config.m if isinstance(config, NakagamiConfig) else 1.0
        law = stats.gamma(m, scale=1 / m)
    assert stats.kstest(power, law.cdf).pvalue > 1e-3


@each_law
def test_devices_meet_the_law_along_their_way(config: ScatteringConfig, amount: float) -> None:
    power = along_the_way(config, way_m=2000 * WAVELENGTH_M, steps=10_000, devices=10)
    # The mean of one device still wavers by some per cent of the fading's depth after 2000
    # wavelengths, where two waves have nearly one Doppler shift.
    assert power.mean() == pytest.approx(1.0, abs=0.03 * math.sqrt(amount))
    assert power.var() == pytest.approx(amount, rel=0.15)
    snr = 100.0
    expected = log_rate(config.build(make_scene()).law, snr)
    assert np.log2(1 + snr * power).mean() == pytest.approx(expected, rel=0.01)


@each_law
def test_many_devices_meet_the_law_at_once(config: ScatteringConfig, amount: float) -> None:
    devices = 20_000
    power = config.build(make_scene(devices)).during(0, 0.1, np.full(devices, 9.0)).power[7]
    assert power.mean() == pytest.approx(1.0, abs=5 * math.sqrt(amount / devices) + 0.003)
    assert power.var() == pytest.approx(amount, rel=0.12)


class Recorder:
    """An envelope that keeps the scattered waves."""

    def __init__(self) -> None:
        self.scattered: list[ComplexArray] = []
        self.law = RayleighConfig().envelope().law

    def power(self, scattered: ComplexArray, direct_rad: FloatArray) -> FloatArray:
        self.scattered.append(scattered.copy())
        return np.abs(scattered) ** 2


# J0 at the multiples of 0.6 rad: from tables (Abramowitz and Stegun, 9.1).
BESSEL_J0 = {0.6: 0.912005, 1.2: 0.671133, 2.4: 0.002508, 3.6: -0.391769, 6.6: 0.274043}


@pytest.mark.parametrize("speed_mps", [1.5, 30.0])
def test_autocorrelation_is_that_of_clarke(speed_mps: float) -> None:
    devices = 4000
    recorder = Recorder()
    model = PathFading(recorder, 12, make_scene(devices))
    # f_D = v / wavelength; a step of 0.6 rad takes 0.6 / (2 pi f_D).
    step_s = 0.6 * WAVELENGTH_M / (2 * math.pi * speed_mps)
    model.during(0.0, 12 * step_s, np.full(devices, speed_mps))
    waves = recorder.scattered[0]
    for lag_rad, expected in BESSEL_J0.items():
        later = waves[round(lag_rad / 0.6)]
        correlation = np.mean(waves[0].conj() * later)
        assert correlation.real == pytest.approx(expected, abs=4 / math.sqrt(2 * devices))
        assert correlation.imag == pytest.approx(0.0, abs=4 / math.sqrt(2 * devices))


def test_autocorrelation_of_a_single_device_over_time() -> None:
    recorder = Recorder()
    model = PathFading(recorder, 1000, make_scene(1, seed=8))
    way_m = 0.6 * WAVELENGTH_M / (2 * math.pi) * 1000
    for tick in range(40):
        model.during(float(tick), 1.0, np.array([way_m]))
    waves = np.concatenate(recorder.scattered)[:, 0]
    for lag_rad, expected in BESSEL_J0.items():
        lag = round(lag_rad / 0.6)
        correlation = np.mean(waves[:-lag].conj() * waves[lag:])
        assert correlation.real == pytest.approx(expected, abs=0.05)


def test_a_device_at_rest_keeps_its_channel_and_goes_on_from_there() -> None:
    config = RicianConfig(k_factor_db=3.0, blocks_per_tick=4)
    model, other = config.build(make_scene(2)), config.build(make_scene(2))
    speed_mps = np.array([10.0, 20.0])
    model.during(0.0, 0.1, speed_mps)
    other.during(0.0, 0.1, speed_mps)
    waiting = [model.during(0.1 + 0.1 * tick, 0.1, np.zeros(2)).power for tick in range(5)]
    assert all(np.array_equal(power, np.tile(waiting[0][0], (4, 1))) for power in waiting)
    after = model.during(0.6, 0.1, speed_mps).power
    assert after == pytest.approx(other.during(0.1, 0.1, speed_mps).power, rel=1e-9)
    assert after[0] != pytest.approx(waiting[0][0])


@pytest.mark.parametrize("config", [RayleighConfig, lambda **s: RicianConfig(k_factor_db=6, **s)])
def test_ticks_only_choose_where_the_way_is_looked_at(config: type[RayleighConfig]) -> None:
    speed_mps = np.array([13.0, 0.5])
    once = config(blocks_per_tick=32).build(make_scene(2)).during(0.0, 0.8, speed_mps)
    model = config(blocks_per_tick=8).build(make_scene(2))
    parts = [model.during(0.2 * tick, 0.2, speed_mps).power for tick in range(4)]
    assert np.concatenate(parts) == pytest.approx(once.power, rel=1e-6, abs=1e-9)
    assert once.share.tolist() == [1 / 32] * 32


def test_blocks_of_a_slow_device_are_alike_and_of_a_fast_one_are_not() -> None:
    power = RayleighConfig().build(make_scene(2)).during(0.0, 0.1, np.array([0.001, 30.0])).power
    assert power[:, 0] == pytest.approx(power[0, 0], rel=0.2)
    assert power[:, 1].std() > 0.2


def test_nakagami_of_one_is_rayleigh_and_keeps_fades_in_their_places() -> None:
    speed_mps = np.full(50, 5.0)
    rayleigh = RayleighConfig().build(make_scene(50)).during(0.0, 0.1, speed_mps).power
    same = NakagamiConfig(m=1.0).build(make_scene(50)).during(0.0, 0.1, speed_mps).power
    shallow = NakagamiConfig(m=4.0).build(make_scene(50)).during(0.0, 0.1, speed_mps).power
    assert same == pytest.approx(rayleigh, rel=1e-9)
    order = np.argsort(rayleigh, axis=None)
    assert np.all(np.diff(shallow.ravel()[order]) >= 0)
    assert shallow.std() < rayleigh.std()


def test_nakagami_maps_quantiles_to_quantiles() -> None:
    # A power of ln 2 is the median of the exponential law; 0.2 and 3 its quantiles of 18.13 % and
    # 95.02 %. At m = 0.5 the power is a squared standard normal, whose distribution is
    # 2 Phi(sqrt(p)) - 1: median 0.67449^2 = 0.45494.
    envelope = NakagamiConfig(m=0.5).envelope()
    at = np.sqrt(np.array([math.log(2), 0.2, 3.0])).astype(np.complex128)
    mapped = envelope.power(at, np.zeros(3))
    assert mapped[0] == pytest.approx(0.45494, abs=1e-4)
    assert special.erf(np.sqrt(mapped / 2)) == pytest.approx([0.5, 0.18127, 0.95021], abs=1e-4)
    rare = envelope.power(np.sqrt(np.array([1e-9, 40.0])).astype(np.complex128), np.zeros(2))
    assert special.erf(np.sqrt(rare[0] / 2)) == pytest.approx(1e-9, rel=1e-3, abs=0)
    assert special.erfc(np.sqrt(rare[1] / 2)) == pytest.approx(math.exp(-40), rel=1e-2, abs=0)


@each_law
def test_first_devices_keep_theirs(config: ScatteringConfig, amount: float) -> None:
    for settings in (config, in_blocks(config)):
        worlds = [settings.build(make_scene(devices)) for devices in (1, 6, 500)]
        for tick in range(3):
            powers = [
                world.during(0.7 * tick, 0.7, np.linspace(3, 9, 500)[:devices]).power
                for world, devices in zip(worlds, (1, 6, 500), strict=True)
            ]
            assert np.array_equal(powers[0], powers[2][:, :1])
            assert np.array_equal(powers[1], powers[2][:, :6])


def test_seeds_and_devices_differ() -> None:
    config = RayleighConfig()
    one, other = (
        config.build(make_scene(2000, seed=seed)).during(0, 0.1, np.ones(2000)).power[0]
        for seed in (1, 2)
    )
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(2000)
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 4 / math.sqrt(2000)


@pytest.mark.parametrize(
    ("model", "settings", "sentence"),
    [
        (NakagamiConfig, {"m": 0.4}, r"greater than or equal to 0\.5"),
        (NakagamiConfig, {}, "Field required"),
        (RicianConfig, {"k_factor_db": 31}, "less than or equal to 30"),
        (RayleighConfig, {"coherence_s": 0}, "greater than 0"),
        (RayleighConfig, {"blocks_per_tick": 0}, "greater than or equal to 1"),
        (RayleighConfig, {"blocks_per_tick": 1001}, "less than or equal to 1000"),
        (
            RayleighConfig,
            {"blocks_per_tick": 8, "coherence_s": 0.1},
            "give either coherence_s or blocks_per_tick",
        ),
    ],
)
def test_impossible_settings_are_refused(
    model: type[ScatteringConfig], settings: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        model.model_validate(settings)


def test_special_functions_are_imported_when_a_model_is_made_and_not_before() -> None:
    program = """
import sys
from fadelab_emulation.emulator import emulate
from fadelab_emulation.propagation.rayleigh import RayleighConfig
from fadelab_emulation.propagation.rician import RicianConfig
RayleighConfig().envelope()
assert "scipy" not in sys.modules
RicianConfig(k_factor_db=3.0).envelope()
assert "scipy.special" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
