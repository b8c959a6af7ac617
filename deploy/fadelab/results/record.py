"""A finished run's raw record: events of every process and the recorded timeline."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.mistakes import describe
from fadelab_emulation.achieved import Achieved, read_achieved
from fadelab_emulation.schedule import ScheduleReader
from fadelab_proto.events import Value, read_events

Event = dict[str, Value]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run directory holds, read back."""

    manifest: dict[str, object]
    experiment: Experiment
    command_mono_s: float
    """When the command was given."""
    events: dict[tuple[str, str], list[Event]]
    """By role and event name, in order for each process."""
    schedule: ScheduleReader | None
    """None if the run ended before its first tick."""
    achieved: Achieved | None
    """What links did, tick by tick; None if nothing was recorded of it."""

    @classmethod
    def load(cls, run_dir: Path) -> "RunRecord":
        """Read a run directory.

        Raises:
            FadelabError: USAGE, if it is none or is damaged.

        """
        try:
            manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise FadelabError(
                ExitCode.USAGE,
                f"{run_dir} is not a run directory: its manifest.json cannot be read "
                f"({error.strerror})",
            ) from None
        except ValueError as error:
            raise FadelabError(
                ExitCode.USAGE, f"{run_dir}/manifest.json is damaged: {error}"
            ) from None
        try:
            return cls._read(run_dir, manifest)
        except ValidationError as error:
            sentences = describe(error, f"{run_dir}/manifest.json, experiment", Experiment)
            raise FadelabError(ExitCode.USAGE, sentences) from None
        except (KeyError, TypeError) as error:
            raise FadelabError(
                ExitCode.USAGE, f"{run_dir} is damaged: a field is missing or wrong ({error})"
            ) from None
        except ValueError as error:
            raise FadelabError(ExitCode.USAGE, f"{run_dir} is damaged: {error}") from None

    @classmethod
    def _read(cls, run_dir: Path, manifest: dict[str, object]) -> "RunRecord":
        experiment = Experiment.model_validate(manifest["experiment"])
        command_mono_s = float(str(manifest["command_mono_s"]))
        events: dict[tuple[str, str], list[Event]] = defaultdict(list)
        for path in sorted((run_dir / "events").glob("*.jsonl")):
            for event in read_events(path):
                events[str(event["role"]), str(event["event"])].append(event)
        schedule_path = run_dir / "links.schedule"
        schedule = ScheduleReader(schedule_path) if schedule_path.exists() else None
        if schedule is not None and schedule.ticks == 0:
            schedule = None
        achieved_path = run_dir / "links.achieved"
        achieved = read_achieved(achieved_path) if achieved_path.exists() else None
        return cls(manifest, experiment, command_mono_s, dict(events), schedule, achieved)

    def of(self, role: str, name: str) -> list[Event]:
        """Return the events of that name that processes of that role wrote."""
        return self.events.get((role, name), [])

    def last(self, role: str, name: str) -> Event | None:
        """Return the last such event."""
        found = self.of(role, name)
        return found[-1] if found else None

    @property
    def real_links(self) -> list[int]:
        """Devices whose links nobody shapes or counts: boards on a real network."""
        found = self.manifest.get("real_links", [])
        return [int(str(device)) for device in found] if isinstance(found, list) else []

    def readings(self) -> dict[int, Achieved]:
        """Return each link's readings by its device's number; none of links without any."""
        if self.achieved is None or not len(self.achieved.rows):
            return {}
        device = self.achieved.rows["device"]
        order = np.argsort(device, kind="stable")
        names, starts = np.unique(device[order], return_index=True)
        return {
            int(name): Achieved(
                self.achieved.tick[rows], self.achieved.mono_s[rows], self.achieved.rows[rows]
            )
            for name, rows in zip(names, np.split(order, starts[1:]), strict=True)
        }

    def since_command_s(self, event: Event) -> float:
        """Return the wall seconds from the command to an event.

        Processes of a run log by the emulation's clock, which may be faster than the wall's.
        """
        return number(event, "mono_s") / self.experiment.radio.time_scale - self.command_mono_s

    @property
    def start_mono_s(self) -> float | None:
        """Monotonic second at which emulated time was 0; None if it never began."""
        event = self.last("server", "run_started")
        return None if event is None else number(event, "start_mono_s")

    @property
    def duration_s(self) -> float:
        """Emulated seconds from the start to the end of the run."""
        end = self.last("server", "run_stopped")
        if end is None or self.start_mono_s is None:
            return 0.0
        return max(0.0, number(end, "mono_s") - self.start_mono_s)


def number(event: Event, key: str) -> float:
    """Return a numeric field; 0 if it is null."""
    value = event.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def by_device(events: list[Event], devices: int) -> Iterator[tuple[int, list[Event]]]:
    """Yield each device's number and its events, by the field ``device``."""
    sorted_out: list[list[Event]] = [[] for _ in range(devices)]
    for event in events:
        sorted_out[int(number(event, "device"))].append(event)
    yield from enumerate(sorted_out)
