"""Runs are made, repeated, recognised and listed; prepared runs stand in for real ones."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from sweep_runs import plan_of, summary_of, sweep_folder, write_planned, write_run

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import load_experiment
from fadelab.results.schema import Summary
from fadelab.sweep.child import RunProcess, Work
from fadelab.sweep.execute import SweepExecution, resume_state
from fadelab.sweep.plan import SweepPlan, digest_of
from fadelab.sweep.record import (
    RunEntry,
    SweepFolder,
    locked,
    read_record,
)
from fadelab_proto.clock import SystemClock

NOT_VALID = {"valid": False, "invalid_reasons": ["Link updates were late."]}


def shell(script: str) -> Work:
    return lambda: os.execlp("sh", "sh", "-c", script)


class Bench:
    """A sweep whose runs end as prepared: codes in the order of a run's attempts."""

    def __init__(
        self, path: Path, plan: SweepPlan, codes: dict[str, list[int]] | None = None
    ) -> None:
        self.plan = plan
        self.folder = sweep_folder(path / "sweep", plan)
        self._prepared = path / "prepared"
        self._codes = codes or {}
        self.calls: Counter[str] = Counter()
        self.heard: list[tuple[RunEntry, bool, int]] = []

    def maker(self, experiment: Path, run_dir: Path) -> Work:
        name = run_dir.name
        codes = self._codes.get(name, [0])
        code = codes[min(self.calls[name], len(codes) - 1)]
        self.calls[name] += 1
        words = f"echo 'fadelab: attempt {self.calls[name]} of it'; "
        if code in (ExitCode.VALID, ExitCode.INVALID_RUN):
            made = self._prepared / f"{name}-{self.calls[name]}"
            changes = {} if code == ExitCode.VALID else NOT_VALID
            summary = summary_of({0.0: 0.5}).model_copy(update=changes)
            write_run(made, load_experiment(experiment), summary)
            words += f"cp -r {shlex.quote(str(made))} {shlex.quote(str(run_dir))}; "
        return shell(f"{words} exit {code}")

    def ended(
        self, entry: RunEntry, summary: Summary | None, *, again: bool, to_go: int, left_s: float
    ) -> None:
        assert left_s >= 0
        assert (summary is not None) == (entry.state in ("valid", "invalid"))
        self.heard.append((entry, again, to_go))

    def execution(self, jobs: int = 1) -> SweepExecution:
        return SweepExecution(
            self.folder,
            self.plan.runs,
            attempts=self.plan.attempts,
            jobs=jobs,
            clock=SystemClock(),
            observer=self,
            maker=self.maker,
        )

    def run(self, jobs: int = 1) -> bool:
        return asyncio.run(self.execution(jobs).run())

    def resumed(self) -> "SweepFolder":
        """Return the folder as another call of the command finds it."""
        earlier = read_record(self.folder.path).runs
        self.folder = sweep_folder(self.folder.path, self.plan)
        resume_state(self.folder, self.plan.runs, earlier)
        return self.folder

    def states(self) -> dict[str, tuple[str, int]]:
        record = read_record(self.folder.path)
        return {entry.name: (entry.state, entry.attempts) for entry in record.runs}


@pytest.mark.parametrize("jobs", [1, 3])
def test_all_runs_are_made_once_and_written_down(tmp_path: Path, jobs: int) -> None:
    bench = Bench(tmp_path, plan_of(tmp_path))
    assert bench.run(jobs)
    assert set(bench.states().values()) == {("valid", 1)}
    assert set(bench.calls.values()) == {1}
    assert [to_go for _, _, to_go in bench.heard] == [3, 2, 1, 0]
    for run in bench.plan.runs:
        written = yaml.safe_load(bench.folder.experiment(run.name).read_text())
        assert written["seed"] == run.seed
        assert digest_of(load_experiment(bench.folder.experiment(run.name))) == run.digest


def test_what_is_not_valid_is_made_again_and_the_first_attempt_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, plan_of(tmp_path, seeds=1), {"dense_seed=1": [3, 0]})
    assert bench.run()
    assert bench.states() == {"dense_seed=1": ("valid", 2), "half_seed=1": ("valid", 1)}
    again = [(entry.name, entry.state) for entry, again, _ in bench.heard if again]
    assert again == [("dense_seed=1", "invalid")]
    kept = Summary.model_validate_json(
        (bench.folder.path / "set-aside" / "dense_seed=1-1" / "summary.json").read_bytes()
    )
    assert not kept.valid


