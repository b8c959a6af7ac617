"""One task on the server: its versions, its aggregation rule and what each device contributed."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Part, Segment
from fadelab_proto.joining import JoinedUpdate, stand_in
from fadelab_proto.runs import NO_RUNS, Runs
from fadelab_proto.substitutes import LastStep, ModulusOf, SubstituteConfig
from fadelab_server.aggregation import AggregationRule, Contribution, Roster, SpFl
from fadelab_server.aggregation.sp_fl import Allotment, Chances
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.checkpoint import Arrays, CheckpointError
from fadelab_server.class_arrival import joined_classes
from fadelab_server.config import TaskSpec
from fadelab_server.journal.records import Allotted
from fadelab_server.model_steps import ModelSteps
from fadelab_server.model_store import ModelStore, Version

F32 = NDArray[np.float32]
_LARGEST = 1e25
"""No entry of an update is beyond it, so that sums over very many samples stay finite."""

_IN_PLACE_BYTES = 512 << 10
"""An update of this size takes the event loop some milliseconds at most."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of an update."""

    staleness_versions: int
    staleness_s: float
    published: Version | None


@dataclass(frozen=True, slots=True)
class _Counting:
    """What counts of an update."""

    segments: Iterable[Segment]
    missing: Runs = field(default_factory=lambda: NO_RUNS)
    substituted: Runs = field(default_factory=lambda: NO_RUNS)
    unused_signs: int = 0

    @classmethod
    def of(cls, joined: JoinedUpdate) -> "_Counting":
        _check_size((joined.largest,))
        return cls(joined, joined.missing, joined.substituted, joined.unused_signs)


class ContributionRefusedError(Exception):
    """An update cannot be taken; the message says why."""


class UpdateDiscardedError(ContributionRefusedError):
    """An update that was closed early is not taken in part."""


