"""Recorded timelines as files: found in run directories, exported as Mahimahi traces."""

from dataclasses import dataclass
from pathlib import Path

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.timeline.link_track import LinkTrack
from fadelab_emulation.timeline.mahimahi import OPPORTUNITY_BITS, trace_of, write_mahimahi

SCHEDULE = "links.schedule"
ACHIEVED = "links.achieved"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    packets: int
    duration_s: float

    @property
    def mean_bps(self) -> float:
        """Layer-2 rate over the whole trace."""
        return self.packets * OPPORTUNITY_BITS / self.duration_s


def schedule_path(path: Path) -> Path:
    """Return the schedule of a run directory; what is no directory is a schedule itself."""
    return path / SCHEDULE if path.is_dir() else path


def make_folder(path: Path) -> None:
    """Make a folder for a recording; FadelabError (USAGE) where that cannot be."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise FadelabError(
            ExitCode.USAGE, f"{path} exists already; recordings are never overwritten"
        ) from None
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot make {path}: {error.strerror}") from None


def export_trace(recording: Path, device: int, output: Path, *, uplink: bool) -> Exported:
    """Write one direction of a recorded link as a Mahimahi trace.

    Args:
        recording: a run directory or a schedule.
        device: whose link.
        output: the file to be made.
        uplink: which direction.

    Raises:
        FadelabError: USAGE, if the recording cannot be read, has no such device or carries no
            packet, or the output exists or cannot be written.

    """
    source = schedule_path(recording)
    try:
        track = LinkTrack.of_reader(ScheduleReader(source), device, uplink=uplink)
        trace = trace_of(track)
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot read {source}: {error.strerror}") from None
    except ValueError as error:
        sentence = str(error).removeprefix(f"{source} ").removeprefix(f"{source}: ")
        raise FadelabError(ExitCode.USAGE, f"{source}: {sentence}") from None
    try:
        write_mahimahi(trace, output)
    except FileExistsError:
        raise FadelabError(
            ExitCode.USAGE, f"{output} exists already; traces are never overwritten"
        ) from None
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot write {output}: {error.strerror}") from None
    # The last opportunity marks the end, see trace_of.
    return Exported(len(trace.opportunity_ms) - 1, trace.period_ms / 1e3)
