"""Runs of method emq by formula: how many rounds a power control affords, and what is learned then.

Training, coding, aggregation and power control are those of a run on sockets; uploads take and cost
what the formulas say, so the figures are *planned* ones and carry no claim about a network.

Run ``python -m fadelab.twin.power_rounds SWEEP.yaml --out FILE`` to have all runs of a sweep file.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.sweep.plan import PlannedRun, load_plan
from fadelab.twin.learning import Learning, Reported, SharedRounds
from fadelab.twin.power_schema import FormulaRun, FormulaRuns
from fadelab_agent.wire_size import full_precision_wire_bits
from fadelab_agent.workbench import Workbench
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.rate.base import MIN_RATE_BPS
from fadelab_emulation.world import RadioWorld
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_server.allocator.round_cost import Allocation, RoundLoad
from fadelab_server.allocator.uplink import F64, UplinkStatistics
from fadelab_server.rounds.config import CellFreeAllocationConfig
from fadelab_server.rounds.power_control import decide_round, on_links
from fadelab_server.rounds.spending import RoundCost, Spending


@dataclass(slots=True)
class _Totals:
    rounds: int = 0
    bits: int = 0
    wire_bits: int = 0
    due: int = 0
    silenced: int = 0

    def add(self, reports: Sequence[Reported], silenced: frozenset[int]) -> None:
        """Count a round."""
        sent = [report for own, report in enumerate(reports) if own not in silenced]
        self.rounds += 1
        self.due += len(sent)
        self.bits += sum(report.bits for report in sent)
        self.wire_bits += sum(report.wire_bits for report in sent)
        self.silenced += len(silenced)


class _Planner:
    """The server's part of a run: power control and budgets."""

    def __init__(self, experiment: Experiment) -> None:
        self._config = _allocation(experiment)
        self._statistics = _statistics(experiment)
        self.spending = Spending(self._config.budget)
        self._start: F64 | None = None

    def plan(self, reports: Sequence[Reported]) -> tuple[Allocation, frozenset[int]]:
        """Return a round's plan, and who has something to send and no power."""
        load = RoundLoad(
            np.array([float(report.wire_bits) for report in reports]),
            compute_s=max(report.compute_s for report in reports),
            compute_j=sum(report.compute_j for report in reports),
        )
        allocation = decide_round(
            self._config.power_control,
            self._statistics,
            load,
            left=self.spending.left,
            start=self._start,
        )
        self._start = allocation.coefficient
        powers_w = self._statistics.full_power_w * allocation.coefficient
        mute = np.flatnonzero((powers_w == 0) & (load.bits > 0))
        planned = on_links(allocation, load, MIN_RATE_BPS, powers_w)
        return planned, frozenset(mute.tolist())

    def book(self, planned: Allocation) -> None:
        """Pay for a round."""
        self.spending.add(
            RoundCost(
                planned_s=planned.round_s, planned_j=planned.round_j, compute_s=0.0, compute_j=0.0
            )
        )

    def spent_budget(self) -> Literal["energy", "latency"] | None:
        """Return which budget is spent; the energy first, as in a run."""
        left = self.spending.left
        if left.energy_j <= 0:
            return "energy"
        return "latency" if left.latency_s <= 0 else None


def formula_runs(planned: Sequence[PlannedRun]) -> Iterator[FormulaRun]:
    """Yield what becomes of runs that differ in their power control and budget alone.

    Raises:
        FadelabError: USAGE, if no formula says what becomes of one.

    """
    first = planned[0].experiment
    bench = Workbench(_work(first), first.first.task.data_dir.absolute())
    with TemporaryDirectory() as folder, EventLog(Path(folder), "twin", "0", SystemClock()) as log:

        def learning(number: int) -> Learning:
            return Learning(planned[number].experiment, bench, Path(folder), log)

        shared = SharedRounds(learning(0))
        for number, run in enumerate(planned):
            yield _shared_run(run, shared, bench) or _own_run(run, learning(number), bench)


def _shared_run(run: PlannedRun, shared: SharedRounds, bench: Workbench) -> FormulaRun | None:
    """Return what becomes of a run in which everybody sends; None if somebody is silenced."""
    planner, totals = _Planner(run.experiment), _Totals()
    while _goes_on(run.experiment, planner, totals):
        reports = shared.reports(totals.rounds)
        planned, silenced = planner.plan(reports)
        if silenced:
            return None
        planner.book(planned)
        totals.add(reports, silenced)
    return _found(run, planner, totals, metric=shared.metric(totals.rounds), bench=bench)


