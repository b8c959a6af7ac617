"""What the codec benchmark encodes: gradients of networks after a few steps of training.

The pictures are a prototype for each class and noise; no data set is fetched. Those of the smallest network
have a border of zeros, as handwritten digits have.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fadelab_agent.models.cnn_466k import cnn_466k
from fadelab_agent.models.logistic import logistic
from fadelab_proto.codecs.base import F32

_CLASSES = 10
_PICTURES = 512
_BORDER = 4


def gradient(size: int) -> F32:
    """Return the gradient of the network with that many parameters, if there is one.

    Otherwise numbers that resemble one: heavy-tailed, in ten layers of different scales, a fifth of them 0.
    """
    if size not in _NETWORKS:
        return _synthetic(size)
    build, shape, rate, steps = _NETWORKS[size]
    torch.manual_seed(1)
    network = build(shape, _CLASSES)
    pictures, labels = _data(shape)
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    for _ in range(steps):
        batch = torch.randint(0, _PICTURES, (32,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(pictures[batch]), labels[batch]).backward()
        optimiser.step()
    parts = [
        weights.grad.reshape(-1) for weights in network.parameters() if weights.grad is not None
    ]
    vector: F32 = torch.cat(parts).numpy()
    assert len(vector) == size
    return vector


def _data(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, _CLASSES, (_PICTURES,))
    pictures = torch.randn(_CLASSES, *shape)[labels] + torch.randn(_PICTURES, *shape)
    if shape[0] == 1:
        pictures[:, :, :_BORDER] = pictures[:, :, -_BORDER:] = 0
        pictures[..., :_BORDER] = pictures[..., -_BORDER:] = 0
    return pictures, labels


class _Block(nn.Module):
    """Two convolutions and a way around them (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            around = nn.Conv2d(before, after, 1, stride, bias=False)
            self.around = nn.Sequential(around, nn.BatchNorm2d(after))

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.relu(self.main(pictures) + self.around(pictures))


def _resnet_18(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return ResNet-18 for small pictures: 11 173 962 parameters on 3x32x32 and ten classes."""
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    ]
    before = 64
    for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Block(before, after, stride), _Block(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def _synthetic(size: int) -> F32:
    draw = np.random.default_rng(1)
    vector = draw.standard_normal(size, dtype=np.float32)
    vector *= draw.standard_normal(size, dtype=np.float32)
    scales = 10 ** draw.uniform(-2, 0, 10)
    vector *= scales[np.arange(size) * 10 // size].astype(np.float32)
    vector[draw.random(size) < 0.2] = 0
    return vector


_Builder = Callable[[tuple[int, int, int], int], nn.Module]
_NETWORKS: dict[int, tuple[_Builder, tuple[int, int, int], float, int]] = {
    7_850: (logistic, (1, 28, 28), 0.001, 3),
    466_122: (cnn_466k, (3, 32, 32), 0.02, 6),
    11_173_962: (_resnet_18, (3, 32, 32), 0.02, 6),
}
