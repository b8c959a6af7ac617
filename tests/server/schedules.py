"""Random runs of one task: devices receive and return versions in any order."""

import numpy as np
from numpy.typing import NDArray

from fadelab_server.scheduler.event_log import Event, Received, TaskLog, Uploaded
from fadelab_server.scheduler.schedule import DeviceTerms, TaskSchedule, TaskTerms, costs

F64 = NDArray[np.float64]


def random_log(
    rng: np.random.Generator, *, devices: int, aggregations: int, mixing: float = 0.3
) -> TaskLog:
    """Devices without a version receive the newest by chance; one of those that hold one uploads."""
    events: list[Event] = []
    holds: dict[int, int] = {}
    for number in range(aggregations):
        for device in range(devices):
            if device not in holds and (rng.random() < 0.6 or not holds):
                holds[device] = number
                events.append(Received(device, number, float(len(events))))
        device = int(rng.choice(sorted(holds)))
        version = holds.pop(device)
        events.append(Uploaded(device, version, number, mixing, float(len(events))))
    return TaskLog(devices, tuple(events))


def terms(
    rng: np.random.Generator, *, devices: int, aggregations: int
) -> tuple[TaskTerms, DeviceTerms]:
    """Given quantities of a size at which each of them matters."""
    shape = (devices, aggregations)
    return (
        TaskTerms(
            cycles_per_sample=rng.uniform(500, 5000, devices),
            samples=rng.integers(50, 90, shape).astype(np.float64),
            model_bits=7850 * 32.0,
            window_s=np.full(devices, 1e4),
            staleness_cap=aggregations,
            steps_min=1,
            steps_max=20,
        ),
        DeviceTerms(
            capacitance_j_s2=rng.uniform(1e-21, 1e-19, devices),
            cpu_min_hz=np.full(devices, 1e5),
            cpu_max_hz=np.full(devices, 1e7),
            energy_budget_j=np.full(devices, 1e4),
            send_w=np.full(devices, 0.25),
            receive_w=np.full(devices, 0.1),
            rate_up_bps=rng.uniform(1e6, 3e7, shape),
            rate_down_bps=rng.uniform(1e5, 3e6, shape),
        ),
    )


def ordered_schedule(
    rng: np.random.Generator, log: TaskLog, task: TaskTerms, devices: DeviceTerms
) -> TaskSchedule:
    """Random resources, and waiting times at which uploads end in the order of the log."""
    received, uploaded = log.tensors()
    shape = received.shape
    made = {
        "cpu_hz": rng.uniform(1e6, 5e6, shape),
        "batch_size": rng.integers(1, 50, shape).astype(np.float64),
        "steps": rng.integers(1, 20, shape).astype(np.float64),
    }
    idle_s = np.zeros(shape)
    rest = {"idle_s": idle_s, "final_idle_s": np.zeros(shape[0])}
    busy = costs(TaskSchedule(received, uploaded, **made, **rest), task, devices)
    last_s = 0.0
    for upload in log.uploads:
        row, column = upload.device, upload.aggregation
        ends_s = float((busy.period_s[row] + idle_s[row])[: column + 1].sum())
        wait_s = max(0.0, last_s - ends_s) + float(rng.uniform(0, 1))
        idle_s[row, upload.version] += wait_s
        last_s = ends_s + wait_s
    spent = costs(TaskSchedule(received, uploaded, **made, **rest), task, devices)
    final_s = task.window_s - spent.period_s.sum(axis=1)
    return TaskSchedule(received, uploaded, **made, idle_s=idle_s, final_idle_s=final_s)
