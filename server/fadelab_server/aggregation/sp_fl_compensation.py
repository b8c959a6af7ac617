"""SP-FL's compensatory moduli, and how their errors add up over devices."""

import math

import numpy as np

from fadelab_proto.substitutes import ConstantModulus
from fadelab_server.aggregation.base import F32, Arrays
from fadelab_server.sp_fl_config import (
    CompensationConfig,
    LastGlobal,
    LastOfDevice,
    NoModulus,
    RunningMean,
)

_LEAST_KAPPA = 0.1
"""Over 1 / K: sampled cross products may come out negative, errors cannot."""
_KAPPA_MEMORY = 0.7


class Compensation:
    """What stands in for moduli that did not arrive, and learns from those that did.

    Args:
        config: which moduli these are.
        dimension: number of the model's coordinates.

    """

    def __init__(self, config: CompensationConfig, dimension: int) -> None:
        self._config = config
        self._dimension = dimension
        self._mean: F32 | None = None
        self._of_device: dict[int, F32] = {}
        self._last_step: F32 | None = None
        self._sum: F32 = np.zeros(dimension, dtype=np.float32)
        self._count: F32 = np.zeros(dimension, dtype=np.float32)

    def moduli(self, device: int) -> F32 | float | None:
        """Return what stands in for a device's moduli; a number stands for all of them.

        None if there is nothing yet, in which case signs alone do not move the model.
        """
        match self._config:
            case ConstantModulus(modulus=modulus):
                return modulus
            case RunningMean():
                return self._mean
            case LastOfDevice():
                return self._of_device.get(device)
            case LastGlobal():
                return None if self._last_step is None else np.abs(self._last_step)
            case NoModulus():
                return None

    @property
    def last_step(self) -> F32 | None:
        """How the last round moved the model; None before the first one."""
        return self._last_step

    def arrived(self, device: int, moduli: F32, known: F32) -> None:
        """Take a device's moduli, ``known`` being 1 at coordinates where they arrived, else 0."""
        if isinstance(self._config, LastOfDevice):
            before = self._of_device.get(device)
            last = np.zeros_like(moduli) if before is None else before
            self._of_device[device] = np.where(known > 0, moduli, last).astype(np.float32)
        elif isinstance(self._config, RunningMean):
            self._sum += known * moduli
            self._count += known

    def round_over(self, step: F32) -> None:
        """Learn from the round's moduli and from how it moved the model."""
        self._last_step = step
        if not (isinstance(self._config, RunningMean) and self._count.any()):
            return
        seen = self._count > 0
        mean = np.divide(self._sum, self._count, out=np.zeros_like(self._sum), where=seen)
        if self._mean is None:
            self._mean = mean
        else:
            kept = np.float32(self._config.memory)
            self._mean = np.where(seen, kept * self._mean + (1 - kept) * mean, self._mean)
        self._sum = np.zeros_like(self._sum)
        self._count = np.zeros_like(self._count)

    def pending(self) -> Arrays:
        """Return everything learned, as plain arrays."""
        found: Arrays = {"modulus_sum": self._sum.copy(), "modulus_count": self._count.copy()}
        if self._mean is not None:
            found["modulus_mean"] = self._mean
        if self._last_step is not None:
            found["last_step"] = self._last_step
        found.update({f"modulus_of.{device}": own for device, own in self._of_device.items()})
        return found

    def restore(self, pending: Arrays) -> None:
        """Continue from what :meth:`pending` returned."""
        own = {name: array.astype(np.float32) for name, array in pending.items()}
        self._sum, self._count = own["modulus_sum"], own["modulus_count"]
        self._mean, self._last_step = own.get("modulus_mean"), own.get("last_step")
        self._of_device = {
            int(name.removeprefix("modulus_of.")): array
            for name, array in own.items()
            if name.startswith("modulus_of.")
        }


class KappaEstimate:
    """How errors of compensation add up, from devices whose moduli arrived.

    With errors ``e_k`` of K devices, ``||mean e||^2 = kappa mean ||e||^2``, which is 1 if they are
    all alike and 1 / K if they are orthogonal. From n of the devices, mean square a and mean inner
    product c of two different ones follow, and ``kappa = 1 / K + (1 - 1 / K) c / a``.
    """

    def __init__(self, dimension: int) -> None:
        self.value: float | None = None
        """None until two devices' moduli arrived in one round."""
        self._sum: F32 = np.zeros(dimension, dtype=np.float32)
        self._squares = 0.0
        self._count = 0

    def add(self, error: F32) -> None:
        """Take the error that compensation would have made for one device."""
        self._sum += error
        self._squares += float(np.dot(error, error))
        self._count += 1

    def round_over(self, devices: int) -> None:
        """Bring the estimate up to date; ``devices`` is K."""
        n, squares = self._count, self._squares
        if n > 1 and squares > 0 and math.isfinite(squares):
            total = float(np.dot(self._sum, self._sum))
            alike = (total - squares) / ((n - 1) * squares)
            fresh = 1 / devices + (1 - 1 / devices) * alike
            fresh = min(1.0, max(_LEAST_KAPPA / devices, fresh))
            before = self.value
            self.value = (
                fresh
                if before is None
                else math.exp(
                    _KAPPA_MEMORY * math.log(before) + (1 - _KAPPA_MEMORY) * math.log(fresh)
                )
            )
        self._sum = np.zeros_like(self._sum)
        self._squares, self._count = 0.0, 0

    def pending(self) -> Arrays:
        """Return the estimate and what this round adds to it."""
        value = math.nan if self.value is None else self.value
        return {
            "kappa": np.array([value, self._squares, self._count]),
            "kappa_sum": self._sum.copy(),
        }

    def restore(self, pending: Arrays) -> None:
        """Continue from what :meth:`pending` returned."""
        value, squares, count = (float(number) for number in pending["kappa"])
        self.value = None if math.isnan(value) else value
        self._squares, self._count = squares, int(count)
        self._sum = pending["kappa_sum"].astype(np.float32)