def test_after_its_attempts_a_run_is_listed_with_its_reasons(tmp_path: Path) -> None:
    codes = {"dense_seed=1": [3], "half_seed=1": [6]}
    bench = Bench(tmp_path, plan_of(tmp_path, seeds=1, attempts=3), codes)
    assert bench.run()
    assert bench.states() == {"dense_seed=1": ("invalid", 3), "half_seed=1": ("failed", 3)}
    entries = {entry.name: entry for entry in read_record(bench.folder.path).runs}
    assert entries["dense_seed=1"].reasons == ["Link updates were late."]
    assert entries["half_seed=1"].reasons == ["attempt 3 of it"]


@pytest.mark.parametrize("code", [2, 4, 5])
def test_what_the_machine_cannot_do_is_not_tried_again_in_vain(tmp_path: Path, code: int) -> None:
    bench = Bench(tmp_path, plan_of(tmp_path, seeds=1, variants=None), {"base_seed=1": [code]})
    assert bench.run()
    assert bench.calls == {"base_seed=1": 1}
    assert bench.states() == {"base_seed=1": ("refused", 0)}
    bench.resumed()
    assert [run.name for run in bench.execution().due] == ["base_seed=1"]


def test_a_resumed_sweep_repeats_nothing_that_is_valid(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    bench = Bench(tmp_path, plan)
    write_planned(bench.folder, plan.runs[0], 0.9)
    assert bench.run()
    assert bench.states() == {run.name: ("valid", 1) for run in plan.runs}
    # What is there without being in the record was not taken: a new sweep sets it aside.
    assert bench.calls[plan.runs[0].name] == 1
    bench.resumed()
    assert not bench.execution().due
    calls = bench.calls.copy()
    assert bench.run()
    assert bench.calls == calls


def test_a_finished_run_is_recognised_by_what_it_holds(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    bench = Bench(tmp_path, plan)
    valid, other, invalid, cut = plan.runs
    write_planned(bench.folder, valid, 0.9)
    write_run(bench.folder.run_dir(other.name), valid.experiment, summary_of({0.0: 0.5}))
    write_planned(bench.folder, invalid, 0.9, **NOT_VALID)
    write_run(bench.folder.run_dir(cut.name), cut.experiment, None)
    bench.folder.update(cut.name, state="running")
    bench.folder.update(invalid.name, state="invalid", attempts=1, reasons=["late"])
    bench.resumed()
    assert list(bench.states().values()) == [
        ("valid", 1),
        ("planned", 0),
        ("invalid", 1),
        ("interrupted", 0),
    ]
    due = [run.name for run in bench.execution().due]
    assert due == [other.name, invalid.name, cut.name]
    assert bench.run()
    assert [attempts for _, attempts in bench.states().values()] == [1, 1, 2, 1]
    aside = {path.name for path in (bench.folder.path / "set-aside").iterdir()}
    assert aside == {f"{name}-1" for name in due}


def test_a_changed_experiment_is_run_anew_with_all_its_attempts(tmp_path: Path) -> None:
    bench = Bench(tmp_path, plan_of(tmp_path, seeds=1, variants=None), {"base_seed=1": [3]})
    assert bench.run()
    bench.plan = plan_of(tmp_path, seeds=1, variants=None, settings={"duration_s": 7})
    bench.resumed()
    assert bench.states() == {"base_seed=1": ("planned", 0)}
    assert [run.name for run in bench.execution().due] == ["base_seed=1"]


def test_exhausted_attempts_stay_exhausted_until_the_file_allows_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path, plan_of(tmp_path, seeds=1, variants=None), {"base_seed=1": [3]})
    assert bench.run()
    bench.resumed()
    assert not bench.execution().due
    bench.plan = plan_of(tmp_path, seeds=1, variants=None, attempts=3)
    bench.resumed()
    assert [run.name for run in bench.execution().due] == ["base_seed=1"]


class InterruptedBench(Bench):
    """The second run presses Ctrl-C as soon as it runs, and ends in order when asked to."""

    def maker(self, experiment: Path, run_dir: Path) -> Work:
        work = super().maker(experiment, run_dir)
        if sum(self.calls.values()) < 2:
            return work
        return shell("trap 'exit 130' TERM; kill -INT $PPID; sleep 60 & wait")


def test_an_interrupt_ends_the_runs_in_order_and_keeps_what_is_finished(tmp_path: Path) -> None:
    bench = InterruptedBench(tmp_path, plan_of(tmp_path))
    assert not bench.run()
    states = list(bench.states().values())
    assert states == [("valid", 1), ("interrupted", 0), ("planned", 0), ("planned", 0)]
    assert sum(bench.calls.values()) == 2
    bench.resumed()
    assert len(bench.execution().due) == 3


def test_a_run_ends_with_the_sweep_that_was_killed(tmp_path: Path) -> None:
    # The sweep's process tells the run's by the run's first line, then it is killed.
    code = (
        "import os, sys; from pathlib import Path; from fadelab.sweep.child import RunProcess; "
        "script = 'echo $$ > pid.new; mv pid.new pid; kill -KILL $PPID; sleep 60 & wait'; "
        "RunProcess(lambda: os.execlp('sh', 'sh', '-c', script), Path('log')); sys.stdin.read()"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=tmp_path, start_new_session=True
    )
    with killed:
        assert killed.wait(60) == -signal.SIGKILL
    run = int((tmp_path / "pid").read_text())
    try:
        descriptor = os.pidfd_open(run)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, 0)
        asyncio.run(_ended(descriptor))
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


