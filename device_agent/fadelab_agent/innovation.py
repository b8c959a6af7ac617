"""Send only how an update changed, and only when it changed enough.

The scheme of lazily aggregated quantised gradients: LAQ (J. Sun, T. Chen, G. B. Giannakis and
Z. Yang, Communication-efficient distributed learning via lazily aggregated quantized gradients,
NeurIPS 2019) and AQUILA (Z. Zhao et al., arXiv 2308.00258). A device quantises its *innovation*: the
difference between its update and its *reference*, which is the last update as the server knows it.
If the innovation is small, it sends nothing at all.

What the server has to do: it keeps a reference for each device, or the sum of all of them, which
starts at zero as the devices' do. What arrives from a device is added to its reference, not taken
for an update. In each round the model moves by the sum of all references, so a silent device counts
with what it sent last. A device that forgets its reference must tell the server to forget it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.error_memory import restored

F32 = NDArray[np.float32]


class InnovationMemory:
    """Takes off each update what the server knows already; a :class:`Memory`.

    With a codec that loses nothing, the reference is the last update that was sent; otherwise it is
    that up to one quantisation error, which does not grow from round to round. Whatever did not
    arrive stays in the next innovation.
    """

    def __init__(self, dimension: int) -> None:
        self._reference = np.zeros(dimension, dtype=np.float32)

    @property
    def reference(self) -> F32:
        """Return a copy of the update as the server knows it, shape ``(dimension,)``."""
        return self._reference.copy()

    def add(self, update: F32) -> F32:
        """Return the innovation: update - reference.

        Raises:
            ValueError: if the shape is wrong.

        """
        self._check(update)
        return update - self._reference

    def settle(self, sent: F32) -> None:
        """Add what arrived to the reference, as the server did.

        Raises:
            ValueError: if the shape is wrong.

        """
        self._check(sent)
        self._reference += sent

    def state(self) -> F32 | None:
        """Return the update as the server knows it, shape ``(dimension,)``."""
        return self._reference

    def restore(self, state: F32 | None) -> None:
        """Take this for the update as the server knows it."""
        self._reference = restored(state, self._reference.shape)

    def _check(self, vector: F32) -> None:
        if vector.shape != self._reference.shape:
            raise ValueError(
                f"the vector has shape {vector.shape}, the memory {self._reference.shape}"
            )


@dataclass(frozen=True, slots=True)
class InnovationRound:
    """What a device knows when it decides whether to send. All norms are squared Euclidean ones."""

    innovation: float
    """Of the quantised innovation."""
    error: float
    """Of what quantising it lost."""
    last_error: float
    """Of what quantising lost when the device sent last; 0 if it never did."""
    model_steps: tuple[float, ...]
    """Of the model's last steps ``w[k + 1 - j] - w[k - j]``, j = 1, 2, ...: the latest first."""
    silent_rounds: int
    """How many rounds ago the device sent last."""


class UploadRule(Protocol):
    """Decides whether an innovation is worth sending."""

    def uploads(self, now: InnovationRound) -> bool:
        """Return whether to send."""
        ...


@dataclass(frozen=True, slots=True)
class AlwaysUpload:
    """Send every innovation: the lazy rule is off."""

    def uploads(self, now: InnovationRound) -> bool:  # noqa: ARG002
        """Return true."""
        return True


@dataclass(frozen=True, slots=True)
class LaqRule:
    """LAQ's rule (its criterion 7): send if the innovation outweighs what the model moved by.

    Send if ``||dq||^2 >= sum_j xi_j ||w[k+1-j] - w[k-j]||^2 / (eta M)^2 + 3 (||e||^2 + ||e'||^2)``,
    with quantisation errors e now and e' at the last upload, or after C silent rounds. Defaults are
    those of the authors' code.

    Args:
        learning_rate: eta, above 0.
        devices: M, at least 1.
        weights: xi_1 to xi_D, none negative.
        longest_silence: C in rounds, at least 1.

    """

    learning_rate: float = 0.02
    devices: int = 10
    weights: tuple[float, ...] = (0.08,) * 10
    longest_silence: int = 100

    def __post_init__(self) -> None:
        _check_above_zero(learning_rate=self.learning_rate)
        if self.devices < 1 or self.longest_silence < 1:
            raise ValueError(
                f"{self.devices} devices and a silence of {self.longest_silence} rounds are "
                "impossible; at least 1 of each"
            )
        if any(not weight >= 0 for weight in self.weights):
            raise ValueError(f"weights are {self.weights}; none may be negative")

    def uploads(self, now: InnovationRound) -> bool:
        """Return whether the innovation is large enough or the silence long enough.

        Steps that the model has not made yet count as zero.
        """
        if now.silent_rounds >= self.longest_silence:
            return True
        moved = _weighted(self.weights, now.model_steps)
        allowed = moved / (self.learning_rate * self.devices) ** 2
        return now.innovation >= allowed + 3 * (now.error + now.last_error)


@dataclass(frozen=True, slots=True)
class AquilaRule:
    """AQUILA's rule: send if ``||dq||^2 + ||e||^2 > beta / eta^2 ||w[k] - w[k-1]||^2``.

    Args:
        learning_rate: eta, above 0.
        beta: above 0; 0.1 to 0.25 are common.

    """

    learning_rate: float
    beta: float

    def __post_init__(self) -> None:
        _check_above_zero(learning_rate=self.learning_rate, beta=self.beta)

    def uploads(self, now: InnovationRound) -> bool:
        """Return whether the innovation is large enough."""
        moved = _weighted((1.0,), now.model_steps)
        return now.innovation + now.error > self.beta / self.learning_rate**2 * moved


def squared_norm(vector: F32) -> float:
    """Return ``||vector||^2``, added up in double precision."""
    wide = vector.astype(np.float64)
    return float(wide @ wide)


def _weighted(weights: Sequence[float], squares: Sequence[float]) -> float:
    return sum(weight * square for weight, square in zip(weights, squares, strict=False))


def _check_above_zero(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0")
