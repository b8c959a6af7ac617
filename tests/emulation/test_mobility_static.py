"""Devices that stand still."""

import numpy as np
import pytest
from pydantic import ValidationError
from scenes import make_scene

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.static import (
    ListedPlacement,
    Placement,
    RingPlacement,
    StaticConfig,
    UniformPlacement,
)


def places(placement: Placement, devices: int, seed: int = 1) -> FloatArray:
    return placement.place(make_scene(devices, seed=seed))


def test_listed_places_are_taken_as_they_are_and_never_change() -> None:
    listed = [(0.0, 0.0), (400.0, 300.0), (10.0, 20.0)]
    model = StaticConfig(placement=ListedPlacement(positions_m=listed)).build(make_scene(3))
    for duration_s in (0.0, 0.1, 1e6):
        motion = model.advance(duration_s)
        assert motion.position_m.tolist() == [list(place) for place in listed]
        assert not motion.velocity_mps.any()
        assert not motion.travelled_m.any()


def test_a_list_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="lists 1 positions but the experiment has 2 devices"):
        places(ListedPlacement(positions_m=[(1.0, 1.0)]), 2)


def test_ring_places_have_the_one_distance_and_spread_evenly() -> None:
    offset_m = places(RingPlacement(distance_m=50.0), 4) - np.array([200.0, 150.0])
    expected = [[50, 0], [0, 50], [-50, 0], [0, -50]]
    assert np.allclose(offset_m, expected)


def test_uniform_places_fill_the_area_evenly() -> None:
    fractions = places(UniformPlacement(), 20_000) / np.array([400.0, 300.0])
    counts, _, _ = np.histogram2d(fractions[:, 0], fractions[:, 1], bins=4, range=[[0, 1], [0, 1]])
    assert counts.sum() == 20_000
    assert np.all(np.abs(counts - 1250) < 5 * np.sqrt(1250))


def test_a_device_keeps_its_place_when_others_are_added() -> None:
    few, many = places(UniformPlacement(), 3), places(UniformPlacement(), 100)
    assert np.array_equal(few, many[:3])
    assert not np.array_equal(few, places(UniformPlacement(), 3, seed=2))


@pytest.mark.parametrize(
    ("placement", "sentence"),
    [
        ({"kind": "listed", "positions_m": [[10, 10], [500, 10]]}, r"\(500, 10\) lies outside"),
        ({"kind": "ring", "distance_m": 160}, "leaves the area: the nearest edge is 150 m away"),
    ],
)
def test_places_outside_the_area_are_refused(placement: object, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RadioConfig.model_validate(
            {
                "area_m": [400, 300],
                "mobility": {"kind": "static", "placement": placement},
                "rate": {"kind": "fixed", "rate_up_bps": 1e6, "rate_down_bps": 1e6},
            }
        )
