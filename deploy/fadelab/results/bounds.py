"""Which single measurements the experiment's ``validity`` section allows."""

import math

from fadelab.experiment import ValidityConfig
from fadelab.results.schema import DelayFidelity, LinkFidelity, LossFidelity

_FRAMES_PER_STRETCH = 3
_FRAME_BYTES = 1514

# As fadelab_emulation.self_calibration measures: for how long, with how many and how large packets.
_FLOOD_S = 0.3
_FLOOD_PACKETS = 60
_SMALLEST_FRAME_BYTES = 100
_FORGIVEN_PACKETS = 2
_CALIBRATION_PROBES = 10

_MEDIAN_SPREAD = math.sqrt(3)
"""Standard error of a median over that of one value, times the square root of their number: the
largest of the usual distributions, that of the uniform one."""
_STANDARD_ERRORS = 5


def rate_holds(fidelity: LinkFidelity, bounds: ValidityConfig, *, is_delayed: bool = False) -> bool:
    """Say whether a link carried what it was programmed to, as far as can be told.

    Each stretch of saturated ticks may be off by three frames: two of burst in its bucket when it
    begins, and the one that is under way when it ends.

    Over a delayed link packets come in bursts, a round trip apart: the queue may be occupied at
    both ends of a tick and have been empty in between. There only too much can be told.
    """
    if fidelity.programmed_bytes < bounds.min_saturated_bytes:
        return True
    low, high = bounds.rate_ratio
    blur = _FRAMES_PER_STRETCH * _FRAME_BYTES * fidelity.stretches
    programmed = fidelity.programmed_bytes
    least = 0.0 if is_delayed else low * programmed - blur
    return least <= fidelity.achieved_bytes <= high * programmed + blur


def loss_holds(loss: LossFidelity | None, bounds: ValidityConfig) -> bool:
    """Say whether a link lost as many packets as can be expected of chance."""
    if loss is None or loss.z is None or max(loss.expected, loss.lost) < bounds.min_losses:
        return True
    return abs(loss.z) <= bounds.loss_z


def delay_holds(delay: DelayFidelity | None, bounds: ValidityConfig) -> bool:
    """Say whether a link delayed its probes by what was programmed."""
    if delay is None or delay.probes < bounds.min_delay_probes:
        return True
    return _error_holds(
        delay.error_ms,
        bounds,
        programmed_ms=delay.programmed_ms,
        jitter_ms=delay.jitter_ms,
        transmission_ms=delay.transmission_ms,
        probes=delay.probes,
    )


def calibrated_rate_holds(
    programmed_bps: float, achieved_bps: float, bounds: ValidityConfig
) -> bool:
    """Say whether a link that was measured before the run had its rate.

    Two packets of the measurement are forgiven: one may be cut off at either end.
    """
    even_bytes = programmed_bps * _FLOOD_S / 8 / _FLOOD_PACKETS
    frame_bytes = min(_FRAME_BYTES, max(_SMALLEST_FRAME_BYTES, even_bytes))
    blur_bps = 8 * _FORGIVEN_PACKETS * frame_bytes / _FLOOD_S
    allowed_bps = max(bounds.calibration_rate_error * programmed_bps, blur_bps)
    return abs(achieved_bps - programmed_bps) <= allowed_bps


def calibrated_delay_holds(
    programmed_ms: float,
    achieved_ms: float | None,
    bounds: ValidityConfig,
    *,
    jitter_ms: float,
    transmission_ms: float,
) -> bool:
    """Say whether a link that was measured before the run had its delay; no answer is a no."""
    return achieved_ms is not None and _error_holds(
        achieved_ms - programmed_ms,
        bounds,
        programmed_ms=programmed_ms,
        jitter_ms=jitter_ms,
        transmission_ms=transmission_ms,
        probes=_CALIBRATION_PROBES,
    )


def _error_holds(
    error_ms: float,
    bounds: ValidityConfig,
    *,
    programmed_ms: float,
    jitter_ms: float,
    transmission_ms: float,
    probes: int,
) -> bool:
    """Say whether a median's error is allowed, given what so few probes can tell under jitter.

    An idle shaper lets a probe pass at once, a relay takes the time of its transmission.
    """
    by_chance_ms = _STANDARD_ERRORS * _MEDIAN_SPREAD * jitter_ms / math.sqrt(probes)
    allowed_ms = bounds.delay_error_share * programmed_ms + bounds.delay_error_ms + by_chance_ms
    return -allowed_ms <= error_ms <= allowed_ms + transmission_ms
