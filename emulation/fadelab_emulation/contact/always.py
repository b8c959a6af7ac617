"""Links that never close."""

from typing import Literal

import numpy as np

from fadelab_emulation.contact.base import CONTACT_HORIZON_S, ContactConfig, ContactState
from fadelab_emulation.mobility.base import Motion
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
        self._state = ContactState(
            is_open=np.ones(devices, dtype=np.bool_),
            predicted_s=np.full(devices, CONTACT_HORIZON_S),
        )

    def update(self, motion: Motion) -> ContactState:
        """Return the same state wherever devices are."""
        del motion
        return self._state
