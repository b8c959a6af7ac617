"""Words for what the links are asked to do: window semantics and back-ends."""

from enum import StrEnum


class WindowMode(StrEnum):
    """What becomes of packets while a link is closed, in both directions at once.

    Measured effects on TCP and gRPC: docs/window-modes.md.
    """

    HOLD = "hold"
    """Packets wait where they are sent and go on when the window reopens: a radio bearer that is
    suspended."""
    REJECT = "reject"
    """Whoever sends is told that the host is unreachable (ICMP type 3 code 1), from which TCP
    learns that the path is broken and not congested (RFC 6069)."""
    DROP = "drop"
    """Packets vanish on the way."""
    DOWN = "down"
    """The device's interface goes down: its routes are gone, its sockets get errors."""


class BackendChoice(StrEnum):
    """The back-ends an experiment may ask for."""

    AUTO = "auto"
    LITE = "lite"
    """Kernel shaping without netem: rate, windows, loss, packet classes; no delay."""
    NETEM = "netem"
    """Kernel shaping with netem: delay and jitter besides."""
    RELAY = "relay"
    """A relay in user space between TUN interfaces: everything, at moderate rates."""
    DRY = "dry"
    """Nothing is shaped; the timeline is recorded."""
