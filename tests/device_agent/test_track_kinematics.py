"""Synthetic vehicles: the same from the same seed, and within what vehicles can do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_agent.tasks.synthetic_tracks import draw_tracks
from fadelab_agent.tasks.track_kinematics import (
    MANOEUVRES,
    MAX_BRAKE_MPS2,
    MAX_CURVATURE_PER_M,
    MAX_DRIVE_MPS2,
    MAX_LATERAL_MPS2,
    MAX_SPEED_MPS,
    drive,
)

SAMPLES = 50
SEEDS = st.integers(0, 2**32 - 1)


def tracks_of(kind: str, vehicles: int = 60, seed: int = 0) -> np.ndarray:
    kinds = np.full(vehicles, MANOEUVRES.index(kind))
    return drive(kinds, SAMPLES, np.random.default_rng(seed))


def speeds_mps(tracks: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(tracks, axis=1), axis=2) / 0.1


def turned_rad(tracks: np.ndarray) -> np.ndarray:
    """Return by how much each vehicle's direction changed between its first and last metres."""
    moves = np.diff(tracks, axis=1)
    headings = np.unwrap(np.arctan2(moves[..., 1], moves[..., 0]), axis=1)
    return np.asarray(headings[:, -1] - headings[:, 0])


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_no_vehicle_exceeds_what_vehicles_can_do(seed: int) -> None:
    kinds = np.arange(48) % len(MANOEUVRES)
    tracks = drive(kinds, SAMPLES, np.random.default_rng(seed))
    assert tracks.shape == (48, SAMPLES, 2)
    velocities = np.diff(tracks, axis=1) / 0.1
    speeds = np.linalg.norm(velocities, axis=2)
    assert speeds.max() <= MAX_SPEED_MPS
    # The difference of mean velocities is a weighted mean of the acceleration between.
    accelerations = np.linalg.norm(np.diff(velocities, axis=1), axis=2) / 0.1
    assert accelerations.max() <= 1.01 * np.hypot(MAX_BRAKE_MPS2, MAX_LATERAL_MPS2)
    gains = np.diff(speeds, axis=1) / 0.1
    # A chord is shorter than its arc, so braking in a bend may look a little stronger.
    assert gains.min() >= -1.05 * MAX_BRAKE_MPS2
    assert gains.max() <= 1.05 * MAX_DRIVE_MPS2 + 0.05 * MAX_LATERAL_MPS2


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_no_path_is_more_curved_than_a_car_can_steer(seed: int) -> None:
    tracks = drive(np.arange(48) % len(MANOEUVRES), SAMPLES, np.random.default_rng(seed))
    moves = np.diff(tracks, axis=1)
    lengths = np.linalg.norm(moves, axis=2)
    headings = np.arctan2(moves[..., 1], moves[..., 0])
    changes = np.abs((np.diff(headings, axis=1) + np.pi) % (2 * np.pi) - np.pi)
    between = (lengths[:, :-1] + lengths[:, 1:]) / 2
    # Directions of steps of millimetres are rounding.
    driving = (lengths[:, :-1] > 0.01) & (lengths[:, 1:] > 0.01)
    assert (changes[driving] <= 1.02 * MAX_CURVATURE_PER_M * between[driving] + 1e-6).all()


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_the_same_seed_gives_the_same_tracks(seed: int) -> None:
    first, kinds = draw_tracks(30, np.random.default_rng(seed))
    second, again = draw_tracks(30, np.random.default_rng(seed))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(kinds, again)
    other, _ = draw_tracks(30, np.random.default_rng(seed + 1))
    assert not np.array_equal(first, other)
    assert np.bincount(kinds).tolist() == [5] * 6


def test_every_manoeuvre_is_what_its_name_says() -> None:
    start, end = {}, {}
    for kind in MANOEUVRES:
        speeds = speeds_mps(tracks_of(kind))
        start[kind], end[kind] = speeds[:, 0], speeds[:, -1]
    assert (end["accelerating"] > start["accelerating"] + 1).all()
    assert (end["braking"] < 0.9 * start["braking"]).all()
    assert np.median(end["stopping"]) == 0.0
    assert np.abs(end["cruising"] - start["cruising"]).max() < 4
    assert np.median(np.abs(turned_rad(tracks_of("turning")))) > 0.8
    assert np.abs(turned_rad(tracks_of("lane_changing"))).max() < 0.6


def test_a_lane_change_ends_a_lane_further() -> None:
    tracks = tracks_of("lane_changing", vehicles=300)
    ahead = tracks[:, 1] - tracks[:, 0]
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    moved = tracks[:, -1] - tracks[:, 0]
    sideways = np.abs(ahead[:, 0] * moved[:, 1] - ahead[:, 1] * moved[:, 0])
    # Those that began before or end after the window, and the wander of the rest, blur the 3.5 m.
    assert 2.0 < np.median(sideways) < 5.0


def test_left_and_right_are_equally_frequent() -> None:
    left = int((turned_rad(tracks_of("turning", vehicles=400)) > 0).sum())
    # Five standard deviations of a fair coin.
    assert abs(left - 200) < 50


def test_who_stands_still_stays_where_it_is() -> None:
    tracks = tracks_of("stopping", vehicles=200)
    standing = speeds_mps(tracks)[:, 30] == 0.0
    assert standing.sum() > 20
    np.testing.assert_array_equal(tracks[standing, 31], tracks[standing, -1])


@pytest.mark.parametrize("samples", [1, 50])
def test_only_what_is_asked_for_is_drawn(samples: int) -> None:
    tracks = drive(np.zeros(3, dtype=np.int64), samples, np.random.default_rng(0))
    assert tracks.shape == (3, samples, 2)
