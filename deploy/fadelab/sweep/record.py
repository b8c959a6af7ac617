"""``sweep.json``: the plan of a sweep and how far it has come."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.mistakes import describe
from fadelab.sweep.plan import SweepPlan
from fadelab_proto.config import StrictModel

FILE_NAME = "sweep.json"

RunState = Literal["planned", "running", "valid", "invalid", "failed", "refused", "interrupted"]


class RunEntry(StrictModel):
    """One run and what became of it."""

    name: str = Field(description="Its folder below runs/.")
    variant: str
    point: dict[str, str] = Field(description="Label of the grid point on each axis.")
    seed: int
    digest: str = Field(description="SHA-256 of its resolved experiment.")
    state: RunState = Field(
        "planned",
        description="Invalid: its own measurements say so. Failed: it ended early. Refused: this "
        "machine cannot run it; trying again would not help.",
    )
    attempts: int = Field(0, description="How often it was made, interruptions left out.")
    reasons: list[str] = Field(default=[], description="Why it is not valid.")
    wall_s: float | None = Field(None, description="Wall seconds of the last attempt.")


class AxisEntry(StrictModel):
    """One axis of the grid."""

    name: str
    labels: list[str]
    numbers: list[float | None] = Field(description="The labels as numbers where they are such.")


class SweepRecord(StrictModel):
    """The plan of a sweep and the state of its runs."""

    sweep_version: Literal[1] = 1
    name: str
    file: str = Field(description="The sweep file, as it was named.")
    variants: list[str]
    baseline: str
    axes: list[AxisEntry]
    seeds: list[int]
    attempts: int = Field(description="How often a run is made at most.")
    runs: list[RunEntry]


def new_record(plan: SweepPlan) -> SweepRecord:
    """Return the record of a sweep that has not begun."""
    return SweepRecord(
        name=plan.name,
        file=str(plan.file),
        variants=list(plan.variants),
        baseline=plan.baseline,
        axes=[
            AxisEntry(
                name=axis.name,
                labels=[point.label for point in axis.points],
                numbers=[point.number for point in axis.points],
            )
            for axis in plan.axes
        ],
        seeds=list(plan.seeds),
        attempts=plan.attempts,
        runs=[
            RunEntry(
                name=run.name,
                variant=run.variant,
                point=dict(run.point),
                seed=run.seed,
                digest=run.digest,
            )
            for run in plan.runs
        ],
    )


def read_record(folder: Path) -> SweepRecord:
    """Read a sweep's record.

    Raises:
        FadelabError: USAGE, if there is none or it is damaged.

    """
    path = folder / FILE_NAME
    try:
        return SweepRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path), SweepRecord)) from None


class SweepFolder:
    """A sweep's folder: where its files are, and its record, which is never half written."""

    def __init__(self, path: Path, record: SweepRecord) -> None:
        self.path = path
        self._head = record
        self._entries = {entry.name: entry for entry in record.runs}

    @property
    def entries(self) -> Sequence[RunEntry]:
        """The runs' entries, in the plan's order."""
        return list(self._entries.values())

    def entry(self, name: str) -> RunEntry:
        """Return one run's entry."""
        return self._entries[name]

    def update(self, name: str, **changes: object) -> RunEntry:
        """Change one run's entry and write the record."""
        entry = RunEntry.model_validate(self._entries[name].model_dump() | changes)
        self._entries[name] = entry
        self.write()
        return entry

    def write(self) -> None:
        """Write ``sweep.json`` anew, in one step."""
        record = self._head.model_copy(update={"runs": list(self._entries.values())})
        part = self.path / f".{FILE_NAME}.part"
        part.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(self.path / FILE_NAME)

    def run_dir(self, name: str) -> Path:
        """Return a run's folder."""
        return run_dir(self.path, name)

    def experiment(self, name: str) -> Path:
        """Return the file of a run's resolved experiment."""
        return self.path / "experiments" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        """Return the file of what a run's command says."""
        return self.path / "logs" / f"{name}.txt"

    def set_aside(self, name: str) -> None:
        """Move what is in a run's folder away; nothing that was measured is deleted."""
        if not self.run_dir(name).exists():
            return
        parent = self.path / "set-aside"
        parent.mkdir(exist_ok=True)
        number = 1
        while (place := parent / f"{name}-{number}").exists():
            number += 1
        self.run_dir(name).rename(place)


def run_dir(sweep: Path, name: str) -> Path:
    """Return the folder of one of a sweep's runs."""
    return sweep / "runs" / name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a sweep's folder for oneself.

    Raises:
        FadelabError: USAGE, if another command works in it.

    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FadelabError(
                ExitCode.USAGE, f"another `fadelab sweep` is at work in {folder}"
            ) from None
        yield
    finally:
        os.close(descriptor)
