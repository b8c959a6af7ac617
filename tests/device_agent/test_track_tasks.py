"""Tracks: reading Argoverse's files, frames, the metric, and what limits and partitions do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_agent.config import (
    DirichletPartition,
    IidPartition,
    LabelsPerDevicePartition,
    TaskConfig,
    TaskName,
    TrackLstmModel,
    TrackMlpModel,
    TrainingConfig,
)
from fadelab_agent.metric import Metric
from fadelab_agent.models import build_model, model_for
from fadelab_agent.partition import partition
from fadelab_agent.tasks import DataSetBroken, DataSetMissing, TaskData, load_task
from fadelab_agent.tasks.argoverse import read_sequence
from fadelab_agent.tasks.base import SampleLimits
from fadelab_agent.tasks.synthetic_tracks import load_synthetic_tracks
from fadelab_agent.tasks.tracks import TrackData, coast, track_data, vehicle_frame
from fadelab_agent.training import FlatModel, evaluate, train_locally

torch.set_num_threads(1)

HEADER = "TIMESTAMP,TRACK_ID,OBJECT_TYPE,X,Y,CITY_NAME"
AGENT = "00000000-0000-0000-0000-000000012345"


def rows(**changes: Any) -> list[str]:
    """Return a sequence's lines: a vehicle at 10 m/s along x, and others around it."""
    given = {"kind": "AGENT", "city": "PIT", "start_s": 315967376.9, "track": AGENT} | changes
    lines = [HEADER]
    for index in range(50):
        t_s = f"{given['start_s'] + 0.1 * index:.2f}"
        lines += [
            f"{t_s},00000000-0000-0000-0000-000000000000,AV,1.5,2.5,{given['city']}",
            f"{t_s},{given['track']},{given['kind']},{1000 + index},{2000.25},{given['city']}",
            f"{t_s},00000000-0000-0000-0000-000000000007,OTHERS,9.5,8.5,{given['city']}",
        ]
    return lines


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode())
    return path


def argoverse(folder: Path, train: int = 4, test: int = 2) -> Path:
    for part, files in (("train", train), ("val", test)):
        for number in range(files):
            city = "MIA" if number % 2 else "PIT"
            path = folder / "argoverse" / part / "data" / f"{number + 1}.csv"
            write(path, rows(city=city, start_s=100.0 * number))
    return folder


def load(name: TaskName, folder: Path = Path("data"), **limits: int) -> TrackData:
    config = TaskConfig(name=name, model=TrackMlpModel(), **limits)
    data = load_task(config, folder)
    assert isinstance(data, TrackData)
    return data


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_agent_of_a_sequence_is_read(tmp_path: Path, end: str) -> None:
    track, city = read_sequence(write(tmp_path / "1.csv", rows(), end))
    assert city == "PIT"
    np.testing.assert_array_equal(track[:, 0], np.arange(1000, 1050))
    np.testing.assert_array_equal(track[:, 1], 2000.25)


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    mixed = []
    for line in rows():
        t_s, track, kind, x, y, city = line.split(",")
        mixed.append(",".join([kind, y, "more", city, x, track, t_s]))
    track, city = read_sequence(write(tmp_path / "1.csv", mixed))
    assert (city, track[3].tolist()) == ("PIT", [1003.0, 2000.25])


def test_argoverse_is_read_from_both_parts(tmp_path: Path) -> None:
    data = load("argoverse", argoverse(tmp_path))
    assert data.train_x.shape == (4, 20, 2)
    assert data.test_y.shape == (2, 30, 2)
    assert data.groups.tolist() == [1, 0, 1, 0]
    # Along x at 1 m per interval: the last observed position is the origin.
    np.testing.assert_allclose(data.train_x[0, :, 0], np.arange(-19, 1), atol=1e-4)
    np.testing.assert_allclose(data.train_y[0, :, 0], np.arange(1, 31), atol=1e-4)
    assert data.baseline().metric == pytest.approx(0, abs=1e-4)


