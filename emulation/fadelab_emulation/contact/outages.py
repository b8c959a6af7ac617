"""Times at which links are closed whatever the contact model says."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from fadelab_emulation.contact.base import SAME_INSTANT_S, ContactState
from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_proto.config import StrictModel

_Instant = Annotated[float, Field(ge=0)]
_Device = Annotated[int, Field(ge=0)]


class OutageConfig(StrictModel):
    """Outages of some or all links, on top of what the contact model does."""

    windows_s: list[tuple[_Instant, _Instant]] = Field(
        min_length=1,
        description="Start and end of each outage in emulated seconds, in any order.",
    )
    devices: list[_Device] | None = Field(
        default=None, min_length=1, description="Whose links; left out: everybody's."
    )
    announced: bool = Field(
        default=False,
        description="Whether devices know the starts beforehand, so that predictions of their "
        "remaining contact end there.",
    )

    @model_validator(mode="after")
    def _ends_follow_starts(self) -> Self:
        for start_s, end_s in self.windows_s:
            if end_s <= start_s:
                raise ValueError(
                    f"an outage must end after its start, but [{start_s:g}, {end_s:g}] does not"
                )
        return self


def check_outages(outages: Sequence[OutageConfig], tick_s: float) -> None:
    """Raise ValueError where one link has two outages at a time or one would not be seen."""
    entries = [(window, outage) for outage in outages for window in outage.windows_s]
    for (start_s, end_s), _ in entries:
        if end_s - start_s < tick_s - SAME_INSTANT_S:
            raise ValueError(
                f"the outage [{start_s:g}, {end_s:g}] is shorter than the tick of {tick_s:g} s"
            )
    named = {device for outage in outages for device in outage.devices or ()}
    # -1 stands for the links that no entry names.
    for device in sorted(named | {-1}):
        windows = sorted(
            window
            for window, outage in entries
            if outage.devices is None or device in outage.devices
        )
        for one, other in pairwise(windows):
            if other[0] < one[1]:
                raise ValueError(
                    f"the outages [{one[0]:g}, {one[1]:g}] and [{other[0]:g}, {other[1]:g}] "
                    f"overlap{'' if device < 0 else f' for device {device}'}"
                )


class Outages:
    """Closes links from the first tick that begins in an outage to the last that does."""

    def __init__(self, outages: Sequence[OutageConfig], devices: int) -> None:
        """Lay out the outages; ValueError for a device that the experiment does not have."""
        entries = [(window, outage) for outage in outages for window in outage.windows_s]
        self._starts_s = np.array([window[0] for window, _ in entries])
        self._ends_s = np.array([window[1] for window, _ in entries])
        self._announced = np.array([outage.announced for _, outage in entries], dtype=np.bool_)
        self._concerns = np.array(
            [_mask(outage.devices, devices) for _, outage in entries], dtype=np.bool_
        ).reshape(len(entries), devices)
        self._changes_s = np.unique(np.concatenate([self._starts_s, self._ends_s]))
        self._passed = -1  # how many of the changes lie behind
        self._allowed: BoolArray = np.ones(devices, dtype=np.bool_)
        self._next_s: FloatArray | None = None

    def apply(self, t_s: float, contact: ContactState) -> ContactState:
        """Return the state at ``t_s`` with the outages' links closed."""
        if not self._changes_s.size:
            return contact
        now_s = t_s + SAME_INSTANT_S
        passed = int(np.searchsorted(self._changes_s, now_s, side="right"))
        if passed != self._passed:
            self._passed = passed
            self._change(now_s)
        contact = contact.only(self._allowed)
        if self._next_s is None:
            return contact
        return replace(contact, announced_s=np.maximum(self._next_s - t_s, 0.0))

    def _change(self, now_s: float) -> None:
        """Work out what holds until the next start or end of an outage."""
        going_on = (self._starts_s <= now_s) & (now_s < self._ends_s)
        self._allowed = ~np.any(self._concerns[going_on], axis=0)
        known = self._announced & (self._starts_s > now_s)
        self._next_s = None
        if known.any():
            starts_s = np.where(self._concerns[known], self._starts_s[known, None], np.inf)
            self._next_s = starts_s.min(axis=0)


def _mask(named: Sequence[int] | None, devices: int) -> BoolArray:
    mask = np.full(devices, named is None)
    for device in named or ():
        if device >= devices:
            raise ValueError(
                f"an outage concerns device {device}, but there are only {devices} devices, "
                "numbered from 0"
            )
        mask[device] = True
    return mask
