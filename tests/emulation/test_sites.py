"""Base stations' places: listed, or a grid with a random part."""

from typing import Any

import numpy as np
import pytest

from fadelab_emulation.sites import GridSites, ListedSites

AREA_M = (900.0, 400.0)


def test_listed_sites_stand_where_the_list_says() -> None:
    sites = ListedSites(positions_m=[(0.0, 0.0), (900.0, 400.0), (5.0, 6.0)])
    assert sites.place(AREA_M, seed=3).tolist() == [[0.0, 0.0], [900.0, 400.0], [5.0, 6.0]]


@pytest.mark.parametrize("place_m", [(-1.0, 5.0), (5.0, -1.0), (901.0, 5.0), (5.0, 401.0)])
def test_a_site_outside_the_area_is_refused(place_m: tuple[float, float]) -> None:
    sites = ListedSites(positions_m=[(1.0, 1.0), place_m])
    with pytest.raises(
        ValueError, match=r"base station at \(.*\) stands outside the area of 900 m"
    ):
        sites.place(AREA_M, seed=3)


def test_a_grid_stands_in_the_middles_of_equal_rectangles_row_by_row() -> None:
    places_m = GridSites(columns=3, rows=2).place(AREA_M, seed=3)
    assert places_m.tolist() == [
        [150.0, 100.0],
        [450.0, 100.0],
        [750.0, 100.0],
        [150.0, 300.0],
        [450.0, 300.0],
        [750.0, 300.0],
    ]


def test_jitter_moves_every_site_within_its_part_of_the_spacing() -> None:
    even = GridSites(columns=20, rows=10).place(AREA_M, seed=3)
    moved = (GridSites(columns=20, rows=10, jitter=0.4).place(AREA_M, seed=3) - even) / [45.0, 40.0]
    assert np.abs(moved).max() <= 0.4
    assert np.abs(moved).max() > 0.35
    assert moved.std(axis=0) == pytest.approx([0.4 / np.sqrt(3)] * 2, rel=0.15)


def test_the_greatest_jitter_stays_inside_the_area() -> None:
    for seed in range(20):
        places_m = GridSites(columns=4, rows=4, jitter=0.5).place(AREA_M, seed)
        assert np.all((places_m >= 0) & (places_m <= AREA_M))


def test_the_seed_alone_says_how_sites_are_moved() -> None:
    grid = GridSites(columns=4, rows=4, jitter=0.5)
    assert np.array_equal(grid.place(AREA_M, seed=1), grid.place(AREA_M, seed=1))
    assert not np.array_equal(grid.place(AREA_M, seed=1), grid.place(AREA_M, seed=2))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"columns": 0, "rows": 1}, "greater than or equal to 1"),
        ({"columns": 65, "rows": 1}, "less than or equal to 64"),
        ({"columns": 2, "rows": 1, "jitter": 0.6}, "less than or equal to 0.5"),
    ],
)
def test_an_impossible_grid_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        GridSites.model_validate(given)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        ListedSites(positions_m=[])
