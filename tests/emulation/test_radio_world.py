"""The whole radio world: determinism, powers, and that its parts are wired together."""

from typing import Any

import numpy as np
import pytest

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import BoolArray, LinkTick
from fadelab_emulation.mobility.base import MobilityConfig, Motion
from fadelab_emulation.scene import Scene
from fadelab_emulation.world import ContactWorld, RadioWorld

MOVING: dict[str, Any] = {
    "area_m": [600, 600],
    "mobility": {"kind": "random_waypoint", "speed_mps": [15, 30], "pause_s": [0, 3]},
    "shadowing": {"std_db": 4, "decorrelation_m": 10},
    "fading": {"kind": "rayleigh", "coherence_s": 0.25},
    "rate": {"kind": "shannon", "bandwidth_hz": 200e3},
    "contact": {"kind": "coverage", "radius_m": 150, "hysteresis_m": 5},
    "packet_loss_up": 0.01,
    "packet_loss_down": 0.02,
}


def world(devices: int = 8, seed: int = 7, **changes: object) -> RadioWorld:
    return RadioWorld(RadioConfig.model_validate({**MOVING, **changes}), devices, seed)


def column(ticks: list[LinkTick], name: str) -> np.ndarray:
    return np.array([getattr(tick, name) for tick in ticks])


def run(model: RadioWorld, ticks: int) -> list[LinkTick]:
    return [model.step() for _ in range(ticks)]


ALL = (
    "x_m",
    "y_m",
    "site",
    "distance_m",
    "snr_up_db",
    "rate_up_bps",
    "rate_down_bps",
    "ergodic_up_bps",
    "ergodic_down_bps",
    "loss_up",
    "loss_down",
    "is_open",
    "predicted_contact_s",
)
CELLS: dict[str, Any] = {
    "sites": {"kind": "grid", "columns": 3, "rows": 2, "jitter": 0.3},
    "wrap_around": True,
    "prediction": {"kind": "forecast", "error_std": 0.2},
    "outages": [{"windows_s": [[3, 5]], "devices": [1]}],
}
CONTACTS: dict[str, dict[str, Any]] = {
    "always": {"kind": "always"},
    "coverage": {"kind": "coverage", "radius_m": 80, "hysteresis_m": 5, "interruption_s": 0.2},
    "snr_threshold": {"kind": "snr_threshold", "threshold_db": 30, "time_to_trigger_s": 0.3},
    "exponential": {"kind": "exponential", "mean_contact_s": 2, "mean_gap_s": 3},
}


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    one, same, other = run(world(), 300), run(world(), 300), run(world(seed=8), 300)
    for name in ALL:
        assert column(one, name).tobytes() == column(same, name).tobytes()
    for name in ("x_m", "snr_up_db", "rate_up_bps", "is_open"):
        assert column(one, name).tobytes() != column(other, name).tobytes()


def test_the_global_generator_neither_matters_nor_moves() -> None:
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002
    one = run(world(), 20)
    assert np.random.get_state()[1].tobytes() == before  # type: ignore[index]  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert column(one, "rate_up_bps").tobytes() == column(run(world(), 20), "rate_up_bps").tobytes()


@pytest.mark.parametrize("contact", CONTACTS)
def test_more_devices_do_not_change_the_first_ones(contact: str) -> None:
    changes = {**CELLS, "contact": CONTACTS[contact]}
    few, many = run(world(devices=3, **changes), 100), run(world(devices=20, **changes), 100)
    for name in ALL:
        assert np.array_equal(column(few, name), column(many, name)[:, :3])


@pytest.mark.parametrize("contact", CONTACTS)
def test_a_world_of_several_cells_repeats_itself_to_the_bit(contact: str) -> None:
    changes = {**CELLS, "contact": CONTACTS[contact]}
    one, same = run(world(**changes), 100), run(world(**changes), 100)
    assert len(np.unique(column(one, "site"))) > 3
    assert 0 < column(one, "is_open").mean() < 1
    for name in ALL:
        assert column(one, name).tobytes() == column(same, name).tobytes()


def test_a_world_of_contacts_alone_has_the_contacts_of_the_whole_world() -> None:
    config = RadioConfig.model_validate({**MOVING, **CELLS, "contact": CONTACTS["snr_threshold"]})
    whole = RadioWorld(config, 8, 7)
    scene = config.scene(8, 7)
    alone = ContactWorld(config, scene, config.rate.build(scene).noise_w)
    for tick in run(whole, 100):
        contact = alone.next_contact()
        assert np.array_equal(contact.is_open, tick.is_open)
        assert np.array_equal(contact.site, tick.site)


