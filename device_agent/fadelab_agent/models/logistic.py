"""Multinomial logistic regression, the model of DMA-FL for MNIST and Fashion-MNIST."""

import math

from torch import nn


def logistic(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return one linear layer: ``(pixels + 1) * classes`` parameters, 7 850 on 1x28x28."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
