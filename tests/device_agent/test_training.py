"""Local training on a flat vector: against torch's own optimiser, by hand, and across processes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.processes import fork
from torch import nn

from fadelab_agent.config import MlpModel, TaskConfig, TrainingConfig
from fadelab_agent.models import build_model
from fadelab_agent.tasks import TaskData, load_task
from fadelab_agent.training import FlatModel, LocalResult, TrainingDiverged, evaluate, train_locally
from fadelab_proto.seeds import Stream, generator

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
INDICES = np.arange(100, 300)


@pytest.fixture(scope="module", name="data")
def digits() -> TaskData:
    return load_task(TaskConfig())


def small_model(data: TaskData, seed: int = 0) -> FlatModel:
    return FlatModel(build_model(MlpModel(hidden=16), data, seed))


def train(
    model: FlatModel, data: TaskData, config: TrainingConfig, *, device: int = 3, update: int = 0
) -> LocalResult:
    return train_locally(model, data, INDICES, config, seed=7, device=device, update=update)


def config(**changes: float) -> TrainingConfig:
    values = {"local_steps": 12, "batch_size": 32, "learning_rate": 0.1} | changes
    return TrainingConfig.model_validate(values)


def test_parameters_and_gradients_are_pieces_of_one_vector() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    expected = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    model = FlatModel(module)
    assert torch.equal(model.parameters, expected)
    assert [(x.name, x.first, x.count, x.shape) for x in model.layers] == [
        ("0.weight", 0, 6, (2, 3)),
        ("0.bias", 6, 2, (2,)),
        ("1.weight", 8, 2, (1, 2)),
        ("1.bias", 10, 1, (1,)),
    ]
    model.vector[:] = 0.0
    assert all(not p.detach().any() for p in module.parameters())
    model.load(np.arange(11, dtype=np.float32))
    assert module[1].bias.item() == 10.0
    address = model.gradient.data_ptr()
    module(torch.ones(1, 3)).sum().backward()
    assert module[0].weight.grad.data_ptr() == address
    assert model.gradient[10].item() == 1.0


def test_vectors_that_do_not_fit_are_refused() -> None:
    model = FlatModel(nn.Linear(2, 1))
    with pytest.raises(ValueError, match="3 parameters"):
        model.load(np.zeros(4, dtype=np.float32))
    with pytest.raises(ValueError, match="finite"):
        model.load(np.array([0, np.nan, 0], dtype=np.float32))
    with pytest.raises(TypeError):
        model.load(np.zeros(3))


def test_modules_that_a_vector_cannot_carry_are_refused() -> None:
    with pytest.raises(ValueError, match="buffers"):
        FlatModel(nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="float32"):
        FlatModel(nn.Linear(2, 1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.01), (0.5, 0.01)]
)
def test_same_steps_as_torch_takes(data: TaskData, momentum: float, weight_decay: float) -> None:
    chosen = config(momentum=momentum, weight_decay=weight_decay)
    model = small_model(data)
    result = train(model, data, chosen)

    module = build_model(MlpModel(hidden=16), data, 0)
    start = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    optimiser = torch.optim.SGD(
        module.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay
    )
    rng = generator(7, Stream.TRAINING, 3, 0)
    losses = []
    # 200 samples give 6 whole batches of 32 a pass; 12 steps are two passes.
    for order in (rng.permutation(200), rng.permutation(200)):
        for batch in range(6):
            rows = INDICES[order[32 * batch : 32 * batch + 32]]
            loss = nn.functional.cross_entropy(
                module(data.train_x[rows].float() / 16), data.train_y[rows]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    delta = nn.utils.parameters_to_vector(module.parameters()).detach() - start
    np.testing.assert_allclose(result.delta, delta.numpy(), atol=1e-5)
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert (result.steps, result.samples) == (12, 384)


def test_delta_leads_from_start_to_end(data: TaskData) -> None:
    model = small_model(data)
    start = model.vector.copy()
    result = train(model, data, config())
    np.testing.assert_allclose(start + result.delta, model.vector, atol=1e-6)
    assert result.delta.dtype == np.float32
    assert np.abs(result.delta).max() > 0.0


def test_the_proximal_term_by_hand(data: TaskData) -> None:
    start = small_model(data).vector
    free = train(small_model(data), data, config(local_steps=1)).delta
    tied = train(small_model(data), data, config(local_steps=1, proximal=2.0)).delta
    # In the first step w = w0, so the term has no gradient yet.
    np.testing.assert_array_equal(free, tied)
    # In the second, the gradient gains mu (w1 - w0) = mu delta1.
    free2 = train(small_model(data), data, config(local_steps=2)).delta
    tied2 = train(small_model(data), data, config(local_steps=2, proximal=2.0)).delta
    np.testing.assert_allclose(tied2, free2 - 0.1 * 2.0 * free, atol=1e-6)
    assert np.linalg.norm(tied2) < np.linalg.norm(free2)
    assert start.shape == free.shape


def test_an_update_number_always_draws_the_same_batches(data: TaskData) -> None:
    first = train(small_model(data), data, config()).delta
    assert np.array_equal(first, train(small_model(data), data, config()).delta)
    assert not np.array_equal(first, train(small_model(data), data, config(), update=1).delta)
    assert not np.array_equal(first, train(small_model(data), data, config(), device=4).delta)


def test_a_device_with_one_sample_can_train(data: TaskData) -> None:
    result = train_locally(
        small_model(data), data, np.array([5]), config(), seed=0, device=0, update=0
    )
    assert result.samples == 12


def test_epochs_pass_over_the_samples(data: TaskData) -> None:
    epochs = TrainingConfig(local_epochs=2, batch_size=50, learning_rate=0.1)
    result = train(small_model(data), data, epochs)
    assert (result.steps, result.samples) == (8, 400)


def test_divergence_is_named(data: TaskData) -> None:
    with pytest.raises(TrainingDiverged, match=r"lower training\.learning_rate"):
        train(small_model(data), data, config(learning_rate=1e30))


def test_training_teaches(data: TaskData) -> None:
    model = small_model(data)
    before = evaluate(model, data)
    for update in range(5):
        train_locally(
            model,
            data,
            np.arange(1437),
            config(local_steps=60, learning_rate=0.3),
            seed=0,
            device=0,
            update=update,
        )
    loss, accuracy = evaluate(model, data)
    assert before.metric < 0.4
    assert accuracy > 0.9
    assert loss < before.loss


def test_evaluation_by_hand(data: TaskData) -> None:
    model = small_model(data)
    scores = model(data.inputs(data.test_x))
    loss, accuracy = evaluate(model, data)
    right = (scores.argmax(dim=1) == data.test_y).float().mean().item()
    assert accuracy == pytest.approx(right)
    assert loss == pytest.approx(nn.functional.cross_entropy(scores, data.test_y).item(), rel=1e-5)


def fingerprint() -> str:
    """Return a digest of three updates; also run by another process."""
    torch.set_num_threads(1)
    data = load_task(TaskConfig())
    model = small_model(data)
    digest = hashlib.sha256()
    for update in range(3):
        result = train(model, data, config(momentum=0.5, proximal=0.1), update=update)
        digest.update(result.delta.tobytes())
    return digest.hexdigest()


def test_two_processes_compute_the_same_bits() -> None:
    code = "from tests.device_agent.test_training import fingerprint; print(fingerprint())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            timeout=120,
        ).stdout.strip()
        for _ in range(2)
    }
    assert outputs == {fingerprint()}


def test_a_forked_child_trains_after_its_parent_did(data: TaskData) -> None:
    model = small_model(data)
    train(model, data, config(local_steps=1))
    start = model.vector.copy()
    reader, writer = os.pipe()

    def train_there() -> None:
        delta = train(model, data, config(), update=1).delta
        os.write(writer, hashlib.sha256(delta.tobytes()).digest())

    child = fork(train_there)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        from_child = pipe.read()
    os.waitpid(child, 0)
    model.load(start)
    here = train(model, data, config(), update=1).delta
    assert from_child == hashlib.sha256(here.tobytes()).digest()
