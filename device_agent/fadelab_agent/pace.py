"""When the next datagram may leave, so that the link's queue never fills."""

from fadelab_agent.radio import Radio
from fadelab_proto.clock import Clock
from fadelab_proto.datagram import FRAME_OVERHEAD_BYTES

# Wake-ups closer together than this would cost more than the packets they send.
_BETWEEN_BURSTS_S = 0.002
# How much may be made up for after a late wake-up: a third of what the links' queues hold.
_LARGEST_BURST_S = 0.02
# The rate may change at any time and nobody says so: waits for a turn are cut into such pieces.
_SAME_RATE_S = 0.1


class Pace:
    """A token bucket, in bits on the link, that fills at the radio's present rate.

    Args:
        radio: tells the rate.
        clock: tells the time.
        share: part of the rate that may be used.
        fixed_bps: the rate to keep to, whatever the radio tells.

    """

    def __init__(
        self, radio: Radio, clock: Clock, share: float, *, fixed_bps: float | None = None
    ) -> None:
        self._fixed_bps = fixed_bps
        self._radio = radio
        self._clock = clock
        self._share = share
        self.restart()

    def restart(self) -> None:
        """Begin anew with nothing saved up."""
        self._level_bits = 0.0
        self._at_s = self._clock.now_s()

    def pause_s(self, packet_bytes: int) -> float:
        """Return how long to wait before asking again; 0 if such a packet may go now."""
        rate_bps = self._fixed_bps or self._radio.view.rate_up_bps * self._share
        needed = _link_bits(packet_bytes)
        now_s = self._clock.now_s()
        most = max(needed, rate_bps * _LARGEST_BURST_S)
        self._level_bits = min(most, self._level_bits + rate_bps * (now_s - self._at_s))
        self._at_s = now_s
        if self.allows(packet_bytes):
            return 0.0
        lacking = max(needed, rate_bps * _BETWEEN_BURSTS_S) - self._level_bits
        return min(_SAME_RATE_S, lacking / rate_bps) if rate_bps > 0 else _SAME_RATE_S

    def allows(self, packet_bytes: int) -> bool:
        """Whether the level is high enough for such a packet."""
        # Sums of floats end a little off: what lacks less than a bit is not waited for.
        return self._level_bits > _link_bits(packet_bytes) - 1

    def spend(self, packet_bytes: int) -> None:
        """Take a packet's bits."""
        self._level_bits -= _link_bits(packet_bytes)


def _link_bits(packet_bytes: int) -> int:
    return 8 * (packet_bytes + FRAME_OVERHEAD_BYTES)