def test_files_beyond_the_limits_are_not_opened(tmp_path: Path) -> None:
    folder = argoverse(tmp_path, train=12)
    one = load("argoverse", folder, train_samples=5, test_samples=1)
    assert (len(one.train_x), len(one.test_x), len(one.groups)) == (5, 1, 5)
    paths = sorted((folder / "argoverse" / "train" / "data").iterdir())
    broken = 0
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(b"no sequence")
        try:
            load("argoverse", folder, train_samples=5, test_samples=1)
        except DataSetBroken:
            broken += 1
        path.write_bytes(whole)
    assert broken == 5


def test_missing_argoverse_says_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(
        DataSetMissing, match=r"train/data/\*\.csv and val/data/\*\.csv in "
    ) as all_:
        load("argoverse", tmp_path)
    assert str(tmp_path / "argoverse") in str(all_.value)
    argoverse(tmp_path, train=1, test=0)
    with pytest.raises(DataSetMissing, match=r"needs val/data/\*\.csv in "):
        load("argoverse", tmp_path)


def change(line: int, old: str, new: str) -> Callable[[list[str]], list[str]]:
    def changed(lines: list[str]) -> list[str]:
        assert old in lines[line - 1]
        return [*lines[: line - 1], lines[line - 1].replace(old, new, 1), *lines[line:]]

    return changed


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda _: [""], "TIMESTAMP is there 0 times"),
        (change(1, "CITY_NAME", "CITY"), "CITY_NAME is there 0 times"),
        (change(1, "OBJECT_TYPE", "X"), "OBJECT_TYPE is there 0 times"),
        (change(1, "CITY_NAME", "CITY_NAME,X"), "X is there 2 times"),
        (lambda lines: lines[:-3], "50 rows of type AGENT, 5 s at 10 Hz, but has 49"),
        (lambda lines: [*lines, lines[-2]], "but has 51"),
        (change(3, "AGENT", "OTHERS"), "but has 49"),
        (change(3, ",1000,", ",abc,"), "line 3: X should be a finite number.* 'abc'"),
        (change(3, ",1000,", ",,"), "line 3: X should be .* ''"),
        (change(3, ",1000,", ",1_000,"), "line 3: X should be .* '1_000'"),
        (change(6, ",2000.25", ",nan"), "line 6: Y should be .* 'nan'"),
        (change(6, ",2000.25", ",-1e300"), "line 6: Y should be "),
        (change(6, "315967377", "inf"), "line 6: TIMESTAMP should be "),
        (change(3, ",PIT", ""), "line 3: 6 fields are expected, it has 5"),
        (change(3, "12345", "54321"), "one TRACK_ID of type AGENT, but has 2"),
        (change(3, "PIT", "MIA"), "one CITY_NAME, MIA or PIT, but has 'MIA', 'PIT'"),
        (lambda _: rows(city="BOS"), "one CITY_NAME, MIA or PIT, but has 'BOS'"),
        (change(6, "315967377", "315967376"), "ascending TIMESTAMPs 0.1 s apart, but"),
    ],
)
def test_broken_sequences_are_refused_in_one_sentence(
    tmp_path: Path, damage: Callable[[list[str]], list[str]], sentence: str
) -> None:
    path = write(tmp_path / "17.csv", damage(rows()))
    with pytest.raises(DataSetBroken, match=sentence) as caught:
        read_sequence(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataSetBroken, match="not UTF-8"):
        read_sequence(path)
    with pytest.raises(DataSetBroken, match="cannot be read"):
        read_sequence(tmp_path)
    monkeypatch.setattr("fadelab_agent.tasks.argoverse._MAX_FILE_BYTES", 2)
    with pytest.raises(DataSetBroken, match="larger than the 2 bytes"):
        read_sequence(path)


@settings(deadline=None, max_examples=60)
@given(content=st.binary(max_size=200))
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(HEADER.encode() + b"\n" + content)
    with pytest.raises(DataSetBroken):
        read_sequence(path)


