"""Links that never close."""

from typing import Literal

import numpy as np

from fadelab_emulation.contact.base import (
    CONTACT_HORIZON_S,
    ContactConfig,
    ContactState,
    Sight,
    nearest_site,
)
from fadelab_emulation.scene import Scene


class AlwaysConfig(ContactConfig):
    """Every device in contact at all times."""

    kind: Literal["always"] = "always"

    def build(self, scene: Scene) -> "Always":
        """Return the constant state."""
        return Always(scene.devices)


class Always:
    """Open links whose end is beyond the horizon."""

    def __init__(self, devices: int) -> None:
        self._is_open = np.ones(devices, dtype=np.bool_)
        self._predicted_s = np.full(devices, CONTACT_HORIZON_S)

    def update(self, sight: Sight) -> ContactState:
        """Return open links to the nearest site wherever devices are."""
        return ContactState(self._is_open, nearest_site(sight.geometry), self._predicted_s)