class ScriptedConfig(MobilityConfig):
    """Devices that stand on the base station and are in the area as a script says."""

    present: list[list[bool]]

    def build(self, scene: Scene) -> "Scripted":
        return Scripted(np.array(self.present), scene)


class Scripted:
    def __init__(self, present: BoolArray, scene: Scene) -> None:
        self._present = list(present)
        self._place_m = np.tile(scene.sites_m[0], (scene.devices, 1))

    def advance(self, duration_s: float) -> Motion:
        standing = np.zeros_like(self._place_m)
        return Motion(self._place_m, standing, standing[:, 0], self._present.pop(0))


@pytest.mark.parametrize("contact", CONTACTS)
def test_absent_devices_have_no_contact(contact: str) -> None:
    present = np.random.default_rng(1).random((50, 3)) < 0.5
    base = RadioConfig.model_validate({**MOVING, "contact": CONTACTS[contact]})
    script = ScriptedConfig(present=present.tolist())
    ticks = run(RadioWorld(base.model_copy(update={"mobility": script}), 3, 1), 50)
    is_open = column(ticks, "is_open")
    assert not is_open[~present].any()
    assert not column(ticks, "predicted_contact_s")[~present].any()
    if contact == "exponential":
        assert is_open[present].any()
    else:
        assert is_open[present].all()


def test_ticks_are_numbered_and_timed() -> None:
    ticks = run(world(tick_s=0.25), 5)
    assert [tick.index for tick in ticks] == [0, 1, 2, 3, 4]
    assert [tick.t_s for tick in ticks] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_less_power_slows_one_uplink_from_the_next_step_on_and_shifts_nothing() -> None:
    full, turned = world(), world()
    before = run(full, 50), run(turned, 50)
    turned.set_uplink_power(2, 0.002)
    after = run(full, 200), run(turned, 200)
    assert column(before[0], "rate_up_bps").tobytes() == column(before[1], "rate_up_bps").tobytes()
    others = np.arange(8) != 2
    for name in ALL:
        a, b = column(after[0], name), column(after[1], name)
        if name not in {"rate_up_bps", "ergodic_up_bps", "snr_up_db"}:
            assert a.tobytes() == b.tobytes()
        assert np.array_equal(a[:, others], b[:, others])
    snr = column(after[0], "snr_up_db"), column(after[1], "snr_up_db")
    assert snr[0][:, 2] - snr[1][:, 2] == pytest.approx(np.full(200, 20.0))
    turned.set_uplink_power(2, 0.2)
    for name in ALL:
        a, b = column(run(full, 1), name), column(run(turned, 1), name)
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("power_w", [0.0, -1.0, 0.21, float("nan"), float("inf")])
def test_an_impossible_power_is_refused_and_changes_nothing(power_w: float) -> None:
    touched, untouched = world(), world()
    with pytest.raises(ValueError, match=r"device 1 asked for .* at most 0.2 W"):
        touched.set_uplink_power(1, power_w)
    assert np.array_equal(touched.step().rate_up_bps, untouched.step().rate_up_bps)


@pytest.mark.parametrize("device", [-1, 8])
def test_an_unknown_device_is_refused(device: int) -> None:
    with pytest.raises(ValueError, match=f"no device {device} among 8"):
        world().set_uplink_power(device, 0.1)


def test_a_world_without_devices_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one device"):
        world(devices=0)


def test_a_standing_device_at_100_m_by_hand() -> None:
    """47.86 dB at 1 m plus 60 dB over two decades at exponent 3, into 200 kHz at 9 dB.

    23.01 dBm - 107.86 dB + 174 - 53.01 - 9 = 27.14 dB, hence 200 kHz * 9.02 bit/s/Hz up; 7 dB more
    down.
    """
    tick = world(
        devices=4,
        site_height_m=1.5,
        mobility={"kind": "static", "placement": {"kind": "ring", "distance_m": 100}},
        shadowing={"std_db": 0},
        fading={"kind": "none"},
    ).step()
    assert tick.distance_m == pytest.approx(np.full(4, 100.0))
    assert tick.snr_up_db == pytest.approx(np.full(4, 27.14), abs=0.01)
    assert tick.rate_up_bps == pytest.approx(np.full(4, 1.8035e6), rel=2e-3)
    assert tick.rate_down_bps - tick.rate_up_bps == pytest.approx(
        np.full(4, 200e3 * 2.32), rel=0.01
    )
    assert tick.loss_up.tolist() == [0.01] * 4
    assert tick.loss_down.tolist() == [0.02] * 4
    assert tick.is_open.all()


