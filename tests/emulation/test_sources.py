"""The radio section: models or a timeline, and what either asks of the links."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from fadelab_emulation.backends.choice import Need
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.sources import AnyRadio, link_source, needs
from fadelab_emulation.timeline.config import TimelineConfig
from fadelab_emulation.world import RadioWorld

MODELS: dict[str, Any] = {
    "mobility": {"kind": "static"},
    "rate": {"kind": "fixed", "rate_up_bps": 1e6, "rate_down_bps": 2e6},
}


def radio(**section: Any) -> RadioConfig | TimelineConfig:
    return TypeAdapter[RadioConfig | TimelineConfig](AnyRadio).validate_python(section)


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    path = tmp_path / "steps.csv"
    path.write_text(
        "t_s,rate_up_bps,rate_down_bps,delay_s,loss_up\n0,1e6,2e6,0,0\n1,5e5,2e6,0.03,0.1\n"
    )
    return path


def test_the_key_timeline_tells_a_timeline_from_models(steps: Path) -> None:
    assert isinstance(radio(**MODELS), RadioConfig)
    config = radio(timeline={"kind": "csv", "path": str(steps)}, tick_s=0.5)
    assert isinstance(config, TimelineConfig)
    source = link_source(config, devices=3, seed=1)
    rates = [source.step().rate_up_bps for _ in range(3)]
    assert [rate.tolist() for rate in rates] == [[1e6] * 3, [1e6] * 3, [5e5] * 3]


def test_a_section_survives_its_own_dump(steps: Path) -> None:
    for config in (radio(**MODELS), radio(timeline={"kind": "csv", "path": str(steps)})):
        assert radio(**config.model_dump(mode="json")) == config


def test_models_are_stepped_by_a_world() -> None:
    source = link_source(radio(**MODELS), devices=2, seed=5)
    assert isinstance(source, RadioWorld)
    assert np.array_equal(source.step().rate_down_bps, [2e6, 2e6])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, set()),
        ({"packet_loss_down": 0.01}, {Need.LOSS}),
        ({"packet_loss_up": {"to_bad": 0.1, "to_good": 0.5}}, {Need.LOSS, Need.BURST_LOSS}),
        ({"delay_up_s": 0.01}, {Need.DELAY}),
        ({"window": "reject"}, {Need.REJECT}),
        (
            {
                "classes": [
                    {
                        "name": "sign",
                        "dscp": 46,
                        "rate_share_up": 0.2,
                        "rate_share_down": 0.2,
                        "packet_loss_up": 0.1,
                    }
                ]
            },
            {Need.LOSS},
        ),
    ],
)
def test_needs_of_models_are_those_of_the_settings(more: dict[str, Any], expected: Any) -> None:
    assert needs(radio(**MODELS, **more), 2, 1, 10.0) == expected


def test_needs_of_a_timeline_are_looked_up_as_far_as_the_run_goes(steps: Path) -> None:
    config = radio(timeline={"kind": "csv", "path": str(steps)})
    assert needs(config, 1, 1, duration_s=0.9) == frozenset()
    assert needs(config, 1, 1, duration_s=2.0) == {Need.LOSS, Need.DELAY}


def test_a_timeline_takes_no_models(steps: Path) -> None:
    with pytest.raises(ValidationError, match="mobility"):
        radio(timeline={"kind": "csv", "path": str(steps)}, mobility={"kind": "static"})
