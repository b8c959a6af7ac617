"""One node's part of a run's record, as it was copied from the node."""

import json
from dataclasses import dataclass
from pathlib import Path

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_emulation.achieved import Achieved, read_achieved
from fadelab_proto.events import Value, read_events

Event = dict[str, Value]
EMULATOR = "emulator-0.jsonl"
SERVER = "server-0.jsonl"


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a node's emulator wrote, by the clock of the server's machine."""

    folder: Path
    name: str
    clock_offset_s: float
    """What has been added to the node's monotonic seconds."""
    events: list[Event]
    achieved: Achieved
    schedule: bytes

    @classmethod
    def load(cls, folder: Path, run_id: str, time_scale: float) -> "NodeRecord":
        """Read a copy of a node's /out.

        Raises:
            FadelabError: USAGE, if it is none, of another run, or damaged.

        """
        try:
            facts = json.loads((folder / "emulation.json").read_text())
            name, found = str(facts["node"]), str(facts["run_id"])
            events = read_events(folder / "events" / EMULATOR)
            achieved = read_achieved(folder / "links.achieved")
            schedule = (folder / "links.schedule").read_bytes()
        except OSError as error:
            raise FadelabError(
                ExitCode.USAGE,
                f"{folder} is no copy of a node's /out: {error.filename}: {error.strerror}",
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise FadelabError(ExitCode.USAGE, f"{folder} is damaged: {error}") from None
        if found != run_id:
            raise FadelabError(
                ExitCode.USAGE, f"{folder} is of the run {found}, this testbed's is {run_id}"
            )
        offset_s = next(
            (number(one["offset_s"]) for one in events if one["event"] == "clock_offset"), 0.0
        )
        moved = Achieved(achieved.tick, achieved.mono_s + offset_s * time_scale, achieved.rows)
        shifted = [_shifted(one, name, offset_s * time_scale) for one in events]
        return cls(folder, name, offset_s, shifted, moved, schedule)

    def devices(self) -> list[int]:
        """Return the devices whose links were given to agents here, in the order of that."""
        given = [int(number(one["device"])) for one in self.events if one["event"] == "link_given"]
        return list(dict.fromkeys(given))

    def given_at_s(self, device: int) -> float:
        """Return when a device's link was given here for the last time."""
        return max(
            number(one["mono_s"])
            for one in self.events
            if one["event"] == "link_given" and one["device"] == device
        )


def number(value: Value) -> float:
    """Return a numeric field; 0 if it is none."""
    return float(value) if isinstance(value, int | float) else 0.0


def _shifted(event: Event, node: str, offset_s: float) -> Event:
    moved: Event = {
        key: round(number(value) + offset_s, 6)
        if key.endswith("mono_s") and value is not None
        else value
        for key, value in event.items()
    }
    return moved | {"node": node}
