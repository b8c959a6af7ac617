"""Whether links delayed packets by as much as they were told to."""

import statistics
from collections.abc import Sequence

from fadelab.results.record import Event, number
from fadelab.results.schema import DelayFidelity
from fadelab_emulation.delay_probe import PROBE_FRAME_BYTES


def transmission_ms(rate_bps: float) -> float:
    """Return the milliseconds for which a probe occupies a link of that layer-2 rate."""
    return 8e3 * PROBE_FRAME_BYTES / rate_bps


def delay_fidelity(probes: Sequence[Event], rate_bps: Sequence[float]) -> DelayFidelity | None:
    """Return one direction's delay against the programmed one; None without probes.

    Args:
        probes: its ``delay_probe`` events.
        rate_bps: the rate on the wall clock that each of them was sent at.

    """
    if not probes:
        return None
    programmed_ms = [1e3 * number(probe, "programmed_s") for probe in probes]
    achieved_ms = [1e3 * number(probe, "achieved_s") for probe in probes]
    errors_ms = [a - p for a, p in zip(achieved_ms, programmed_ms, strict=True)]
    return DelayFidelity(
        programmed_ms=_median(programmed_ms),
        achieved_ms=_median(achieved_ms),
        error_ms=_median(errors_ms),
        jitter_ms=_median([1e3 * number(probe, "jitter_s") for probe in probes]),
        transmission_ms=_median([transmission_ms(rate) for rate in rate_bps]),
        probes=len(probes),
    )


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 4)
