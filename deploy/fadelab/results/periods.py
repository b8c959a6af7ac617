"""Local periods of devices that train several tasks: the summary's part on DMA-FL.

Two accounts of energy stand side by side and are never mixed. Modelled is what the formulas say
before anything has happened: emulated computing, and the bits of a model over the rate that was
programmed for the link, as if the task had the link to itself. Metered are the same powers times
measured times: a training that really took longer, and transfers that shared their link, slowed down
or were sent again.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fadelab.results.computing import compute_budget
from fadelab.results.goodput import ProgrammedRate
from fadelab.results.period_schema import (
    BoundPoint,
    DevicePeriods,
    PeriodFigures,
    PeriodJoules,
    Periods,
    TaskPeriods,
)
from fadelab.results.record import Event, RunRecord, number
from fadelab.results.stages import stages_of
from fadelab.results.timeline import Programmed

Way = Literal["up", "down"]
BOUND_TERMS = ("a", "b", "c", "d", "e", "f")


@dataclass(frozen=True, slots=True)
class Period:
    """One local period that ended; times in emulated seconds."""

    device: int
    task: str
    end_s: float
    steps: int
    batch: int
    cpu_hz: float
    idle_s: float
    downlink_s: float
    compute_s: float
    """As it was emulated."""
    compute_real_s: float
    """What training really took."""
    uplink_s: float
    downlink_bits: float
    uplink_bits: float
    modelled: PeriodJoules
    metered: PeriodJoules


def period_results(record: RunRecord) -> Periods | None:
    """Return what became of local periods; None if devices reported none."""
    found = ended_periods(record)
    if not found:
        return None
    names = dict.fromkeys([*record.experiment.learning, *(one.task for one in found)])
    budget = compute_budget(record)
    return Periods(
        tasks={name: _task(record, name, [p for p in found if p.task == name]) for name in names},
        modelled=_joules(one.modelled for one in found),
        metered=_joules(one.metered for one in found),
        overruns=budget.overruns,
        trainings=budget.trainings,
    )


def ended_periods(record: RunRecord) -> list[Period]:
    """Return the local periods that ended, device by device."""
    events = record.of("agent", "period_ended")
    if not events or record.start_mono_s is None:
        return []
    moments = _Moments(record)
    return [_period(record, moments, event, record.start_mono_s) for event in events]


def staleness_cap(record: RunRecord) -> int | None:
    """Return by how many versions an update may be late; None where that is not limited."""
    settings = record.experiment.method.pieces().periods
    if settings is None or settings.schedule != "rolling":
        return None
    return settings.staleness_cap


def bound_history(record: RunRecord) -> dict[str, list[BoundPoint]]:
    """Return the bound of every task after its aggregations, in their order."""
    start_s = record.start_mono_s or 0.0
    found: dict[str, list[BoundPoint]] = defaultdict(list)
    for event in record.of("server", "bound"):
        found[str(event["task"])].append(
            BoundPoint(
                t_s=round(number(event, "mono_s") - start_s, 6),
                version=int(number(event, "version")),
                **dict(zip(BOUND_TERMS, _terms(event), strict=True)),
                total=_known(event, "total"),
            )
        )
    return dict(found)


def _terms(event: Event) -> list[float | None]:
    terms = event["terms"]
    assert isinstance(terms, dict)
    return [terms[name] for name in BOUND_TERMS]


def _known(event: Event, key: str) -> float | None:
    value = event.get(key)
    return float(value) if isinstance(value, int | float) else None


class _Moments:
    """When transfers began, and what their links were programmed to carry from then on."""

    def __init__(self, record: RunRecord) -> None:
        self._programmed = Programmed.of(record, record.experiment.devices.count)
        self._rates: dict[tuple[int, str], ProgrammedRate] = {}
        self._begun: dict[tuple[int, str, str], list[float]] = defaultdict(list)
        for stage in stages_of(record):
            self._begun[stage.device, stage.task, stage.name].append(stage.start_s)

    def airtime_s(self, way: Way, device: int, task: str, bits: float, end_s: float) -> float:
        """Return how long a task's last transfer before ``end_s`` would take alone on its link."""
        begun_s = self._last(way, device, task, end_s)
        return self._rate(way, device).airtime_s(bits, begun_s)

    def open_s(self, way: Way, device: int, task: str, length_s: float, end_s: float) -> float:
        """Return for how long of that transfer the link was open."""
        begun_s = self._last(way, device, task, end_s)
        return self._rate(way, device).open_s(begun_s, begun_s + length_s)

    def _last(self, way: Way, device: int, task: str, end_s: float) -> float:
        begun = self._begun[device, task, f"{way}link"]
        at = bisect_right(begun, end_s) - 1
        return begun[at] if at >= 0 else end_s

    def _rate(self, way: Way, device: int) -> ProgrammedRate:
        key = device, way
        if key not in self._rates:
            programmed = self._programmed.direction(way).open_bps[:, device]
            self._rates[key] = ProgrammedRate(programmed, self._programmed.tick_s)
        return self._rates[key]


