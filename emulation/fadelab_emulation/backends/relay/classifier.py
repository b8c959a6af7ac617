"""Telling packet classes apart by DSCP or port."""

from collections.abc import Callable, Sequence

from fadelab_emulation.backends.plan import ClassMark

_DEFAULT = 0
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
_PROTOCOLS_WITH_PORTS = frozenset({6, 17})

Classifier = Callable[[bytes], int]
"""Takes an IPv4 packet, returns the number of its lane; 0 is the default class's."""


def classifier(marks: Sequence[ClassMark]) -> Classifier:
    """Return the classifier for these classes; lane ``i + 1`` is that of ``marks[i]``.

    The DSCP is asked first, for it is an explicit mark; then the ports at either end, the first
    class with one of them counts. Fragments bear no ports, or not all of them do: they belong to
    the default class unless their DSCP says otherwise.
    """
    by_dscp = {mark.dscp: lane for lane, mark in enumerate(marks, 1) if mark.dscp is not None}
    by_port = {mark.port: lane for lane, mark in enumerate(marks, 1) if mark.port is not None}
    if not marks:
        return lambda _packet: _DEFAULT

    def classify(packet: bytes) -> int:
        lane = by_dscp.get(packet[1] >> 2)
        if lane is not None:
            return lane
        lanes = [by_port[port] for port in _ports(packet) if port in by_port] if by_port else []
        return min(lanes, default=_DEFAULT)

    return classify


def _ports(packet: bytes) -> tuple[int, ...]:
    """Return the source's and the destination's port; nothing where there are none."""
    if packet[9] not in _PROTOCOLS_WITH_PORTS:
        return ()
    if (packet[6] << 8 | packet[7]) & _MORE_FRAGMENTS_OR_OFFSET:
        return ()
    at = (packet[0] & 0x0F) * 4
    ports = packet[at : at + 4]
    if len(ports) < 4:
        return ()
    return ports[0] << 8 | ports[1], ports[2] << 8 | ports[3]