@pytest.mark.parametrize(("threshold_db", "wanted"), [(34.0, True), (34.2, False)])
def test_contact_by_snr_is_decided_by_the_mean_downlink(
    threshold_db: float, *, wanted: bool
) -> None:
    """27.14 dB as above, and 1 W instead of 0.2 W is 6.99 dB more: 34.13 dB without fading."""
    tick = world(
        site_height_m=1.5,
        mobility={"kind": "static", "placement": {"kind": "ring", "distance_m": 100}},
        shadowing={"std_db": 0},
        contact={"kind": "snr_threshold", "threshold_db": threshold_db},
    ).step()
    assert tick.is_open.tolist() == [wanted] * 8


def test_shadowing_and_fading_reach_the_signal() -> None:
    """A standing device: shadowing is one constant offset, fading one new offset per block."""
    still = {"kind": "static", "placement": {"kind": "ring", "distance_m": 100}}
    plain = world(mobility=still, shadowing={"std_db": 0}, fading={"kind": "none"}).step()
    shadowed = run(world(mobility=still, fading={"kind": "none"}), 20)
    faded = run(world(mobility=still, shadowing={"std_db": 0}), 1000)
    offset = column(shadowed, "snr_up_db") - plain.snr_up_db
    assert np.all(offset == offset[0])
    assert 1.0 < offset[0].std() < 8.0
    power = 10 ** ((column(faded, "snr_up_db") - plain.snr_up_db) / 10)
    assert power.mean() == pytest.approx(1.0, abs=4 / np.sqrt(8 * 400))


def test_contact_follows_distance_and_predictions_stay_finite() -> None:
    ticks = run(world(devices=50, contact={"kind": "coverage", "radius_m": 150}), 300)
    is_open, predicted_s = column(ticks, "is_open"), column(ticks, "predicted_contact_s")
    assert np.array_equal(is_open, column(ticks, "distance_m") <= 150)
    assert np.all(np.isfinite(predicted_s))
    assert np.all((predicted_s > 0) == is_open)
    assert np.array_equal(column(ticks, "site"), np.zeros((300, 50)))
    moved = np.abs(np.diff(predicted_s, axis=0) + 0.1) < 1e-9
    assert 0.5 < moved[is_open[1:] & is_open[:-1]].mean() < 1.0


def test_without_fading_the_ergodic_rate_is_the_rate() -> None:
    for tick in run(world(fading={"kind": "none"}), 5):
        assert np.array_equal(tick.ergodic_up_bps, tick.rate_up_bps)
        assert np.array_equal(tick.ergodic_down_bps, tick.rate_down_bps)


def test_the_mean_of_faded_rates_is_the_ergodic_rate() -> None:
    """A standing device: the mean of 4000 blocks within four standard errors of 1.2 %."""
    still = {"kind": "static", "placement": {"kind": "ring", "distance_m": 140}}
    ticks = run(world(devices=4, mobility=still, shadowing={"std_db": 0}), 2500)
    for name in ("up", "down"):
        expected = column(ticks, f"ergodic_{name}_bps")
        assert np.all(expected == expected[0])
        assert column(ticks, f"rate_{name}_bps").mean() == pytest.approx(expected.mean(), rel=0.05)


def test_packet_classes_share_the_rate_and_delays_reach_every_link() -> None:
    urgent = {"name": "urgent", "port": 7000, "rate_share_up": 0.25, "rate_share_down": 0.5}
    delays = {"delay_up_s": 0.02, "delay_down_s": 0.03, "jitter_up_s": 0.002, "jitter_down_s": 0.01}
    plain, split = world().step(), world(classes=[urgent], **delays).step()
    assert split.up[1].rate_bps == pytest.approx(0.25 * plain.rate_up_bps)
    assert split.down[1].rate_bps == pytest.approx(0.5 * plain.rate_down_bps)
    assert split.rate_up_bps == pytest.approx(plain.rate_up_bps)
    for name, value in delays.items():
        assert getattr(split, name).tolist() == [value] * 8
        assert getattr(plain, name).tolist() == [0.0] * 8