async def _ended(descriptor: int) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, over.set)
    await asyncio.wait_for(over.wait(), 30)


def test_last_words_are_of_this_attempt(tmp_path: Path) -> None:
    async def words(script: str) -> str | None:
        process = RunProcess(shell(script), tmp_path / "log")
        await process.wait()
        return process.last_words()

    assert asyncio.run(words("echo 'fadelab: no luck' >&2; echo more; exit 6")) == "no luck"
    assert asyncio.run(words("exit 6")) is None


def code_of(work: Work, log: Path) -> tuple[int, str]:
    async def ended() -> int:
        return await RunProcess(work, log).wait()

    return asyncio.run(ended()), log.read_text()


def test_a_run_leaves_with_its_own_code_and_says_what_it_has_to_say_in_its_log(
    tmp_path: Path,
) -> None:
    def says() -> None:
        sys.stdout.write("so far\n")
        sys.exit(ExitCode.INVALID_RUN)

    def breaks() -> None:
        raise RuntimeError("a defect")

    assert code_of(says, tmp_path / "says") == (ExitCode.INVALID_RUN, "so far\n")
    assert code_of(lambda: None, tmp_path / "ends") == (ExitCode.VALID, "")
    code, said = code_of(breaks, tmp_path / "breaks")
    assert code == ExitCode.INTERNAL
    assert "a defect" in said


def test_a_signal_to_a_run_is_not_taken_for_one_to_the_sweep(tmp_path: Path) -> None:
    heard = []

    async def stopped() -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: heard.append(signal.SIGTERM))
        process = RunProcess(lambda: os.kill(os.getpid(), signal.SIGTERM), tmp_path / "log")
        code = await process.wait()
        # What the run's signal might have left in the loop is seen before this is called.
        last = asyncio.Event()
        loop.call_soon(last.set)
        await last.wait()
        loop.remove_signal_handler(signal.SIGTERM)
        return code

    assert asyncio.run(stopped()) == -signal.SIGTERM
    assert heard == []


def test_one_sweep_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(FadelabError, match="another `fadelab sweep` is at work"),
        locked(tmp_path),
    ):
        raise AssertionError
    with locked(tmp_path):
        pass


def test_what_runs_share_is_out_of_the_collectors_sight() -> None:
    # Else an emulator that was forked would stop for 200 ms whenever it looks for garbage.
    program = (
        "import gc; from fadelab.cli.sweep import import_once; import_once(); "
        "print(len(gc.get_objects()), gc.get_freeze_count())"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    seen, frozen = map(int, said.split())
    assert frozen > 100_000
    assert seen < frozen / 20
