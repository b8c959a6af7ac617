"""A model whose parameters are pieces of one vector.

Codecs, aggregation and optimisers all see a model as one float32 vector; here the modules see the
same memory, so nothing is gathered or scattered when an update starts or ends.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """One parameter tensor's place in the flat vector: entries ``first .. first + count``."""

    name: str
    first: int
    count: int
    shape: tuple[int, ...]


class FlatModel:
    """A module with all parameters in one float32 vector and all gradients in another.

    Takes the module over: its parameters and their gradients become views. The module must have
    float32 parameters, none of them shared between layers, and no buffers (such as batch
    normalisation's running averages), since these would not travel with the vector.

    Attributes:
        parameters: the vector, float32 of shape ``(dimension,)``.
        gradient: its gradient, same shape; ``backward`` adds to it.
        layers: where each parameter tensor lies.

    """

    def __init__(self, module: nn.Module) -> None:
        named = list(module.named_parameters())
        if any(parameter.dtype != torch.float32 for _, parameter in named):
            raise ValueError("every parameter of a flat model must be float32")
        if any(True for _ in module.buffers()):
            raise ValueError("a flat model cannot have buffers: they would not reach the server")
        self._module = module
        layers, first = [], 0
        for name, parameter in named:
            layers.append(Layer(name, first, parameter.numel(), tuple(parameter.shape)))
            first += parameter.numel()
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.parameters = torch.empty(first)
        self.gradient = torch.zeros(first)
        for (_, parameter), layer in zip(named, self.layers, strict=True):
            piece = slice(layer.first, layer.first + layer.count)
            self.parameters[piece] = parameter.detach().reshape(-1)
            parameter.data = self.parameters[piece].view(layer.shape)
            parameter.grad = self.gradient[piece].view(layer.shape)

    @property
    def dimension(self) -> int:
        """Return the number of parameters."""
        return self.parameters.numel()

    @property
    def vector(self) -> F32:
        """Return the parameters as a numpy array that shares their memory."""
        return self.parameters.numpy()

    def load(self, vector: F32) -> None:
        """Overwrite all parameters.

        Raises:
            ValueError: if the shape is not ``(dimension,)`` or an entry is not finite.

        """
        if vector.shape != (self.dimension,):
            raise ValueError(f"the model has {self.dimension} parameters, not {vector.shape}")
        if not np.isfinite(vector).all():
            raise ValueError("a model with entries that are not finite numbers is not loaded")
        np.copyto(self.vector, vector, casting="no")

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the module's output for a batch of inputs."""
        output: torch.Tensor = self._module(inputs)
        return output
