"""The workbench: what all devices of a task share, the same in every process."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from fadelab_agent.workbench import Workbench
from fadelab_agent.workbench_config import WorkbenchConfig

_SETTINGS = {
    "task": {"name": "digits", "model": {"kind": "mlp", "hidden": 16}},
    "partition": {"kind": "labels_per_device", "labels": 3},
    "training": {"local_steps": 3, "batch_size": 16, "learning_rate": 0.1},
    "devices": 4,
    "seed": 11,
}
_PROGRAM = """
import sys
from tests.device_agent.test_agent_workbench import fingerprint
sys.stdout.write(fingerprint(11))
"""


def bench(**changes: object) -> Workbench:
    return Workbench(WorkbenchConfig.model_validate(_SETTINGS | changes))


def fingerprint(seed: int) -> str:
    """Return a digest of the partition, the initial model and one device's update."""
    made = bench(seed=seed)
    device = made.device(2)
    parts = [made.initial, *made.parts, device.train(made.initial, 5).delta]
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    ).hexdigest()


def test_two_processes_with_the_same_seed_agree_to_the_last_bit() -> None:
    other = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    assert other.stdout == fingerprint(11)
    assert other.stdout != fingerprint(12)


def test_devices_have_their_own_samples() -> None:
    made = bench()
    assert [made.device(number).samples for number in range(4)] == [len(p) for p in made.parts]
    everything = np.concatenate(made.parts)
    assert len(np.unique(everything)) == len(everything)


def test_an_update_depends_on_device_number_and_base_alone() -> None:
    made = bench()
    device, other = made.device(0), made.device(1)
    first = device.train(made.initial, 1).delta
    assert first.shape == (made.model.dimension,)
    assert not np.array_equal(device.train(made.initial, 2).delta, first)
    assert not np.array_equal(other.train(made.initial, 1).delta, first)
    assert not np.array_equal(device.train(made.initial + first, 1).delta, first)
    np.testing.assert_array_equal(device.train(made.initial, 1).delta, first)


def test_what_was_trained_is_told() -> None:
    trained = bench().device(0).train(bench().initial, 1)
    assert (trained.steps, trained.batch_size) == (3, 16)
    # Ten classes, a model that knows nothing yet.
    assert trained.loss == pytest.approx(np.log(10), rel=0.3)


def test_warming_up_leaves_the_model_as_it_was() -> None:
    warm, cold = bench(), bench()
    warm.warm_up()
    np.testing.assert_array_equal(warm.model.vector, cold.model.vector)
    np.testing.assert_array_equal(warm.initial, cold.initial)
    np.testing.assert_array_equal(
        warm.device(1).train(warm.initial, 1).delta, cold.device(1).train(cold.initial, 1).delta
    )


def test_a_validator_evaluates_what_it_is_given() -> None:
    made = bench()
    validator = made.validator()
    loss, accuracy = validator.evaluate(made.initial)
    assert loss == pytest.approx(np.log(10), rel=0.3)
    model = made.initial
    for update in range(60):
        model = model + made.device(update % 4).train(model, update).delta / 2
    better_loss, better_accuracy = validator.evaluate(model)
    assert better_loss < loss
    assert better_accuracy > accuracy
    assert validator.evaluate(made.initial) == (loss, accuracy)


@pytest.mark.parametrize(
    "model", [{"kind": "mlp", "hidden": 17}, {"kind": "logistic"}, {"kind": "cnn_462k"}]
)
def test_another_layout_has_another_hash(model: dict[str, object]) -> None:
    made = bench()
    assert bench(task={"name": "digits", "model": model}).layout_hash != made.layout_hash
    assert bench(seed=99).layout_hash == made.layout_hash
    assert 0 <= made.layout_hash < 2**64
