"""``synthetic_tracks``: 4 800 + 1 200 tracks of vehicles that manoeuvre, drawn when loaded.

A stand-in for recorded tracks that needs no download: the vehicles know neither roads nor each
other, so results say nothing about Argoverse.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.tasks.track_kinematics import MANOEUVRES, Floats, drive
from fadelab_agent.tasks.tracks import OBSERVED, POSITIONS, TrackData, track_data
from fadelab_proto.seeds import Stream, generator

_TRAIN, _TEST = 4800, 1200
# The tracks belong to the task, not to an experiment: results of all seeds stay comparable.
_SEED = 2506
_SENSOR_STD_M = 0.05


def load_synthetic_tracks(data_dir: Path) -> TrackData:  # noqa: ARG001 - every task takes the folder
    """Draw the tracks; every load gives the same. Partitions divide by manoeuvre."""
    train, kinds = draw_tracks(_TRAIN, generator(_SEED, Stream.DATA, 0))
    test, _ = draw_tracks(_TEST, generator(_SEED, Stream.DATA, 1))
    return track_data("synthetic_tracks", train, test, kinds, MANOEUVRES)


def draw_tracks(tracks: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Draw tracks whose observed part was measured with errors.

    Args:
        tracks: how many; every manoeuvre gets the same share, give or take one.
        rng: where chances come from.

    Returns:
        positions in metres, shape ``(tracks, 50, 2)``, of which the observed ones err by 5 cm
        (standard deviation, each coordinate); and each track's position in
        :data:`~fadelab_agent.tasks.track_kinematics.MANOEUVRES`.

    """
    kinds = rng.permutation(np.arange(tracks, dtype=np.int64) % len(MANOEUVRES))
    positions = drive(kinds, POSITIONS, rng)
    positions[:, :OBSERVED] += rng.normal(0.0, _SENSOR_STD_M, (tracks, OBSERVED, 2))
    return positions, kinds
