"""The radio section: what it accepts, what it refuses, and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from fadelab_emulation.config import RadioConfig

LEAST: dict[str, Any] = {
    "mobility": {"kind": "random_waypoint", "speed_mps": [15, 30]},
    "rate": {"kind": "shannon", "bandwidth_hz": 200e3},
}


def radio(**changes: object) -> RadioConfig:
    return RadioConfig.model_validate({**LEAST, **changes})


def test_everything_but_mobility_and_rate_has_a_default() -> None:
    config = radio()
    assert config.tick_s == 0.1
    assert config.base_station_place_m == (300.0, 300.0)
    assert config.path_loss.kind == "log_distance"
    assert config.fading.kind == "none"
    assert config.contact.kind == "always"
    assert config.shadowing.std_db == 0.0


def test_a_dumped_configuration_reads_back_as_itself() -> None:
    config = radio(
        base_station_m=[10, 20],
        fading={"kind": "rayleigh", "coherence_s": 0.3},
        contact={"kind": "coverage", "radius_m": 100, "hysteresis_m": 5},
    )
    assert RadioConfig.model_validate_json(config.model_dump_json()) == config


def _properties(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    definitions = {"RadioConfig": schema, **schema["$defs"]}
    return [
        (owner, name, field)
        for owner, definition in definitions.items()
        for name, field in definition["properties"].items()
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
    ],
)
def test_bad_input_gives_one_error_with_one_sentence(changes: Any, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence) as refused:
        radio(**changes)
    assert refused.value.error_count() == 1
    assert "\n" not in refused.value.errors()[0]["msg"]