def _period(record: RunRecord, moments: _Moments, event: Event, start_mono_s: float) -> Period:
    radio, device, task = record.experiment.radio, int(str(event["id"])), str(event["task"])
    end_s = number(event, "mono_s") - start_mono_s
    compute_s, real_s = number(event, "compute_s"), number(event, "compute_real_s")
    compute_j, downlink_s = number(event, "compute_j"), number(event, "downlink_s")
    down_bits, up_bits = number(event, "downlink_bits"), number(event, "uplink_bits")
    stretch = max(1.0, real_s / compute_s) if compute_s > 0 else 1.0
    return Period(
        device=device,
        task=task,
        end_s=end_s,
        steps=int(number(event, "steps")),
        batch=int(number(event, "batch")),
        cpu_hz=number(event, "cpu_hz"),
        idle_s=number(event, "idle_s"),
        downlink_s=downlink_s,
        compute_s=compute_s,
        compute_real_s=real_s,
        uplink_s=number(event, "uplink_s"),
        downlink_bits=down_bits,
        uplink_bits=up_bits,
        modelled=PeriodJoules(
            compute=compute_j,
            uplink=radio.uplink_power_w * moments.airtime_s("up", device, task, up_bits, end_s),
            downlink=radio.downlink_power_w
            * moments.airtime_s("down", device, task, down_bits, end_s),
        ),
        metered=PeriodJoules(
            compute=compute_j * stretch,
            uplink=number(event, "uplink_j"),
            downlink=radio.downlink_power_w
            * moments.open_s("down", device, task, downlink_s, end_s),
        ),
    )


def _task(record: RunRecord, name: str, own: Sequence[Period]) -> TaskPeriods:
    applied = [
        int(number(event, "staleness_versions"))
        for event in record.of("server", "upload_complete")
        if event["task"] == name and event["staleness_versions"] is not None
    ]
    cap = staleness_cap(record)
    scheduled = [event for event in record.of("server", "scheduled") if event["task"] == name]
    by_device: dict[int, list[Period]] = defaultdict(list)
    for one in own:
        by_device[one.device].append(one)
    bound = bound_history(record).get(name, [])
    return TaskPeriods(
        periods=_figures(own),
        scheduled=len(scheduled),
        mean_planned_idle_s=_mean(number(event, "idle_s") for event in scheduled),
        staleness_cap=cap,
        largest_staleness=max(applied, default=None),
        over_cap=0 if cap is None else sum(staleness > cap for staleness in applied),
        devices=[
            DevicePeriods(device=device, periods=_figures(periods))
            for device, periods in sorted(by_device.items())
        ],
        bound=bound[-1] if bound else None,
    )


def _figures(own: Sequence[Period]) -> PeriodFigures:
    trained = [one for one in own if one.compute_s > 0]
    late_s = [max(0.0, one.compute_real_s - one.compute_s) for one in trained]
    return PeriodFigures(
        ended=len(own),
        mean_idle_s=_mean(one.idle_s for one in own),
        mean_downlink_s=_mean(one.downlink_s for one in own),
        mean_compute_s=_mean(one.compute_s for one in trained),
        mean_uplink_s=_mean(one.uplink_s for one in own),
        mean_steps=_mean(one.steps for one in trained),
        mean_batch=_mean(one.batch for one in trained),
        mean_cpu_hz=_mean(one.cpu_hz for one in trained),
        downlink_bits=sum(one.downlink_bits for one in own),
        uplink_bits=sum(one.uplink_bits for one in own),
        modelled=_joules(one.modelled for one in own),
        metered=_joules(one.metered for one in own),
        overruns=sum(late > 0 for late in late_s),
        late_s=sum(late_s),
    )


def _joules(parts: Iterable[PeriodJoules]) -> PeriodJoules:
    found = list(parts)
    return PeriodJoules(
        compute=sum(one.compute for one in found),
        uplink=sum(one.uplink for one in found),
        downlink=sum(one.downlink for one in found),
    )


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
