"""A complete schedule of DMA-FL (arXiv 2305.13503): all variables of its problem P, and their costs.

Arrays are over ``(devices, aggregations)``. A local period that begins with version g has its
waiting, download and computing in column g; its upload stands in the column of the aggregation that
it makes, as in (20) to (26).
"""

from dataclasses import dataclass

import numpy as np

from fadelab_proto.local_period import (
    compute_energy_j,
    compute_time_s,
    period_s,
    transfer_energy_j,
    transfer_time_s,
)
from fadelab_server.scheduler.tensors import F64, Index, completions


@dataclass(frozen=True, slots=True, eq=False)
class TaskSchedule:
    """One task's variables of problem P, each of shape ``(devices, aggregations)``."""

    received: F64
    """R: 1 where a device receives version g."""
    uploaded: F64
    """U: 1 where a device's model makes aggregation g."""
    cpu_hz: F64
    """f."""
    batch_size: F64
    """B."""
    steps: F64
    """e."""
    idle_s: F64
    """T_ID, before the download of version g."""
    final_idle_s: F64
    """T_IDF, from the last upload to the end of the window; shape ``(devices,)``."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together; ValueError says which."""
        shape = self.received.shape
        for name in ("uploaded", "cpu_hz", "batch_size", "steps", "idle_s"):
            if getattr(self, name).shape != shape or len(shape) != 2:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}, not {shape}")
        if self.final_idle_s.shape != shape[:1]:
            raise ValueError(f"final_idle_s has the shape {self.final_idle_s.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class TaskTerms:
    """What is given about one task; arrays of shape ``(devices,)`` or ``(devices, aggregations)``."""

    cycles_per_sample: F64
    """a, shape ``(devices,)``."""
    samples: F64
    """D, local samples, shape ``(devices, aggregations)``."""
    model_bits: float
    """``sigma M``: bits of a model on the air."""
    window_s: F64
    """T_QoE, shape ``(devices,)``."""
    staleness_cap: int
    """K_j."""
    steps_min: int
    steps_max: int


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTerms:
    """What is given about the devices; arrays of shape ``(devices,)`` or ``(devices, aggregations)``."""

    capacitance_j_s2: F64
    """xi, shape ``(devices,)``."""
    cpu_min_hz: F64
    cpu_max_hz: F64
    energy_budget_j: F64
    """E_B for sending and computing, shape ``(devices,)``."""
    send_w: F64
    """p_U, shape ``(devices,)``."""
    receive_w: F64
    """p_D, which the base station spends, shape ``(devices,)``."""
    rate_up_bps: F64
    """r_U, shape ``(devices, aggregations)``."""
    rate_down_bps: F64
    """r_D, the same shape."""


@dataclass(frozen=True, slots=True, eq=False)
class PeriodCosts:
    """Times and energies of one task, shape ``(devices, aggregations)`` each."""

    download_s: F64
    compute_s: F64
    upload_s: F64
    period_s: F64
    """T_L (26)."""
    download_j: F64
    compute_j: F64
    upload_j: F64

    @property
    def device_j(self) -> F64:
        """Return what the devices spend: sending and computing."""
        return self.upload_j + self.compute_j


def costs(schedule: TaskSchedule, task: TaskTerms, devices: DeviceTerms) -> PeriodCosts:
    """Return times and energies of a task's schedule: (20) to (26)."""
    aggregations = schedule.received.shape[1]
    work = {
        "cycles_per_sample": task.cycles_per_sample[:, None],
        "steps": schedule.steps,
        "batch_size": schedule.batch_size,
        "cpu_hz": schedule.cpu_hz,
    }
    compute_s = schedule.received * compute_time_s(**work)
    compute_j = schedule.received * compute_energy_j(
        capacitance_j_s2=devices.capacitance_j_s2[:, None], **work
    )
    up_s = transfer_time_s(
        bits_per_entry=task.model_bits, entries=1.0, rate_bps=devices.rate_up_bps[:, :aggregations]
    )
    down_s = transfer_time_s(
        bits_per_entry=task.model_bits,
        entries=1.0,
        rate_bps=devices.rate_down_bps[:, :aggregations],
    )
    upload_s, download_s = schedule.uploaded * up_s, schedule.received * down_s
    return PeriodCosts(
        download_s=download_s,
        compute_s=compute_s,
        upload_s=upload_s,
        period_s=np.asarray(
            period_s(
                idle_s=schedule.received * schedule.idle_s,
                download_s=download_s,
                compute_s=compute_s,
                upload_s=upload_s,
            )
        ),
        download_j=np.asarray(
            transfer_energy_j(power_w=devices.receive_w[:, None], airtime_s=download_s)
        ),
        compute_j=compute_j,
        upload_j=np.asarray(transfer_energy_j(power_w=devices.send_w[:, None], airtime_s=upload_s)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """When the parts of local periods begin and end, in seconds; one entry for each completed one.

    The idle part (waiting and download), computing and upload follow one another, but between
    computing and upload nothing is planned.
    """

    device: Index
    version: Index
    aggregation: Index
    idle_from_s: F64
    compute_from_s: F64
    """Download ended."""
    compute_to_s: F64
    upload_to_s: F64

    def idle_side(self, t_s: float) -> F64:
        """Return Q_ID at ``t_s``: below 0 while waiting, downloading or uploading, above 0 else.

        (27) is the product of the distances to both ends of an interval. As printed it ends an
        interval too late and sums over tasks; and one interval cannot be all three phases. Here it
        is the product of two such factors, for waiting with downloading and for uploading.
        """
        before = (t_s - self.idle_from_s) * (t_s - self.compute_from_s)
        return before * (t_s - self.compute_to_s) * (t_s - self.upload_to_s)

    def active_side(self, t_s: float) -> F64:
        """Return Q_AC at ``t_s`` (28): below 0 while computing, above 0 before and after."""
        return (t_s - self.compute_from_s) * (t_s - self.compute_to_s)


def phases(schedule: TaskSchedule, spent: PeriodCosts) -> Phases:
    """Return when the completed periods of a task take place; every device begins at 0."""
    device, version, aggregation = np.nonzero(
        completions(schedule.received, schedule.uploaded) > 0.5
    )
    ends = np.cumsum(spent.period_s, axis=1)
    begins = ends - spent.period_s
    idle_from_s = begins[device, version]
    here = device, version
    compute_from_s = idle_from_s + (schedule.received * schedule.idle_s)[here]
    compute_from_s = compute_from_s + spent.download_s[here]
    compute_to_s = compute_from_s + spent.compute_s[here]
    return Phases(
        device,
        version,
        aggregation,
        idle_from_s,
        compute_from_s,
        compute_to_s,
        compute_to_s + spent.upload_s[device, aggregation],
    )


def upload_ends_s(schedule: TaskSchedule, spent: PeriodCosts) -> F64:
    """Return when each aggregation's upload ends, shape ``(aggregations,)``."""
    ends = np.cumsum(spent.period_s, axis=1)
    total: F64 = (schedule.uploaded * ends).sum(axis=0)
    return total
