"""The radio section: what it accepts, what it refuses, and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from fadelab_emulation.config import RadioConfig

LEAST: dict[str, Any] = {
    "mobility": {"kind": "random_waypoint", "speed_mps": [15, 30]},
    "rate": {"kind": "shannon", "bandwidth_hz": 200e3},
}
FIXED = {"kind": "fixed", "rate_up_bps": 1e6, "rate_down_bps": 1e6}
CLASS = {"name": "urgent", "rate_share_up": 0.1, "rate_share_down": 0.1}


def radio(**changes: object) -> RadioConfig:
    return RadioConfig.model_validate({**LEAST, **changes})


def test_everything_but_mobility_and_rate_has_a_default() -> None:
    config = radio()
    assert config.tick_s == 0.1
    assert config.base_station_place_m == (300.0, 300.0)
    assert config.path_loss.kind == "log_distance"
    assert config.fading.kind == "none"
    assert config.contact.kind == "always"
    assert config.shadowing.std_db is None
    assert config.outages == []
    assert config.prediction.kind == "forecast"


def test_a_dumped_configuration_reads_back_as_itself() -> None:
    config = radio(
        base_station_m=[10, 20],
        fading={"kind": "rayleigh", "coherence_s": 0.3},
        contact={"kind": "coverage", "radius_m": 100, "hysteresis_m": 5},
        outages=[{"windows_s": [[1, 2], [5, 7]], "devices": [3], "announced": True}],
        packet_loss_up={"to_bad": 0.01, "to_good": 0.2},
        classes=[{"name": "a", "dscp": 46, "rate_share_up": 0.2, "rate_share_down": 0.1}],
        prediction={"kind": "oracle"},
    )
    assert RadioConfig.model_validate_json(config.model_dump_json()) == config


def _properties(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    definitions = {"RadioConfig": schema, **schema["$defs"]}
    return [
        (owner, name, field)
        for owner, definition in definitions.items()
        for name, field in definition.get("properties", {}).items()
        if name != "kind"
    ]


def test_every_setting_is_described_for_editors() -> None:
    properties = _properties(RadioConfig.model_json_schema())
    assert len(properties) > 30
    bare = [f"{owner}.{name}" for owner, name, field in properties if not field.get("description")]
    assert bare == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tick_s": 0}, "greater than 0"),
        ({"area_m": [0, 100]}, "greater than 0"),
        ({"area_m": [100]}, "required"),
        ({"base_station_m": [700, 10]}, r"base station at \(700, 10\) stands outside the area"),
        ({"carrier_hz": 5.9}, "greater than or equal to 1000000"),
        ({"uplink_power_w": -0.2}, "greater than 0"),
        ({"packet_loss_up": 1.5}, "less than or equal to 1"),
        ({"packet_loss_down": -0.1}, "greater than or equal to 0"),
        ({"bandwidth": 1}, "Extra inputs are not permitted"),
        ({"mobility": {"kind": "teleport"}}, "'static', 'random_waypoint'"),
        ({"fading": {"kind": "rayleigh", "coherence_s": 1e-6}}, "too short for a tick of 0.1 s"),
        ({"shadowing": {"std_db": -1}}, "greater than or equal to 0"),
        ({"rate": {"kind": "fixed", "rate_up_bps": -1, "rate_down_bps": 1e6}}, "64000"),
        ({"contact": {"kind": "coverage", "radius_m": float("nan")}}, "finite"),
        (
            {"sites": {"kind": "grid", "columns": 2, "rows": 2}, "base_station_m": [1, 1]},
            "not both",
        ),
        (
            {"sites": {"kind": "listed", "positions_m": [[1, 1], [1, 700]]}},
            r"\(1, 700\) stands out",
        ),
        ({"delay_up_s": 0.02, "jitter_up_s": 0.01}, "three times as much: delay_up_s is 0.02"),
        ({"jitter_down_s": 0.01}, "three times as much: delay_down_s is 0"),
        ({"packet_loss_up": {"to_bad": 0.1}}, "Field required"),
        ({"packet_loss_up": {"to_bad": 0, "to_good": 0.5}}, "greater than 0"),
        ({"packet_loss_down": "much"}, "valid number"),
        ({"packet_loss_down": [0.1]}, "valid dictionary"),
        (
            {"classes": [dict(CLASS, dscp=1), dict(CLASS, port=2)]},
            "two packet classes have the name",
        ),
        ({"contact": {"kind": "exponential", "mean_contact_s": 9, "mean_gap_s": 0.01}}, "the tick"),
        ({"outages": [{"windows_s": [[1, 3], [2, 4]]}]}, "overlap"),
        ({"outages": [{"windows_s": [[3, 1]]}]}, "must end after its start"),
        ({"outages": [{"windows_s": [[-3, 1]]}]}, "greater than or equal to 0"),
        ({"outages": [{"windows_s": [[1, 1.01]]}]}, "shorter than the tick"),
        (
            {"contact": {"kind": "snr_threshold", "threshold_db": 5}, "rate": FIXED},
            "contact of kind snr_threshold needs a signal-to-noise ratio, which a rate of kind fixed",
        ),
    ],
)
def test_bad_input_gives_one_error_with_one_sentence(changes: Any, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence) as refused:
        radio(**changes)
    assert refused.value.error_count() == 1
    assert "\n" not in refused.value.errors()[0]["msg"]


def test_every_contact_model_goes_with_a_rate_that_knows_its_noise() -> None:
    for kind, settings in {
        "always": {},
        "coverage": {"radius_m": 100},
        "snr_threshold": {"threshold_db": 5},
        "exponential": {"mean_contact_s": 5, "mean_gap_s": 5},
    }.items():
        contact = {"kind": kind, **settings}
        assert radio(contact=contact).contact.kind == kind
        if kind != "snr_threshold":
            assert radio(contact=contact, rate=FIXED).rate.kind == "fixed"


def test_the_first_base_station_is_told_without_its_random_part() -> None:
    assert radio(base_station_m=[10, 20]).base_station_place_m == (10.0, 20.0)
    listed = {"kind": "listed", "positions_m": [[30, 40], [1, 2]]}
    assert radio(sites=listed).base_station_place_m == (30.0, 40.0)
    grid = {"kind": "grid", "columns": 3, "rows": 2, "jitter": 0.5}
    assert radio(sites=grid).base_station_place_m == (100.0, 150.0)


def test_a_ring_round_a_randomly_placed_site_is_checked_where_that_site_stands() -> None:
    config = radio(
        area_m=[100, 100],
        sites={"kind": "grid", "columns": 1, "rows": 1, "jitter": 0.5},
        mobility={"kind": "static", "placement": {"kind": "ring", "distance_m": 5}},
    )
    sites_m = config.model_copy(update={"mobility": radio().mobility})
    room_m = {
        seed: float(min(place.min(), (100 - place).min()))
        for seed in range(40)
        for place in [sites_m.scene(1, seed).sites_m]
    }
    assert min(room_m.values()) < 5 < max(room_m.values())
    for seed, least_m in room_m.items():
        if least_m >= 5:
            config.scene(3, seed)
        else:
            with pytest.raises(ValueError, match="leaves the area"):
                config.scene(3, seed)
