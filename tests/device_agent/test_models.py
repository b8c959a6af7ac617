"""Models: the sizes that the papers state, and weights that follow from the seed."""

import pytest
import torch

from fadelab_agent.config import (
    Cnn6ConvModel,
    Cnn462kModel,
    Cnn466kModel,
    LogisticModel,
    MlpModel,
    ModelConfig,
    TaskConfig,
)
from fadelab_agent.models import build_model, model_for
from fadelab_agent.tasks import load_task
from fadelab_agent.training import FlatModel

CIFAR = (3, 32, 32)
MNIST = (1, 28, 28)
DIGITS = (1, 8, 8)


@pytest.mark.parametrize(
    ("config", "shape", "classes", "parameters"),
    [
        (LogisticModel(), MNIST, 10, 7_850),
        (LogisticModel(), DIGITS, 10, 650),
        (MlpModel(hidden=256), DIGITS, 10, 19_210),
        (Cnn462kModel(), CIFAR, 10, 462_410),
        (Cnn462kModel(), CIFAR, 100, 468_260),
        (Cnn462kModel(), DIGITS, 10, None),
        (Cnn466kModel(), CIFAR, 10, 466_122),
        (Cnn466kModel(), MNIST, 10, None),
        (Cnn6ConvModel(), CIFAR, 10, 308_394),
        (Cnn6ConvModel(channels=8), MNIST, 10, None),
        (Cnn6ConvModel(channels=8), DIGITS, 10, None),
    ],
)
def test_sizes_and_shapes(
    config: ModelConfig, shape: tuple[int, int, int], classes: int, parameters: int | None
) -> None:
    model = model_for(config, shape, classes)
    if parameters is not None:
        assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, *shape)).shape == (2, classes)


def test_too_small_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="16x16"):
        model_for(Cnn466kModel(), DIGITS, 10)
    with pytest.raises(ValueError, match="4x4"):
        model_for(Cnn462kModel(), (1, 3, 3), 10)
    with pytest.raises(ValueError, match="8x8"):
        model_for(Cnn6ConvModel(), (3, 7, 8), 10)


def test_the_six_convolutions_have_no_state_beside_the_parameters() -> None:
    module = model_for(Cnn6ConvModel(channels=8), DIGITS, 10)
    # A flat model refuses running averages; what one picture gets does not depend on the others.
    flat = FlatModel(module)
    pictures = torch.rand(4, *DIGITS, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flat(pictures)[1:2], flat(pictures[1:2]))
    kinds = [type(layer).__name__ for layer in module.children()]
    assert kinds.count("Conv2d") == kinds.count("GroupNorm") == 6
    assert (kinds.count("MaxPool2d"), kinds.count("AvgPool2d"), kinds.count("Linear")) == (2, 1, 1)


def test_initial_weights_follow_from_the_seed_alone() -> None:
    data = load_task(TaskConfig())

    def weights(seed: int) -> torch.Tensor:
        model = build_model(MlpModel(hidden=16), data, seed)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)
