"""Timing a transfer at its receiver, so that its goodput can be held against the link's rate."""


class TransferTimer:
    """Note arrivals; report time and bytes from a mark after the first eighth of the packets.

    What comes before the mark is set-up: the stream is opened, the shaper's burst is spent, and
    the receiver's first wake-up is late. Later arrivals follow the link.

    Args:
        packets: number of packets of the whole transfer.

    """

    def __init__(self, packets: int) -> None:
        self._mark_at = max(1, packets // 8)
        self._arrived = 0
        self.mark_s: float | None = None
        """Arrival of the packet at the mark; None before it."""
        self.last_s: float | None = None
        """Arrival of the last packet so far."""
        self.bytes_after_mark = 0

    def arrived(self, size_bytes: int, now_s: float) -> None:
        """Note one packet that is no duplicate."""
        self._arrived += 1
        self.last_s = now_s
        if self._arrived == self._mark_at:
            self.mark_s = now_s
        elif self._arrived > self._mark_at:
            self.bytes_after_mark += size_bytes
