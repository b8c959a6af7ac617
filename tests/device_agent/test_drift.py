"""Local samples that change in time: what is held when, and the drift that is measured of it."""

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fadelab_agent.config import LogisticModel, TaskConfig, TrainingConfig
from fadelab_agent.drift import DriftTime, LocalSet, Part, local_set, rotated
from fadelab_agent.drift_config import GrowingDrift, LabelShiftDrift, NoDrift, RotationDrift
from fadelab_agent.models import build_model
from fadelab_agent.tasks import DataSetError, TaskData, load_task
from fadelab_agent.training import FlatModel, train_locally
from fadelab_agent.training.probes import drift_report, local_loss, period_report
from fadelab_proto.period_report import DriftReport

torch.set_num_threads(1)


@pytest.fixture(scope="module", name="data")
def digits() -> TaskData:
    return load_task(TaskConfig())


def part(data: TaskData, *, device: int = 0, seed: int = 1) -> Part:
    """Two classes, 60 samples of each."""
    groups = data.groups.numpy()
    own = np.concatenate([np.flatnonzero(groups == group)[:60] for group in (3, 8)])
    return Part.of(own, groups, seed=seed, task=0, device=device)


def at(periods: int) -> DriftTime:
    return DriftTime().after(float(periods), active=False)


GROWING = GrowingDrift(period_s=1.0, samples_per_period=7, initial_share=0.25)
SHIFT = LabelShiftDrift(period_s=1.0, share=0.5, periods=4)


def test_waiting_and_computing_pass_drift_time_at_their_own_paces() -> None:
    config = GROWING.model_copy(update={"period_s": 2.0, "idle_pace": 1.0, "active_pace": 0.25})
    time = DriftTime().after(3.0, active=False).after(4.0, active=True)
    assert time == DriftTime(3.0, 4.0)
    assert time.periods(config) == 2
    still = config.model_copy(update={"active_pace": 0.0})
    assert DriftTime().after(1e6, active=True).periods(still) == 0
    tenths = DriftTime()
    for _ in range(20):
        tenths = tenths.after(0.1, active=False)
    assert tenths.periods(config) == 1
    with pytest.raises(ValueError, match="back"):
        time.after(-1.0, active=True)


def test_samples_are_added_until_all_are_there(data: TaskData) -> None:
    own = part(data)
    sets = [local_set(GROWING, own, at(n)).indices for n in range(16)]
    assert [len(one) for one in sets] == [min(120, 30 + 7 * n) for n in range(16)]
    for before, after in itertools.pairwise(sets):
        assert set(before) <= set(after)
    assert np.array_equal(sets[-1], own.indices)


def test_by_class_one_class_comes_after_the_other(data: TaskData) -> None:
    config = GROWING.model_copy(update={"order": "by_class", "initial_share": 0.5})
    own = part(data)
    labels = data.groups.numpy()
    assert len(set(labels[local_set(config, own, at(0)).indices])) == 1
    added = set(local_set(config, own, at(2)).indices) - set(local_set(config, own, at(0)).indices)
    assert set(labels[sorted(added)]) == {int(own.group_order[1])}
    mixed = local_set(GROWING, own, at(0)).indices
    assert len(set(labels[mixed])) == 2


def test_the_mix_of_classes_moves_and_the_size_stays(data: TaskData) -> None:
    own, labels = part(data), data.groups.numpy()
    first = int(own.group_order[0])
    sets = [local_set(SHIFT, own, at(n)).indices for n in range(7)]
    assert {len(one) for one in sets} == {60}
    shares = [float((labels[one] == first).mean()) for one in sets]
    assert shares == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0], abs=0.02)
    assert len(set(sets[0]) & set(sets[1])) == 45


def test_scarce_classes_are_made_up_for(data: TaskData) -> None:
    groups = data.groups.numpy()
    own = np.concatenate([np.flatnonzero(groups == g)[:n] for g, n in ((1, 50), (2, 6), (5, 4))])
    few = Part.of(own, groups, seed=2, task=0, device=0)
    for n in range(6):
        held = local_set(SHIFT.model_copy(update={"share": 0.9}), few, at(n)).indices
        assert len(held) == len(set(held)) == 54
        assert set(held) <= set(own)


def test_devices_and_seeds_drift_apart_and_repeat(data: TaskData) -> None:
    def held(**keys: int) -> list[int]:
        return local_set(GROWING, part(data, **keys), at(2)).indices.tolist()

    assert held() == held()
    assert held() != held(device=1)
    assert held() != held(seed=2)


def test_no_drift_holds_the_part(data: TaskData) -> None:
    own = part(data)
    assert local_set(NoDrift(), own, at(99)).same_as(LocalSet(own.indices))


