"""What a device has learned from its contacts so far, and keeps across restarts of its agent."""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from fadelab_agent.spool import Owner
from fadelab_proto.config import StrictModel
from fadelab_proto.durable import replace_file

_NEW_SHARE = 0.25
"""Weight of the latest value in running means."""


class ContactHistory(StrictModel, frozen=False):
    """Figures of one task on one device; times in emulated seconds."""

    run_id: int
    device: int
    task: str
    dimension: int
    queue_j: float = Field(0.0, ge=0)
    """Energy spent beyond the allowance."""
    chunks: int = Field(0, ge=0)
    """Trainings so far: each draws batches of its own."""
    contacts: int = Field(0, ge=0)
    mean_contact_s: float = Field(0.0, ge=0)
    """Of the contacts that were predicted when they began."""
    first_squared_norm: float = Field(0.0, ge=0)
    """Of what waited at the first contact."""
    staleness: float | None = None
    """Versions that the model was behind when a new one came; running mean."""
    versions_per_s: float = Field(0.0, ge=0)
    setup_s: float = Field(0.2, ge=0)
    """From a decision to the first byte; running mean, as are the next two."""
    acknowledgement_s: float = Field(0.1, ge=0)
    """What uploads took beyond the time that their bits explain."""
    download_bytes: float | None = None
    """Payload of downloads."""

    @classmethod
    def of(cls, owner: Owner, queue_j: float) -> "ContactHistory":
        """Return that of a device without past."""
        return cls(
            run_id=owner.run_id,
            device=owner.device,
            task=owner.task,
            dimension=owner.dimension,
            queue_j=queue_j,
        )

    def began(self, predicted_s: float, squared_norm: float) -> None:
        """Note a contact, what was predicted of it, and what waited."""
        self.contacts += 1
        self.mean_contact_s += (predicted_s - self.mean_contact_s) / self.contacts
        if self.first_squared_norm == 0:
            self.first_squared_norm = squared_norm

    def prepared(self, took_s: float) -> None:
        """Note the time from a decision to the first byte."""
        self.setup_s = _mean(self.setup_s, took_s)

    def acknowledged(self, airtime_s: float, explained_s: float) -> None:
        """Note what an upload took and what its bits explain of that."""
        self.acknowledgement_s = _mean(self.acknowledgement_s, max(0.0, airtime_s - explained_s))

    def renewed(self, versions: int, age_s: float, payload_bytes: int) -> None:
        """Note a new model: versions ahead of the one before, which was so old by then."""
        self.staleness = (
            float(versions) if self.staleness is None else _mean(self.staleness, versions)
        )
        if age_s > 0:
            rate = versions / age_s
            known = self.versions_per_s > 0
            self.versions_per_s = _mean(self.versions_per_s, rate) if known else rate
        self.arrived(payload_bytes)

    def arrived(self, payload_bytes: int) -> None:
        """Note the size of a download."""
        before = self.download_bytes
        self.download_bytes = (
            float(payload_bytes) if before is None else _mean(before, payload_bytes)
        )


class HistoryFile:
    """Where a device's history is kept; nowhere if there is no path.

    Args:
        path: of a JSON file.
        owner: whose history it is; another one's is not used.
        sync: whether it shall survive a crash of the machine too.

    """

    def __init__(self, path: Path | None, owner: Owner, *, sync: bool) -> None:
        self._path = path
        self._owner = owner
        self._sync = sync

    def read(self, queue_j: float, report: Callable[[str], None]) -> ContactHistory:
        """Return what is kept, or a new history that owes ``queue_j``.

        Args:
            queue_j: energy owed at the beginning, in joules.
            report: told why what is kept cannot be used.

        """
        fresh = ContactHistory.of(self._owner, queue_j)
        if self._path is None:
            return fresh
        try:
            kept = ContactHistory.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return fresh
        except (OSError, ValidationError) as error:
            report(f"{self._path} cannot be used: {error}")
            return fresh
        keys = ("run_id", "device", "task", "dimension")
        if any(getattr(kept, key) != getattr(fresh, key) for key in keys):
            report(f"{self._path} is of another run, device or task")
            return fresh
        return kept

    def write(self, history: ContactHistory) -> str | None:
        """Replace what is kept; return why that failed, or None."""
        if self._path is None:
            return None
        data = history.model_dump_json().encode()
        try:
            replace_file(self._path, lambda file: file.write(data), sync=self._sync)
        except OSError as error:
            return f"cannot write {self._path}: {error.strerror}"
        return None


def _mean(before: float, latest: float) -> float:
    return before + _NEW_SHARE * (latest - before)
