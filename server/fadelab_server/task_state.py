"""One task on the server: its versions, its aggregation rule and what each device contributed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab_server.aggregation import AggregationRule, Contribution, Roster
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.checkpoint import Arrays, CheckpointError
from fadelab_server.config import TaskSpec
from fadelab_server.model_store import ModelStore, Version

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a complete update."""

    staleness_versions: int
    staleness_s: float
    published: Version | None


class ContributionRefusedError(Exception):
    """A complete update cannot be taken; the message says why."""


class TaskState:
    """Everything the server knows about one task."""

    def __init__(
        self, spec: TaskSpec, rule: AggregationRule, store: ModelStore, *, roster: Roster
    ) -> None:
        self.spec = spec
        self.rule = rule
        self.store = store
        self.roster = roster
        self.updates = 0
        self.last_update: dict[int, int] = {}
        """By device, the number of its last update that was taken."""
        self.last_staleness: dict[int, int] = {}
        self.updates_by_device: dict[int, int] = {}

    def refuse(self, *, device: int, base_version: int) -> str | None:
        """Return why an update from ``base_version`` would not be taken, or None."""
        return self.rule.refuse(
            device=device, base_version=base_version, newest=self.store.newest.number
        )

    def apply(self, assembly: UpdateAssembly, base: Version, now_s: float) -> Applied:
        """Hand a complete update to the aggregation rule; publish what it returns.

        Raises:
            ContributionRefusedError: if the device's model is not finite; nothing has changed.

        """
        newest = self.store.newest
        delta = assembly.vector()
        # One such model, from training that diverged, would spoil the global model for good.
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(base.vector + delta).all():
                raise ContributionRefusedError("the update leads to a model that is not finite")
        staleness = newest.number - base.number
        device = assembly.device
        vector = self.rule.add(
            Contribution(
                device=device,
                base=base.vector,
                delta=delta,
                base_version=base.number,
                staleness=staleness,
                samples=assembly.header.samples,
            ),
            newest=newest.vector,
            roster=self.roster,
        )
        self.updates += 1
        self.last_update[device] = assembly.header.update_id
        self.last_staleness[device] = staleness
        self.updates_by_device[device] = self.updates_by_device.get(device, 0) + 1
        published = None if vector is None else self.store.publish(vector, now_s)
        return Applied(staleness, now_s - base.published_mono_s, published)

    def set_roster(self, roster: Roster, now_s: float) -> Version | None:
        """Tell the rule which devices are in the run; publish if a round ends thereby."""
        self.roster = roster
        newest = self.store.newest
        vector = self.rule.roster_changed(newest=newest.vector, roster=roster)
        return None if vector is None else self.store.publish(vector, now_s)

    def snapshot(self) -> tuple[dict[str, object], Arrays]:
        """Return the state for a checkpoint; arrays are copies or immutable."""
        newest = self.store.newest
        meta: dict[str, object] = {
            "name": self.spec.name,
            "dimension": self.spec.dimension,
            "layout_hash": self.spec.layout_hash,
            "rule": type(self.rule).__name__,
            "version": newest.number,
            "updates": self.updates,
            "roster": sorted(self.roster),
            "last_update": {str(device): number for device, number in self.last_update.items()},
        }
        arrays: Arrays = {"vector": newest.vector}
        arrays.update({f"pending.{name}": array for name, array in self.rule.pending().items()})
        return meta, arrays

    def restore(self, meta: dict[str, object], arrays: Arrays, now_s: float) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: if it is of another task, model or aggregation rule.

        """
        expected = {
            "name": self.spec.name,
            "dimension": self.spec.dimension,
            "layout_hash": self.spec.layout_hash,
            "rule": type(self.rule).__name__,
        }
        for key, value in expected.items():
            if meta.get(key) != value:
                raise CheckpointError(
                    f"the checkpoint's {key} is {meta.get(key)}, the experiment's is {value}"
                )
        vector = arrays["vector"].astype(np.float32)
        if vector.shape != (self.spec.dimension,):
            raise CheckpointError(
                f"the checkpoint's vector has shape {vector.shape}, not ({self.spec.dimension},)"
            )
        version = Version(_number(meta["version"]), vector, now_s)
        self.store = ModelStore(version, self.store.history_bytes)
        self.updates = _number(meta["updates"])
        roster, last_update = meta["roster"], meta["last_update"]
        if not isinstance(roster, list) or not isinstance(last_update, dict):
            raise CheckpointError("the checkpoint does not say which devices were in the run")
        self.roster = frozenset(_number(device) for device in roster)
        self.last_update = {int(device): _number(last) for device, last in last_update.items()}
        pending = {
            name.removeprefix("pending."): array
            for name, array in arrays.items()
            if name.startswith("pending.")
        }
        if pending:
            self.rule.restore(pending)


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise CheckpointError(f"the checkpoint holds {value!r} where a number belongs")
    return value