class TaskState:
    """Everything the server knows about one task."""

    def __init__(
        self,
        spec: TaskSpec,
        rule: AggregationRule,
        store: ModelStore,
        *,
        roster: Roster,
        substitute: SubstituteConfig | None = None,
        steps: ModelSteps | None = None,
    ) -> None:
        self.spec = spec
        self.rule = rule
        self.store = store
        self.steps = steps
        """Makes every version out of the one before by a coded step; None if versions are free."""
        self.roster = roster
        self._substitute = substitute
        self.updates = 0
        self.last_update: dict[int, int] = {}
        """By device, the number of its last update that was taken."""
        self.taken_in_part: dict[int, list[pb.PacketRange]] = {}
        """By device, the packets of its last update that count, if it was taken in part."""
        self.last_staleness: dict[int, int] = {}
        self.largest_staleness = 0
        """Of all updates that were taken."""
        self.bound: float | None = None
        """Convergence bound after the last aggregation, where a scheduler computes it."""
        self.updates_by_device: dict[int, int] = {}
        self.fetched: dict[int, Version] = {}
        """By device, the version that it downloaded last: its next update builds upon it."""

    def refuse(self, *, device: int, base_version: int) -> str | None:
        """Return why an update from ``base_version`` would not be taken, or None."""
        return self.rule.refuse(
            device=device, base_version=base_version, newest=self.store.newest.number
        )

    def combine(self, assembly: UpdateAssembly, read: Callable[[int, int], bytes]) -> F32 | None:
        """Hand an update to the aggregation rule; return the next global vector if there is one.

        This is the work, and nobody else may touch the task while it is done.

        Args:
            assembly: the update.
            read: reads packets back from the journal.

        Raises:
            CodecError: if a packet cannot be decoded; nothing has changed.
            ContributionRefusedError: if the update leads to a model that is not finite; likewise.

        """
        counting = self._counting(assembly, read)
        return self.rule.add(
            Contribution(
                device=assembly.device,
                base=assembly.base.vector,
                segments=counting.segments,
                base_version=assembly.base.number,
                staleness=self.store.newest.number - assembly.base.number,
                samples=assembly.header.samples,
                missing=counting.missing,
                substituted=counting.substituted,
                unused_signs=counting.unused_signs,
                fresh_reference=assembly.header.fresh_reference,
            ),
            newest=self.store.newest.vector,
            roster=self.roster,
        )

    async def combine_aside(
        self, assembly: UpdateAssembly, read: Callable[[int, int], bytes]
    ) -> F32 | None:
        """Do as :meth:`combine`, away from the event loop if it takes long.

        Small updates are combined in place: every array operation of another thread waits for the
        loop to let go of the interpreter and then the loop for it, which takes longer than they do.
        """
        model_bytes = 0 if self.rule.incremental else 4 * self.spec.dimension
        small = assembly.header.payload_bytes + model_bytes <= _IN_PLACE_BYTES
        if small and assembly.in_memory:
            return self.combine(assembly, read)
        return await asyncio.to_thread(self.combine, assembly, read)

    def _counting(self, assembly: UpdateAssembly, read: Callable[[int, int], bytes]) -> "_Counting":
        """Return what counts of an update, and the coordinates of which it says nothing."""
        if isinstance(self.rule, SpFl):
            return _Counting.of(
                joined_classes(self.rule, assembly, partial(assembly.packets, read))
            )
        if assembly.complete and not assembly.in_parts:
            segments = assembly.segments(read)
            if any(segment.part is not Part.VALUES for segment in segments):
                raise ContributionRefusedError("signs or moduli came in packets of entries")
            _check_size(segment.magnitude_bound() for segment in segments)
            return _Counting(segments)
        joined = JoinedUpdate(
            partial(assembly.packets, read),
            self.spec.dimension,
            stand_in(self._substitute, self._last_step()),
        )
        return _Counting.of(joined)

    def _last_step(self) -> ModulusOf | None:
        """Return how far each coordinate of the model moved last; None if it never moved."""
        newest, before = self.store.newest.vector, self._before_newest()
        if before is None:
            return None
        earlier = before.vector
        return lambda first, last: np.abs(newest[first:last] - earlier[first:last])

    def _before_newest(self) -> Version | None:
        number = self.store.newest.number - 1
        return next((own for own in self.store.held() if own.number == number), None)

    def commit(self, assembly: UpdateAssembly, vector: F32 | None, now_s: float) -> Applied:
        """Book an update that was combined, and make the vector the newest version."""
        staleness = self.store.newest.number - assembly.base.number
        device = assembly.device
        self.updates += 1
        self.last_update[device] = assembly.header.update_id
        self.last_staleness[device] = staleness
        self.largest_staleness = max(self.largest_staleness, staleness)
        self.taken_in_part.pop(device, None)
        if not assembly.complete:
            self.taken_in_part[device] = assembly.received.messages()
        self.updates_by_device[device] = self.updates_by_device.get(device, 0) + 1
        published = None if vector is None else self._publish(vector, now_s)
        return Applied(staleness, now_s - assembly.base.published_mono_s, published)

    def allot(self, allotted: Allotted) -> None:
        """Open a round in which these devices send."""
        if isinstance(self.rule, SpFl):
            chances = {
                device: Chances(sign, modulus)
                for device, sign, modulus in zip(
                    allotted.devices, allotted.sign, allotted.modulus, strict=True
                )
            }
            self.rule.allot(Allotment(allotted.version, chances))

    def end_round(self, now_s: float) -> Version | None:
        """End a round whose time is over; return what it made. Other rules have no such thing."""
        if not isinstance(self.rule, SpFl):
            return None
        return self._publish(self.rule.end_round(newest=self.store.newest.vector), now_s)

    def set_roster(self, roster: Roster, now_s: float) -> Version | None:
        """Tell the rule which devices are in the run; return the version that ends a round."""
        self.roster = roster
        vector = self.rule.roster_changed(newest=self.store.newest.vector, roster=roster)
        return None if vector is None else self._publish(vector, now_s)

    def _publish(self, vector: F32, now_s: float) -> Version:
        if self.steps is None:
            return self.store.publish(vector, now_s)
        return self.steps.publish(vector, self.store, now_s)

    def needed_versions(self, bases: Iterable[Version]) -> list[Version]:
        """Return, oldest first, the newest version, ``bases``, and what devices build upon."""
        needed = {own.number: own for own in (*bases, *self.fetched.values(), self.store.newest)}
        before = self._before_newest() if isinstance(self._substitute, LastStep) else None
        if before is not None:
            needed[before.number] = before
        return [needed[number] for number in sorted(needed)]

    def snapshot(self, bases: Iterable[Version]) -> tuple[dict[str, object], Arrays]:
        """Return the state with the versions that are needed; arrays are copies or immutable."""
        versions = self.needed_versions(bases)
        meta: dict[str, object] = {
            "name": self.spec.name,
            "dimension": self.spec.dimension,
            "layout_hash": self.spec.layout_hash,
            "rule": type(self.rule).__name__,
            "versions": [version.number for version in versions],
            "published_mono_s": [version.published_mono_s for version in versions],
            "updates": self.updates,
            "roster": sorted(self.roster),
            "last_update": {str(device): number for device, number in self.last_update.items()},
            "taken_in_part": {
                str(device): [[run.first, run.last] for run in runs]
                for device, runs in self.taken_in_part.items()
            },
        }
        arrays: Arrays = {f"vector.{version.number}": version.vector for version in versions}
        arrays.update({f"pending.{name}": array for name, array in self.rule.pending().items()})
        if self.steps is not None:
            arrays["residual"] = self.steps.residual
        return meta, arrays

    def restore(self, meta: dict[str, object], arrays: Arrays) -> None:
        """Continue from a snapshot.

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
        self.store = ModelStore(self._versions(meta, arrays), self.store.history_bytes)
        self.updates = _number(meta["updates"])
        roster, last_update = meta["roster"], meta["last_update"]
        if not isinstance(roster, list) or not isinstance(last_update, dict):
            raise CheckpointError("the checkpoint does not say which devices were in the run")
        self.roster = frozenset(_number(device) for device in roster)
        self.last_update = {int(device): _number(last) for device, last in last_update.items()}
        self.taken_in_part = _ranges(meta["taken_in_part"])
        pending = {
            name.removeprefix("pending."): array
            for name, array in arrays.items()
            if name.startswith("pending.")
        }
        if pending:
            self.rule.restore(pending)
        if ("residual" in arrays) != (self.steps is not None):
            raise CheckpointError(
                "the checkpoint is of another kind of downlink than the experiment"
            )
        if self.steps is not None:
            self.steps.restore(arrays["residual"].astype(np.float32))

    def _versions(self, meta: dict[str, object], arrays: Arrays) -> list[Version]:
        numbers, times = meta["versions"], meta["published_mono_s"]
        if not isinstance(numbers, list) or not isinstance(times, list) or not numbers:
            raise CheckpointError("the checkpoint does not say which versions it holds")
        versions = []
        for number, published_s in zip(numbers, times, strict=True):
            vector = arrays[f"vector.{_number(number)}"].astype(np.float32)
            if vector.shape != (self.spec.dimension,):
                raise CheckpointError(
                    f"the checkpoint's vector has shape {vector.shape}, "
                    f"not ({self.spec.dimension},)"
                )
            versions.append(Version(number, vector, float(published_s)))
        return versions


def _check_size(largest: Iterable[float]) -> None:
    # One such update, from training that diverged, would spoil the global model for good.
    if any(magnitude > _LARGEST for magnitude in largest):
        raise ContributionRefusedError(
            f"the update has entries beyond {_LARGEST:g}: it leads to a model that is not finite"
        )


def _ranges(value: object) -> dict[int, list[pb.PacketRange]]:
    if not isinstance(value, dict):
        raise CheckpointError("the checkpoint does not say which updates were taken in part")
    return {
        int(device): [pb.PacketRange(first=first, last=last) for first, last in runs]
        for device, runs in value.items()
    }


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise CheckpointError(f"the checkpoint holds {value!r} where a number belongs")
    return value
