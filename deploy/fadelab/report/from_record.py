"""Write the report of a run directory."""

from pathlib import Path

import numpy as np

from fadelab.experiment import Experiment
from fadelab.report.model import NAMED_DEVICES, FloatArray, PeriodTimeline, Run, ScheduleView
from fadelab.report.write import write_report
from fadelab.results.periods import bound_history
from fadelab.results.record import RunRecord
from fadelab.results.schema import Summary
from fadelab.results.stages import stages_of
from fadelab.results.throughput import throughput
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.coverage import CoverageConfig

# Enough for an eye, and little enough for a page: small charts need fewer steps than a large one.
_STEPS = 300
_STEPS_PER_LINK = 120


def report_run(run_dir: Path, summary: Summary) -> Path:
    """Write ``report.html`` into ``run_dir`` and return its path."""
    record = RunRecord.load(run_dir)
    experiment = record.experiment
    devices = experiment.devices.count
    run = Run(
        summary,
        record.manifest,
        _schedule_view(record, experiment),
        throughput(record, devices, _STEPS if devices > NAMED_DEVICES else _STEPS_PER_LINK),
        experiment.validity,
        PeriodTimeline(stages_of(record), bound_history(record)),
    )
    path = run_dir / "report.html"
    write_report(path, run)
    return path


def _schedule_view(record: RunRecord, experiment: Experiment) -> ScheduleView:
    radio, schedule = experiment.radio, record.schedule
    devices = tuple(str(device) for device in range(experiment.devices.count))
    shown = 0 if schedule is None else int(np.searchsorted(schedule.t_s, record.duration_s))

    def column(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        if schedule is None:
            return np.zeros((0, len(devices)), dtype=np.float32)
        return schedule.column(name)[:shown]

    no_ticks = np.zeros((0, len(devices)), dtype=np.bool_)
    models = radio if isinstance(radio, RadioConfig) else None
    contact = None if models is None else models.contact
    return ScheduleView(
        device_ids=devices,
        t_s=np.zeros(0) if schedule is None else schedule.t_s[:shown],
        x_m=column("x_m"),
        y_m=column("y_m"),
        rate_up_bps=column("rate_up_bps"),
        rate_down_bps=column("rate_down_bps"),
        is_open=no_ticks if schedule is None else schedule.is_open[:shown],
        sites_m=_sites_m(models, len(devices), experiment.seed),
        radius_m=contact.radius_m if isinstance(contact, CoverageConfig) else None,
        area_m=None if models is None else models.area_m,
    )


def _sites_m(models: RadioConfig | None, devices: int, seed: int) -> FloatArray:
    return np.zeros((0, 2)) if models is None else models.scene(devices, seed).sites_m