def test_pictures_turn_counter_clockwise(data: TaskData) -> None:
    config = RotationDrift(period_s=1.0, degrees_per_period=30.0, most_degrees=90.0)
    held = [local_set(config, part(data), at(n)).rotation_deg for n in range(5)]
    assert held == [0.0, 30.0, 60.0, 90.0, 90.0]
    x = data.train_x[:3]
    turned = rotated(data, 90.0).inputs(x)
    assert torch.allclose(turned, torch.rot90(data.inputs(x), 1, (2, 3)), atol=1e-5)
    assert rotated(data, 0.0) is data
    half = rotated(data, 45.0)
    assert half.train_x.data_ptr() == data.train_x.data_ptr()
    assert half.inputs(x).shape == x.shape
    assert not torch.allclose(half.inputs(x), data.inputs(x), atol=0.1)


def test_tracks_cannot_turn() -> None:
    tracks = load_task(
        TaskConfig.model_validate({"name": "synthetic_tracks", "model": {"kind": "track_mlp"}})
    )
    with pytest.raises(DataSetError, match="synthetic_tracks has no pictures"):
        rotated(tracks, 10.0)


def test_impossible_settings_are_refused() -> None:
    for values in ({"initial_share": 0.0}, {"samples_per_period": 0}, {"period_s": 0.0}, {"x": 1}):
        with pytest.raises(ValidationError):
            GrowingDrift.model_validate({"period_s": 1.0, "samples_per_period": 1} | values)


@pytest.fixture(scope="module", name="trained")
def trained_model(data: TaskData) -> FlatModel:
    model = FlatModel(build_model(LogisticModel(), data, 0))
    config = TrainingConfig(local_steps=60, batch_size=30, learning_rate=0.5)
    held = local_set(SHIFT, part(data), at(0)).indices
    train_locally(model, data, held, config, seed=0, device=0, update=0)
    return model


def test_drift_is_what_the_loss_of_one_model_changes_by(data: TaskData, trained: FlatModel) -> None:
    own = part(data)
    losses = [local_loss(trained, data, local_set(SHIFT, own, at(n))) for n in range(5)]
    assert losses == sorted(losses)
    # Over several seconds the sum of drifts is the change over all of them: (13).
    assert sum(np.diff(losses)) == pytest.approx(losses[-1] - losses[0])
    assert losses[-1] > losses[0] + 1
    held = local_set(SHIFT, own, at(3))
    outputs = trained(data.inputs(data.train_x[held.indices]))
    by_hand = float(data.loss(outputs, data.train_y[held.indices]).detach())
    assert losses[3] == pytest.approx(by_hand, rel=1e-5)
    first, last = (local_set(SHIFT, own, at(n)) for n in (0, 3))
    report = drift_report(trained, data, first, last, elapsed_s=3.0, active=False)
    assert report == DriftReport(losses[0], losses[3], 3.0, active=False)
    still = drift_report(trained, data, first, first, elapsed_s=3.0, active=True)
    assert still.loss_after == still.loss_before
    turned = LocalSet(held.indices, 60.0)
    assert local_loss(trained, data, turned) != pytest.approx(losses[3], rel=1e-3)


def test_reports_against_the_whole_local_set(data: TaskData, trained: FlatModel) -> None:
    held = LocalSet(part(data).indices[:40])
    begun = trained.vector.copy()
    ended = begun + np.float32(0.01) * np.random.default_rng(0).normal(size=len(begun)).astype(
        np.float32
    )
    report = period_report(
        trained, data, held, begun=begun, ended=ended, proximal=2.0, samples=40,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert np.array_equal(trained.vector, begun)
    x = data.inputs(data.train_x[held.indices]).reshape(40, -1).numpy().astype(np.float64)
    spread = ((x - x.mean(axis=0)) ** 2).sum() / 39
    assert report.data_variance == pytest.approx(spread, rel=1e-5)
    # Of logistic regression gradients are known: (p - y) x and (p - y).
    gradients = {}
    for name, vector in (("begun", begun), ("ended", ended)):
        weight, bias = vector[:640].reshape(10, 64).astype(np.float64), vector[640:]
        scores = x @ weight.T + bias
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = odds / odds.sum(axis=1, keepdims=True)
        error[np.arange(40), data.train_y[held.indices].numpy()] -= 1
        of_weight = (error[:, :, None] * x[:, None, :]).reshape(40, -1)
        gradients[name] = np.concatenate([of_weight, error], axis=1)
    squares = [(g**2).sum(axis=1).max() for g in gradients.values()]
    assert report.gradient_sq == pytest.approx(max(squares), rel=1e-3)
    mean = {name: g.mean(axis=0) for name, g in gradients.items()}
    moved = ended.astype(np.float64) - begun
    bend = np.linalg.norm(mean["ended"] - mean["begun"]) / np.linalg.norm(moved)
    assert report.smoothness == pytest.approx(bend, rel=1e-2)
    regularised = max((mean["begun"] ** 2).sum(), ((mean["ended"] + 2.0 * moved) ** 2).sum())
    assert report.regularised_gradient_sq == pytest.approx(regularised, rel=1e-3)
    pairs = [
        np.linalg.norm(gradients["ended"][a] - gradients["ended"][b]) / np.linalg.norm(x[a] - x[b])
        for a, b in itertools.combinations(range(40), 2)
    ]
    assert report.variability == pytest.approx(max(pairs), rel=1e-3)
