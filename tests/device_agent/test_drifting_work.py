"""Local periods on samples that change: what is trained, measured and held."""

import numpy as np
import pytest

from fadelab_agent.config import (
    IidPartition,
    LogisticModel,
    TaskConfig,
    TrackMlpModel,
    TrainingConfig,
)
from fadelab_agent.drift_config import DriftConfig, GrowingDrift, NoDrift, RotationDrift
from fadelab_agent.period_work import PeriodWork, Stretches
from fadelab_agent.tasks import DataSetError
from fadelab_agent.workbench import DeviceWork, Workbench
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto.local_period import LocalPlan

PLAN = LocalPlan(cpu_hz=1e5, batch_size=8, steps=5, idle_s=0.0)
GROWING = GrowingDrift(period_s=1.0, initial_share=0.2, samples_per_period=3)


def work(drift: DriftConfig, **changes: object) -> DeviceWork:
    settings: dict[str, object] = {
        "name": "own",
        "number": 1,
        "task": TaskConfig(name="digits", model=LogisticModel(), train_samples=200),
        "partition": IidPartition(),
        "training": TrainingConfig(local_steps=2, batch_size=4, learning_rate=0.1, proximal=0.1),
        "drift": drift,
        "devices": 2,
        "seed": 3,
    }
    return Workbench(WorkbenchConfig.model_validate(settings | changes)).device(0)


def times(idle_s: float = 2.0, compute_s: float = 1.0) -> Stretches:
    return Stretches(0.0, 0.0, idle_s=idle_s, compute_s=compute_s)


def test_a_period_is_trained_as_planned_and_again_the_same() -> None:
    own = work(NoDrift())
    assert isinstance(own, PeriodWork)
    assert own.name == "own"
    base = own._bench.initial
    first = own.train_period(base, PLAN, times(), update_number=1, probe_samples=4)
    again = own.train_period(base, PLAN, times(), update_number=1, probe_samples=4)
    assert (first.trained.steps, first.trained.batch_size, first.samples) == (5, 8, 100)
    assert np.array_equal(first.trained.delta, again.trained.delta)
    assert first.report == again.report
    assert first.drift == again.drift
    other = own.train_period(base, PLAN, times(), update_number=2, probe_samples=4)
    assert not np.array_equal(first.trained.delta, other.trained.delta)


def test_without_drift_losses_stay_and_training_lowers_them() -> None:
    own = work(NoDrift())
    found = own.train_period(own._bench.initial, PLAN, times(), update_number=1, probe_samples=4)
    waited, computed = found.drift
    assert waited.loss_before == waited.loss_after > computed.loss_before == computed.loss_after
    assert (waited.active, waited.elapsed_s) == (False, 2.0)
    assert (computed.active, computed.elapsed_s) == (True, 1.0)


def test_samples_are_added_while_a_device_waits_and_computes() -> None:
    own = work(GROWING)
    assert own.samples == 100
    assert own.samples_after(idle_s=0.0, active_s=0.0) == 20
    assert own.samples_after(idle_s=2.0, active_s=1.0) == 29
    found = own.train_period(own._bench.initial, PLAN, times(), update_number=1, probe_samples=4)
    assert found.samples == 26
    waited, computed = found.drift
    assert waited.loss_before != waited.loss_after
    assert computed.loss_before != computed.loss_after


def test_a_batch_is_never_larger_than_what_is_held() -> None:
    plan = LocalPlan(cpu_hz=1e5, batch_size=500, steps=2, idle_s=0.0)
    own = work(GROWING)
    found = own.train_period(
        own._bench.initial, plan, times(idle_s=1e-6), update_number=1, probe_samples=4
    )
    assert found.trained.batch_size == found.samples == 20


def test_tracks_can_be_scheduled_but_not_turned() -> None:
    tracks = {"task": TaskConfig(name="synthetic_tracks", model=TrackMlpModel(), train_samples=60)}
    own = work(NoDrift(), **tracks)
    found = own.train_period(own._bench.initial, PLAN, times(), update_number=1, probe_samples=2)
    assert found.report.data_variance > 0
    turning = RotationDrift(period_s=1.0, degrees_per_period=5.0)
    with pytest.raises(DataSetError, match="no pictures"):
        work(turning, **tracks)
