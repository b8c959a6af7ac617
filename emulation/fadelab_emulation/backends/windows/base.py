"""What every window mode offers to the kernel back-end."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fadelab_emulation.namespaces import Setting


class Passed(NamedTuple):
    """Running counts of packets of one link that nothing has held up, open or closed.

    Only their growth while the link is closed means anything: a closed link lets nothing pass.
    """

    up: int
    down: int


class Window(Protocol):
    """Opens and closes links, both directions at once; made when all of them are to be closed."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Kernel settings that this mode needed in the server's namespace."""
        ...

    def open(self, device: int) -> None:
        """Open a closed link and have waiting packets go on."""
        ...

    def close(self, device: int) -> None:
        """Close an open link."""
        ...

    def renew(self, device: int) -> None:
        """Take up a link that was made anew, closed."""
        ...

    def passed(self, devices: Sequence[int]) -> list[Passed]:
        """Return how many packets got through so far."""
        ...

    def release(self) -> None:
        """Close what was opened for this."""
        ...
