"""What carried a run's links, why, and what was measured of them before the run."""

from fadelab.results.bounds import calibrated_delay_holds, calibrated_rate_holds
from fadelab.results.record import Event, RunRecord, number
from fadelab.results.schema import LinkCalibration, Links
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.prediction import OracleConfig


def links_result(record: RunRecord) -> Links:
    """Return the back-end's part of the summary."""
    ready = record.last("emulator", "links_ready") or {}
    seeded, passed_over = ready.get("loss_is_seeded"), ready.get("passed_over")
    return Links(
        backend=_text(ready, "backend"),
        variant=_text(ready, "variant"),
        why=_text(ready, "why"),
        passed_over=[str(entry) for entry in passed_over] if isinstance(passed_over, list) else [],
        window=_text(ready, "window"),
        loss_is_seeded=seeded if isinstance(seeded, bool) else None,
        time_scale=record.experiment.radio.time_scale,
        oracle=_knew_the_future(record),
        calibration=[_calibration(record, e) for e in record.of("emulator", "calibrated")],
    )


def _text(event: Event, key: str) -> str | None:
    value = event.get(key)
    return None if value is None else str(value)


def _knew_the_future(record: RunRecord) -> bool:
    radio = record.experiment.radio
    return isinstance(radio, RadioConfig) and isinstance(radio.prediction, OracleConfig)


def _calibration(record: RunRecord, event: Event) -> LinkCalibration:
    bounds = record.experiment.validity
    uplink = event["direction"] == "up"
    achieved_s = event["achieved_delay_s"]
    rate_bps, achieved_bps = number(event, "programmed_bps"), number(event, "achieved_bps")
    delay_ms = round(1e3 * number(event, "programmed_delay_s"), 4)
    achieved_ms = None if achieved_s is None else round(1e3 * float(str(achieved_s)), 4)
    transmission_ms = round(1e3 * number(event, "transmission_s"), 4)
    jitter_ms = _first_jitter_ms(record, int(number(event, "device")), uplink=uplink)
    return LinkCalibration(
        device=int(number(event, "device")),
        direction="up" if uplink else "down",
        programmed_bps=rate_bps,
        achieved_bps=achieved_bps,
        programmed_delay_ms=delay_ms,
        jitter_ms=jitter_ms,
        achieved_delay_ms=achieved_ms,
        transmission_ms=transmission_ms,
        within_bounds=calibrated_rate_holds(rate_bps, achieved_bps, bounds)
        and calibrated_delay_holds(
            delay_ms,
            achieved_ms,
            bounds,
            jitter_ms=jitter_ms,
            transmission_ms=transmission_ms,
        ),
    )


def _first_jitter_ms(record: RunRecord, device: int, *, uplink: bool) -> float:
    """Return the jitter that a link was measured with: that of the first tick, on the wall."""
    if record.schedule is None:
        return 0.0
    first = record.schedule.tick(0)
    jitter_s = first.jitter_up_s if uplink else first.jitter_down_s
    return round(1e3 * float(jitter_s[device]) / record.experiment.radio.time_scale, 4)
