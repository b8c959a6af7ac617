"""``argoverse``: tracks of real vehicles, from Argoverse 1 motion forecasting.

Chang et al., "Argoverse: 3D tracking and forecasting with rich maps", CVPR 2019. Its training part
has 205 942 sequences and its validation part, which serves as test set here, 39 472. The published
test part lacks what is to be predicted.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.tasks.base import DataSetBroken, DataSetMissing, SampleLimits, choice
from fadelab_agent.tasks.tracks import INTERVAL_S, POSITIONS, TrackData, track_data

COLUMNS = ("TIMESTAMP", "TRACK_ID", "OBJECT_TYPE", "X", "Y", "CITY_NAME")
CITIES = ("MIA", "PIT")
"""Miami and Pittsburgh, which partitions tell apart."""

_AGENT = "AGENT"
_MAX_FILE_BYTES = 16 << 20
# Positions are metres in a city's frame: beyond this, float64 is no longer the question.
_MAX_M = 1e6


def load_argoverse(data_dir: Path, limits: SampleLimits) -> TrackData:
    """Load ``data_dir/argoverse/train/data/*.csv`` and ``.../val/data/*.csv``, one track of each.

    Args:
        data_dir: where data sets are.
        limits: files beyond these are not even opened.

    Raises:
        DataSetMissing: if there are no such files.
        DataSetBroken: if one of them is not what it should be.

    """
    folder = data_dir / "argoverse"
    train_files = _files(folder / "train" / "data", limits.train)
    test_files = _files(folder / "val" / "data", limits.test)
    missing = [
        f"{part}/data/*.csv"
        for part, files in (("train", train_files), ("val", test_files))
        if not files
    ]
    if missing:
        raise DataSetMissing(
            f"argoverse needs {' and '.join(missing)} in {folder.absolute()}: the files of "
            "Argoverse 1 motion forecasting as its archives hold them"
        )
    train, cities = _read_all(train_files)
    test, _ = _read_all(test_files)
    return track_data("argoverse", train, test, cities, CITIES)


def _files(folder: Path, wanted: int | None) -> list[Path]:
    paths = np.array(sorted(folder.glob("*.csv")), dtype=object)
    return list(paths[choice(len(paths), wanted)])


def _read_all(paths: list[Path]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    tracks = np.empty((len(paths), POSITIONS, 2))
    cities = np.empty(len(paths), dtype=np.int64)
    for index, path in enumerate(paths):
        tracks[index], city = read_sequence(path)
        cities[index] = CITIES.index(city)
    return tracks, cities


def read_sequence(path: Path) -> tuple[NDArray[np.float64], str]:
    """Read the track that is to be predicted from one sequence.

    Args:
        path: a CSV file that names the columns of :data:`COLUMNS` in its first line.

    Returns:
        x and y of the 50 rows of type ``AGENT``, shape ``(50, 2)``, metres; and the city.

    Raises:
        DataSetBroken: if the file is not such a sequence; the message names it and what it lacks.

    """
    header, *lines = _lines(path)
    names = header.strip().split(",")
    for name in COLUMNS:
        if names.count(name) != 1:
            raise DataSetBroken(
                f"{path} should name the columns {','.join(COLUMNS)} once each in its first line, "
                f"but {name} is there {names.count(name)} times"
            )
    type_column, width = names.index("OBJECT_TYPE"), len(names)
    rows = []
    for number, line in enumerate(lines, start=2):
        # Most lines are of other road users: a quick look spares taking them apart.
        if _AGENT not in line:
            continue
        fields = line.strip().split(",")
        if len(fields) != width:
            raise DataSetBroken(
                f"{path}, line {number}: {width} fields are expected, it has {len(fields)}"
            )
        if fields[type_column] == _AGENT:
            rows.append((number, dict(zip(names, fields, strict=True))))
    if len(rows) != POSITIONS:
        raise DataSetBroken(
            f"{path} should have {POSITIONS} rows of type {_AGENT}, 5 s at 10 Hz, but has "
            f"{len(rows)}"
        )
    return _track(path, rows)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise DataSetBroken(f"{path} is larger than the {_MAX_FILE_BYTES} bytes allowed")
        return content.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise DataSetBroken(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataSetBroken(f"{path} should be text in CSV, but it is not UTF-8") from None


def _track(path: Path, rows: list[tuple[int, dict[str, str]]]) -> tuple[NDArray[np.float64], str]:
    """Check the rows of the one vehicle and return its positions and city."""
    values = np.array(
        [
            [_number(path, line, name, row[name]) for name in ("TIMESTAMP", "X", "Y")]
            for line, row in rows
        ]
    )
    vehicles = {row["TRACK_ID"] for _, row in rows}
    cities = {row["CITY_NAME"] for _, row in rows}
    if len(vehicles) != 1:
        raise DataSetBroken(
            f"{path} should have one TRACK_ID of type {_AGENT}, but has {len(vehicles)}"
        )
    if len(cities) != 1 or not cities <= set(CITIES):
        raise DataSetBroken(
            f"{path} should have one CITY_NAME, {' or '.join(CITIES)}, but has "
            f"{', '.join(sorted(repr(city[:20]) for city in cities))}"
        )
    intervals_s = np.diff(values[:, 0])
    if (intervals_s <= 0).any() or not 0.8 < intervals_s.mean() / INTERVAL_S < 1.2:
        raise DataSetBroken(
            f"{path} should have ascending TIMESTAMPs {INTERVAL_S} s apart, but they are "
            f"{intervals_s.min():.3g} to {intervals_s.max():.3g} s apart"
        )
    return values[:, 1:], cities.pop()


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Python's own notation 1_000 is no CSV's. Time stamps are seconds since 1970.
    if "_" in text or not abs(value) <= (1e11 if name == "TIMESTAMP" else _MAX_M):
        raise DataSetBroken(
            f"{path}, line {line}: {name} should be a finite number of usual size, but is "
            f"{text[:20]!r}"
        )
    return value
