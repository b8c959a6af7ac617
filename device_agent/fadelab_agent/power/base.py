"""A power sensor, as the sampler sees it."""

from typing import Protocol


class PowerSensor(Protocol):
    """Whoever knows what the board draws now; a reading may take a while."""

    name: str
    """What records call it, with what it covers."""
    every_s: float
    """Seconds between readings that it is good for."""

    def read_w(self) -> float | None:
        """Return the present power; None if there is none to be had now."""
        ...
