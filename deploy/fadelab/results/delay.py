"""Whether links delayed packets by as much as they were told to."""

import statistics
from collections.abc import Sequence

from fadelab.results.record import Event, number
from fadelab.results.schema import DelayFidelity


def delay_fidelity(probes: Sequence[Event]) -> DelayFidelity | None:
    """Return one direction's delay against the programmed one, by its ``delay_probe`` events.

    None without probes.
    """
    if not probes:
        return None
    programmed_ms, achieved_ms, jitter_ms, transmission_ms = (
        [1e3 * number(probe, key) for probe in probes]
        for key in ("programmed_s", "achieved_s", "jitter_s", "transmission_s")
    )
    errors_ms = [a - p for a, p in zip(achieved_ms, programmed_ms, strict=True)]
    return DelayFidelity(
        programmed_ms=_median(programmed_ms),
        achieved_ms=_median(achieved_ms),
        error_ms=_median(errors_ms),
        jitter_ms=_median(jitter_ms),
        transmission_ms=_median(transmission_ms),
        probes=len(probes),
    )


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 4)
