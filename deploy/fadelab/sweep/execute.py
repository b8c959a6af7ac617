"""Carry a sweep out: runs side by side, failed ones again, everything written down at once."""

import asyncio
import collections
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import yaml

from fadelab.exit_codes import ExitCode
from fadelab.results.schema import Summary
from fadelab.sweep.child import RunProcess, Work
from fadelab.sweep.load import Estimate
from fadelab.sweep.plan import PlannedRun
from fadelab.sweep.record import RunEntry, RunState, SweepFolder
from fadelab.sweep.verdict import Verdict, judge
from fadelab_proto.clock import Clock

Maker = Callable[[Path, Path], Work]
"""From an experiment file and a run directory to what makes the run in a process of its own."""

_USELESS_TO_REPEAT = {ExitCode.USAGE, ExitCode.ENVIRONMENT, ExitCode.DATA_MISSING}


class Observer(Protocol):
    """Whoever wants to hear how a sweep goes on."""

    def ended(
        self, entry: RunEntry, summary: Summary | None, *, again: bool, to_go: int, left_s: float
    ) -> None:
        """Hear that a run has ended, whether it is made again, and what is still to do."""
        ...


class SweepExecution:
    """The runs of a sweep that are still to be made.

    Args:
        folder: the sweep's folder and record, brought up to date by :func:`resume_state`.
        runs: what is planned, in order.
        attempts: how often a run is made at most.
        jobs: how many at once.
        clock: of the wall.
        observer: hears of every run's end.
        maker: how a run is made.

    """

    def __init__(
        self,
        folder: SweepFolder,
        runs: Sequence[PlannedRun],
        *,
        attempts: int,
        jobs: int,
        clock: Clock,
        observer: Observer,
        maker: Maker,
    ) -> None:
        self._folder = folder
        self._attempts = attempts
        self._jobs = jobs
        self._clock = clock
        self._observer = observer
        self._maker = maker
        self._waiting = collections.deque(run for run in runs if self._is_due(run))
        self._running: dict[str, tuple[PlannedRun, RunProcess]] = {}
        self._estimate = Estimate()
        self._stopped = False

    @property
    def due(self) -> Sequence[PlannedRun]:
        """The runs that wait to be made."""
        return list(self._waiting)

    @property
    def left_s(self) -> float:
        """Wall seconds that everything still to be done is expected to take."""
        running = [run for run, _ in self._running.values()]
        return self._estimate.all_s([*self._waiting, *running], self._jobs)

    async def run(self) -> bool:
        """Make all runs; False if a signal ended the sweep before.

        At the first Ctrl-C or SIGTERM the runs under way are ended in order, at the next at once.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        try:
            # One that fails is made again by the worker that made it: none ends too early for it.
            await asyncio.gather(*(self._work() for _ in range(self._jobs)))
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        return not self._stopped

    def _is_due(self, run: PlannedRun) -> bool:
        entry = self._folder.entry(run.name)
        return entry.state != "valid" and entry.attempts < self._attempts

    def _stop(self) -> None:
        self._stopped = True
        self._waiting.clear()
        for _, process in self._running.values():
            process.stop()

    async def _work(self) -> None:
        while self._waiting:
            run = self._waiting.popleft()
            if await self._make(run):
                self._waiting.append(run)

    async def _make(self, run: PlannedRun) -> bool:
        """Make a run once; say whether it should be made again."""
        folder, name = self._folder, run.name
        folder.set_aside(name)
        experiment = folder.experiment(name)
        tree = run.experiment.model_dump(mode="json")
        experiment.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        folder.update(name, state="running", reasons=[], wall_s=None)
        begun_s = self._clock.now_s()
        process = RunProcess(self._maker(experiment, folder.run_dir(name)), folder.log(name))
        self._running[name] = run, process
        code = await process.wait()
        del self._running[name]
        wall_s = self._clock.now_s() - begun_s
        verdict = judge(folder.run_dir(name))
        state, reasons = self._outcome(code, verdict, process)
        if state in ("valid", "invalid"):
            self._estimate.learn(run, wall_s)
        made = folder.entry(name).attempts + (state in ("valid", "invalid", "failed"))
        entry = folder.update(
            name, state=state, reasons=reasons, wall_s=round(wall_s, 1), attempts=made
        )
        again = state in ("invalid", "failed") and made < self._attempts and not self._stopped
        self._observer.ended(
            entry,
            verdict.summary,
            again=again,
            to_go=len(self._waiting) + len(self._running) + again,
            left_s=self.left_s + (self._estimate.run_s(run) / self._jobs if again else 0.0),
        )
        return again

    def _outcome(
        self, code: int, verdict: Verdict, process: RunProcess
    ) -> tuple[RunState, list[str]]:
        if code == ExitCode.VALID and verdict.is_valid:
            return "valid", []
        if code == ExitCode.INVALID_RUN and verdict.summary is not None:
            return "invalid", verdict.reasons
        if self._stopped or code == ExitCode.INTERRUPTED:
            return "interrupted", ["interrupted before it was over"]
        words = process.last_words() or f"`fadelab run` ended with code {code}"
        return ("refused" if code in _USELESS_TO_REPEAT else "failed"), [words]


def resume_state(
    folder: SweepFolder, runs: Sequence[PlannedRun], earlier: Sequence[RunEntry]
) -> None:
    """Bring a new record up to what an earlier call of the sweep has left.

    A run counts as valid if its folder holds a finished, valid run of exactly the planned
    experiment, whatever the earlier record says. Attempts count on, except of a run whose
    experiment has changed.
    """
    known = {entry.name: entry for entry in earlier}
    for run in runs:
        verdict = judge(folder.run_dir(run.name))
        before = known.get(run.name)
        same = before is not None and before.digest == run.digest
        if verdict.is_valid and verdict.is_of(run.digest):
            attempts, wall_s = (before.attempts, before.wall_s) if same and before else (1, None)
            folder.update(run.name, state="valid", attempts=max(1, attempts), wall_s=wall_s)
        elif before is not None and same:
            state = "interrupted" if before.state in ("running", "valid") else before.state
            folder.update(
                run.name,
                **before.model_dump(include={"attempts", "reasons", "wall_s"}),
                state=state,
            )
