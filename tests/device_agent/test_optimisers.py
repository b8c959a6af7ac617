"""The optimisers against torch's own, and what a device remembers of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fadelab_agent.config import (
    IidPartition,
    MlpModel,
    TaskConfig,
    TrainingConfig,
)
from fadelab_agent.training.optimisers import OPTIMISERS
from fadelab_agent.workbench import Workbench
from fadelab_agent.workbench_config import WorkbenchConfig

Reference = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
CASES: list[tuple[dict[str, Any], Reference]] = [
    ({"optimiser": "adadelta"}, lambda w: torch.optim.Adadelta(w, lr=0.1, rho=0.95, eps=1e-6)),
    (
        {"optimiser": "adadelta", "decay": 0.8, "epsilon": 1e-3},
        lambda w: torch.optim.Adadelta(w, lr=0.1, rho=0.8, eps=1e-3),
    ),
    ({"optimiser": "adam"}, lambda w: torch.optim.Adam(w, lr=0.1)),
    (
        {"optimiser": "adam", "momentum": 0.5, "decay": 0.9},
        lambda w: torch.optim.Adam(w, lr=0.1, betas=(0.5, 0.9)),
    ),
    ({"optimiser": "rmsprop"}, lambda w: torch.optim.RMSprop(w, lr=0.1)),
    ({"optimiser": "adagrad"}, lambda w: torch.optim.Adagrad(w, lr=0.1)),
]


def training(**changes: Any) -> TrainingConfig:
    fields: dict[str, Any] = {"local_steps": 3, "batch_size": 16, "learning_rate": 0.1}
    return TrainingConfig.model_validate(fields | changes)


@pytest.mark.parametrize(("changes", "reference"), CASES)
def test_same_steps_as_torch_takes(changes: dict[str, Any], reference: Reference) -> None:
    config = training(**changes)
    torch.manual_seed(1)
    ours = torch.randn(50)
    theirs = ours.clone().requires_grad_()
    mine, other = OPTIMISERS[config.optimiser](config), reference([theirs])
    for step in range(12):
        gradient = torch.randn(50) * (1 + step % 3)
        mine.step(ours, gradient)
        theirs.grad = gradient.clone()
        other.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", [False, True])
def test_a_device_goes_on_with_its_means_only_if_it_keeps_them(kept: bool) -> None:
    bench = Workbench(
        WorkbenchConfig(
            task=TaskConfig(model=MlpModel(hidden=8), train_samples=60),
            partition=IidPartition(),
            training=training(optimiser="adagrad", optimiser_state="keep" if kept else "reset"),
            devices=2,
            seed=4,
        )
    )
    device = bench.device(0)
    first = device.train(bench.initial, 1).delta
    again = device.train(bench.initial, 1).delta
    # The sum of squares has grown: the same gradients lead less far.
    assert (abs(again).sum() < 0.9 * abs(first).sum()) == kept
    assert ((again == first).all()) == (not kept)


def test_local_training_grows_from_update_to_update() -> None:
    config = training(local_steps=2, growth=3, longest=7)
    assert [config.steps_for(100, update) for update in (0, 1, 2, 3, 9)] == [2, 2, 5, 7, 7]
    epochs = TrainingConfig(local_epochs=1, batch_size=10, learning_rate=0.1, growth=1, longest=12)
    assert [epochs.steps_for(40, update) for update in (1, 2, 30)] == [4, 8, 48]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimiser": "adadelta", "momentum": 0.9}, "momentum has no effect"),
        ({"decay": 0.9}, "decay has no effect with the optimiser sgd"),
        ({"optimiser": "adagrad", "decay": 0.9}, "decay has no effect"),
        ({"epsilon": 1e-6}, "epsilon has no effect"),
        ({"growth": 1}, "growth and longest together"),
    ],
)
def test_settings_without_effect_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        training(**changes)
