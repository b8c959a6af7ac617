"""Tables I and II and section VI-A of DMA-FL (arXiv 2305.13503).

The paper does not give the noise density, the range of the clock, the size of local sets, the
learning rate, T_QoE, E_B and G. Its 4096 bits per entry would make one upload of the SVHN model 1.9
Gbit; float32 has 32, which is the default here.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.config import (
    ClassesPerDevicePartition,
    Cnn466kModel,
    DirichletPartition,
    LabelsPerDevicePartition,
    LogisticModel,
    PartitionConfig,
    TaskConfig,
)
from fadelab_proto.local_period import shannon_rate_bps
from fadelab_server.scheduler.objective import CostWeights, TaskWeights

F64 = NDArray[np.float64]

PARTITIONS: dict[str, PartitionConfig] = {
    "two_labels": LabelsPerDevicePartition(labels=2, equal_sizes=True),
    "dirichlet": DirichletPartition(beta=0.5, equal_sizes=True),
    "varied": ClassesPerDevicePartition(counts="varied", equal_sizes=True),
}
"""The three ways to divide the data; in each, all local sets have the same size."""


@dataclass(frozen=True, slots=True)
class DmaFlSettings:
    """Table II, and what section VI-A says besides."""

    bits_per_entry: int = 32
    """sigma; 4096 in the table."""
    devices: int = 10
    radius_m: float = 25.0
    """Of the disc that devices are in, around the base station."""
    gain_at_1_m_db: float = -30.0
    path_loss_exponent: float = 3.0
    gradient_sq: float = 2.0
    """V1."""
    regularised_gradient_sq: float = 5.0
    """V2."""
    proximal: float = 1.0
    """rho."""
    send_w: float = 0.25
    receive_w: float = 0.1
    bandwidth_up_hz: float = 1e6
    bandwidth_down_hz: float = 1e5
    noise_w_hz: float = 4e-21
    """Thermal noise at 290 K; the paper gives none."""
    staleness_cap: int = 5
    """K."""
    weights: CostWeights = field(default_factory=lambda: CostWeights(1e-9, 1.0, 1.0))
    """c1, c2 and c3."""
    task_weights: TaskWeights = field(default_factory=TaskWeights)
    """gamma and chi of every task."""
    capacitance_j_s2: tuple[float, float] = (2e-22, 2e-19)
    """xi is drawn uniformly from this interval for each device."""
    cycles_per_sample: tuple[float, float] = (5e2, 5e3)
    """a is drawn uniformly from this interval for each device and task."""

    def mean_gain(self, distance_m: F64) -> F64:
        """Return the mean power gain at some distances, without fading; at 1 m for nearer ones."""
        decades = np.log10(np.maximum(distance_m, 1.0))
        gain: F64 = 10 ** (self.gain_at_1_m_db / 10 - self.path_loss_exponent * decades)
        return gain

    def mean_rates_bps(self, distance_m: F64) -> tuple[F64, F64]:
        """Return the rates up and down (22) (24) at mean gain."""
        gain = self.mean_gain(distance_m)
        up = shannon_rate_bps(
            bandwidth_hz=self.bandwidth_up_hz,
            power_w=self.send_w,
            gain=gain,
            noise_w_hz=self.noise_w_hz,
        )
        down = shannon_rate_bps(
            bandwidth_hz=self.bandwidth_down_hz,
            power_w=self.receive_w,
            gain=gain,
            noise_w_hz=self.noise_w_hz,
        )
        return np.asarray(up), np.asarray(down)


TABLE_II = DmaFlSettings()
TABLE_II_LITERAL = DmaFlSettings(bits_per_entry=4096)


@dataclass(frozen=True, slots=True, eq=False)
class Processors:
    """Drawn processors."""

    capacitance_j_s2: F64
    """xi, shape ``(devices,)``."""
    cycles_per_sample: F64
    """a, shape ``(devices, tasks)``."""


def draw_processors(settings: DmaFlSettings, rng: np.random.Generator, *, tasks: int) -> Processors:
    """Draw xi and a as Table II says."""
    return Processors(
        rng.uniform(*settings.capacitance_j_s2, settings.devices),
        rng.uniform(*settings.cycles_per_sample, (settings.devices, tasks)),
    )


def table_i(data_dir: Path) -> tuple[TaskConfig, TaskConfig, TaskConfig]:
    """Return the three tasks: SVHN with its CNN, MNIST and Fashion-MNIST with logistic regression."""
    return (
        TaskConfig(name="svhn", model=Cnn466kModel(), data_dir=data_dir),
        TaskConfig(name="mnist", model=LogisticModel(), data_dir=data_dir),
        TaskConfig(name="fashion_mnist", model=LogisticModel(), data_dir=data_dir),
    )