@settings(deadline=None, max_examples=50)
@given(
    angle=st.floats(-np.pi, np.pi),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    speed=st.floats(1.5, 30),
    seed=st.integers(0, 1000),
)
def test_frames_do_not_depend_on_place_and_direction(
    angle: float, shift: tuple[float, float], speed: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    steps = np.stack([np.full(49, speed / 10), rng.normal(0, 0.02, 49)], axis=1)
    track = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    elsewhere = track @ turn + np.array(shift)
    here, there = vehicle_frame(np.stack([track, elsewhere]))
    np.testing.assert_allclose(here, there, atol=1e-3)
    assert here[19].tolist() == [0.0, 0.0]
    # The stretch to the origin that gives the direction lies on the negative x axis.
    far = np.flatnonzero(np.linalg.norm(here[:20], axis=1) >= 2 - 1e-4)[-1]
    assert here[far, 0] < 0
    assert abs(here[far, 1]) < 1e-3


def test_a_vehicle_that_stands_keeps_its_axes() -> None:
    track = np.full((1, 50, 2), 7.0)
    track[0, 30:, 1] += 5.0
    framed = vehicle_frame(track)
    assert np.isfinite(framed).all()
    assert framed[0, 40].tolist() == [0.0, 5.0]


def by_hand() -> TrackData:
    """Return two tracks along x at 1 m per interval; the second turns into y when predicted."""
    straight = np.stack([np.arange(50.0), np.zeros(50)], axis=1)
    bent = straight.copy()
    bent[20:] = [[19.0, y] for y in range(1, 31)]
    tracks = np.stack([straight, bent])
    return track_data("argoverse", tracks, tracks, np.array([0, 1]), ("MIA", "PIT"))


def test_displacement_by_hand() -> None:
    data = by_hand()
    coasting = coast(data.test_x)
    np.testing.assert_allclose(coasting[:, :, 0], np.tile(np.arange(1, 31), (2, 1)), atol=1e-5)
    errors = data.quality(coasting.flatten(1), data.test_y)
    # After i intervals the second is at (0, i), predicted at (i, 0): off by i times root 2.
    np.testing.assert_allclose(errors, [0.0, 15.5 * np.sqrt(2)], rtol=1e-5)
    assert data.baseline() == ("constant velocity", pytest.approx(7.75 * np.sqrt(2), rel=1e-5))


def test_loss_by_hand() -> None:
    data = by_hand()
    answers = data.test_y[:1]
    # Half the square below 1 m, the distance less a half beyond.
    assert float(data.loss(answers.flatten(1) + 0.5, answers)) == pytest.approx(0.125)
    assert float(data.loss(answers.flatten(1) + 3.0, answers)) == pytest.approx(2.5)
    assert data.loss(answers.flatten(1), answers) == 0


def test_an_empty_set_is_refused() -> None:
    none = np.empty((0, 50, 2))
    with pytest.raises(DataSetBroken, match="no training tracks"):
        track_data("argoverse", none, none, np.empty(0, dtype=np.int64), ("MIA", "PIT"))


@pytest.fixture(scope="module", name="data")
def synthetic() -> TrackData:
    return load_synthetic_tracks(Path("nowhere"))


def test_synthetic_tracks_need_no_files(data: TrackData) -> None:
    again = load("synthetic_tracks", Path("nowhere"))
    assert torch.equal(data.train_x, again.train_x)
    assert torch.equal(data.test_y, again.test_y)
    assert data.train_x.shape == (4800, 20, 2)
    assert data.test_y.shape == (1200, 30, 2)
    assert not TaskConfig(name="synthetic_tracks", model=TrackMlpModel()).needs_files
    assert torch.bincount(data.groups).tolist() == [800] * 6


def test_limits_keep_a_track_and_its_manoeuvre_together(data: TrackData) -> None:
    some = data.limited(SampleLimits(train=100, test=10))
    assert (len(some.train_x), len(some.train_y), len(some.test_x)) == (100, 100, 10)
    for index in range(100):
        found = torch.nonzero((data.train_x == some.train_x[index]).all(dim=(1, 2)).int())
        assert data.groups[found[0, 0]] == some.groups[index]
    assert len(data.limited(SampleLimits(train=10**6)).train_x) == 4800


def test_partitions_divide_by_manoeuvre(data: TrackData) -> None:
    groups = data.groups.numpy()
    two = partition(LabelsPerDevicePartition(labels=2), groups, 8, data.group_count, seed=1)
    assert all(len(np.unique(groups[part])) == 2 for part in two)
    assert sum(map(len, two)) == 4800
    dealt = partition(IidPartition(), groups, 8, data.group_count, seed=1)
    assert {len(part) for part in dealt} == {600}
    skewed = partition(DirichletPartition(beta=0.05), groups, 8, data.group_count, seed=1)
    assert max(np.bincount(groups[part]).max() / len(part) for part in skewed) > 0.5


@pytest.mark.parametrize(
    ("config", "parameters"), [(TrackMlpModel(), 29_756), (TrackLstmModel(), 21_308)]
)
def test_track_models(
    data: TrackData, config: TrackMlpModel | TrackLstmModel, parameters: int
) -> None:
    flat = FlatModel(build_model(config, data, seed=0))
    assert flat.dimension == parameters
    assert flat(data.inputs(data.test_x[:3])).shape == (3, 60)
    # Without parameters a model corrects nothing: it predicts constant velocity.
    flat.vector[:] = 0.0
    torch.testing.assert_close(flat(data.test_x[:3]), coast(data.test_x[:3]).flatten(1))
    small = model_for(config.model_copy(update={"hidden": 4}), (20, 2), 60)
    assert sum(p.numel() for p in small.parameters()) < parameters


@pytest.mark.parametrize(
    ("config", "learning_rate", "steps"),
    [(TrackMlpModel(hidden=32), 0.1, 150), (TrackLstmModel(hidden=32), 0.3, 400)],
)
def test_training_beats_constant_velocity(
    data: TrackData,
    config: TrackMlpModel | TrackLstmModel,
    learning_rate: float,
    steps: int,
) -> None:
    model = FlatModel(build_model(config, data, seed=0))
    before = evaluate(model, data)
    training = TrainingConfig(local_steps=steps, batch_size=32, learning_rate=learning_rate)
    train_locally(model, data, np.arange(4800), training, seed=0, device=0, update=0)
    after = evaluate(model, data)
    assert after.loss < before.loss
    assert after.metric < 0.9 * data.baseline().metric
    outputs = model(data.inputs(data.test_x))
    by_definition = (outputs.detach().view(-1, 30, 2) - data.test_y).pow(2).sum(dim=2).sqrt().mean()
    assert after.metric == pytest.approx(float(by_definition), rel=1e-5)


@pytest.mark.parametrize("name", ["synthetic_tracks", "argoverse"])
def test_models_for_pictures_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} consists of tracks.*kind mlp.*track_mlp"):
        TaskConfig.model_validate({"name": name})
    with pytest.raises(
        ValueError, match=r"digits consists of pictures.*kind track_lstm.*cnn_6conv"
    ):
        TaskConfig.model_validate({"model": {"kind": "track_lstm"}})


def test_a_task_measures_what_its_configuration_says(data: TrackData, tmp_path: Path) -> None:
    loaded: list[tuple[TaskData, TaskConfig]] = [
        (data, TaskConfig(name="synthetic_tracks", model=TrackMlpModel())),
        (load_task(TaskConfig()), TaskConfig()),
    ]
    for task, config in loaded:
        assert task.metric is config.metric
    lower, higher = (config.metric for _, config in loaded)
    assert (lower.best([2.0, 1.0, 3.0]), higher.best([0.1, 0.3, 0.2])) == (1.0, 0.3)
    assert lower == Metric("ADE", "m", higher_is_better=False)