def _own_run(run: PlannedRun, learning: Learning, bench: Workbench) -> FormulaRun:
    planner, totals = _Planner(run.experiment), _Totals()
    while _goes_on(run.experiment, planner, totals):
        reports = learning.train()
        planned, silenced = planner.plan(reports)
        learning.send(silenced)
        planner.book(planned)
        totals.add(reports, silenced)
    return _found(run, planner, totals, metric=learning.metric(), bench=bench)


def _goes_on(experiment: Experiment, planner: _Planner, totals: _Totals) -> bool:
    most = experiment.max_versions
    return planner.spending.over is None and (most is None or totals.rounds < most)


def _found(
    run: PlannedRun, planner: _Planner, totals: _Totals, *, metric: float, bench: Workbench
) -> FormulaRun:
    entries = bench.model.dimension
    full_bits = full_precision_wire_bits(
        entries, max_payload_bytes=run.experiment.transport.max_payload_bytes
    )
    return FormulaRun(
        variant=run.variant,
        point=dict(run.point),
        seed=run.seed,
        rounds=totals.rounds,
        metric=metric,
        energy_j=planner.spending.planned_j,
        latency_s=planner.spending.planned_s,
        nominal_share=totals.bits / (32 * entries * totals.due),
        wire_share=totals.wire_bits / (full_bits * totals.due),
        silenced=totals.silenced,
        spent_budget=planner.spent_budget(),
    )


def _work(experiment: Experiment) -> WorkbenchConfig:
    first = experiment.first
    return WorkbenchConfig(
        task=first.task,
        partition=first.partition,
        training=first.training,
        devices=experiment.devices.count,
        seed=experiment.seed,
    )


def _allocation(experiment: Experiment) -> CellFreeAllocationConfig:
    allocation = experiment.method.pieces().allocation
    if not isinstance(allocation, CellFreeAllocationConfig):
        raise _no_formula(experiment, "its server decides no powers")
    budget = allocation.budget
    if budget.counts != "planned":
        raise _no_formula(experiment, "its budgets count measured times")
    if experiment.max_versions is None and budget.energy_j is None and budget.latency_s is None:
        raise _no_formula(experiment, "it has neither a budget nor max_versions to end it")
    return allocation


def _statistics(experiment: Experiment) -> UplinkStatistics:
    radio = experiment.radio
    if not isinstance(radio, RadioConfig) or radio.mobility.kind != "static":
        raise _no_formula(experiment, "its devices do not stay where they are")
    world = RadioWorld(radio, experiment.devices.count, experiment.seed)
    world.step()
    terms = world.uplink_terms()
    assert terms is not None
    own = terms.statistics
    return UplinkStatistics(
        own.coherent_gain,
        own.own_interference,
        own.cross_interference,
        own.noise,
        terms.bandwidth_hz,
        terms.data_share,
        radio.uplink_power_w,
    )


def _no_formula(experiment: Experiment, why: str) -> FadelabError:
    return FadelabError(
        ExitCode.USAGE, f"no formula says what becomes of run '{experiment.name}': {why}"
    )


def _alike(runs: Iterable[PlannedRun]) -> list[list[PlannedRun]]:
    """Group runs that learn the same as long as everybody sends."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        method = run.experiment.method.model_dump(
            mode="json", exclude={"power_control", "budget", "during_round"}
        )
        rest = run.experiment.model_dump(mode="json", exclude={"name", "method", "max_versions"})
        groups.setdefault(f"{method} {rest}", []).append(run)
    return list(groups.values())


def _all_of(group: list[PlannedRun]) -> list[FormulaRun]:
    return list(formula_runs(group))


def sweep_by_formula(path: Path, *, jobs: int) -> FormulaRuns:
    """Return what becomes of all runs of a sweep file.

    Args:
        path: of the sweep file.
        jobs: processes at a time.

    Raises:
        FadelabError: USAGE, if the file is wrong or no formula says what becomes of a run.

    """
    plan = load_plan(path)
    groups = _alike(plan.runs)
    found: list[FormulaRun] = []
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = [pool.submit(_all_of, group) for group in groups]
        for done, future in enumerate(as_completed(waiting), 1):
            found += future.result()
            sys.stderr.write(f"{done} of {len(groups)} trainings\n")
    found.sort(key=lambda run: (run.seed, run.variant, sorted(run.point.items())))
    return FormulaRuns(name=plan.name, baseline=plan.baseline, runs=found)


def main() -> None:
    """Write the figures of all runs of a sweep file, by formula."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sweep", type=Path, help="a sweep file of method emq")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    given = parser.parse_args()
    try:
        found = sweep_by_formula(given.sweep, jobs=given.jobs)
    except FadelabError as error:
        sys.exit(str(error))
    given.out.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
