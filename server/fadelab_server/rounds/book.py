"""The rounds whose powers a server decides: what the present one was given, what all have cost.

It follows from what the journal says, grants and arrivals in their order, so that a server which
was killed knows what its predecessor knew.
"""

from collections.abc import Mapping
from typing import cast

from fadelab_server.journal.records import Granted
from fadelab_server.rounds.config import BudgetConfig
from fadelab_server.rounds.spending import RoundCost, Spending

_Arrival = tuple[int, float]


class RoundBook:
    """The present round, and the sums over those before it.

    Args:
        budget: what they are held against.

    """

    def __init__(self, budget: BudgetConfig) -> None:
        self.spending = Spending(budget)
        self.present: Granted | None = None
        """What the round under way was given last; None while none is decided."""
        self.arrived: set[int] = set()
        """Devices whose updates of the present round have arrived."""
        self._cost: RoundCost | None = None
        self._entries: list[Granted | _Arrival] = []
        """Of the present round, in their order."""

    def granted(self, granted: Granted) -> None:
        """Take what a round's devices are given, for the first time or anew."""
        self.ended(granted.version)
        if self._cost is None:
            self._cost = RoundCost(
                planned_s=granted.planned_s,
                planned_j=granted.planned_j,
                compute_s=granted.compute_s,
                compute_j=granted.compute_j,
            )
        self.present = granted
        self._entries.append(granted)
        powers_w = zip(granted.devices, granted.power_w, strict=True)
        self._cost.powers_changed({own: power for own, power in powers_w if power}, granted.now_s)

    def uploaded(self, device: int, arrived_s: float) -> tuple[float, float]:
        """Return how long a device has sent until its last packet came, and its energy in joules.

        Both are 0 for a device that was not to send in the present round.
        """
        if self.present is None or self._cost is None or device not in self.present.devices:
            return 0.0, 0.0
        self.arrived.add(device)
        self._entries.append((device, arrived_s))
        return self._cost.uploaded(device, arrived_s)

    def ended(self, newest: int) -> RoundCost | None:
        """Book the present round if it has made a version; return its cost then.

        Args:
            newest: number of the newest version.

        """
        if self.present is None or self._cost is None or self.present.version >= newest:
            return None
        cost = self._cost
        self.spending.add(cost)
        self.present = self._cost = None
        self.arrived, self._entries = set(), []
        return cost

    def snapshot(self) -> dict[str, object]:
        """Return all that there is to know, for :meth:`restore`."""
        return {
            "spent": self.spending.sums,
            "present": [
                {name: getattr(entry, name) for name in entry.__slots__}
                if isinstance(entry, Granted)
                else entry
                for entry in self._entries
            ],
        }

    def restore(self, snapshot: object) -> None:
        """Continue from a snapshot; one that knows of no rounds changes nothing.

        Raises:
            ValueError: if it is none.

        """
        if snapshot is None:
            return
        try:
            known = cast("Mapping[str, list[object]]", snapshot)
            self.spending.sums = tuple(cast("list[float]", known["spent"]))
            for entry in known["present"]:
                if isinstance(entry, dict):
                    self.granted(Granted(**entry))
                else:
                    self.uploaded(*cast("_Arrival", entry))
        except (KeyError, TypeError) as error:
            raise ValueError(f"what it says of rounds is wrong: {error}") from error
