"""How long uploads took over sockets, and how long the timeline's rate would have them take.

Measured is from the moment at which the sender begins, with the packets ready and the power in
force, to the server's last word: everything is durable there and part of the model. The formula is
:mod:`fadelab_emulation.timeline.formula_twin` from the same moment on, over the recorded rates, with
the bytes of :func:`fadelab.twin.framing.message_bytes` in segments of TCP. It leaves out the way back
of the acknowledgement and the server's work, slow start, the call's headers, other traffic, and the
two or three frames that a shaper lets pass at once.
"""

import statistics

import numpy as np

from fadelab.results.record import Event, RunRecord, number
from fadelab.twin.framing import message_bytes
from fadelab.twin.schema import UploadDuration, UploadDurations
from fadelab.twin.timeline import Timeline, TwinLink
from fadelab_emulation.timeline.formula_twin import TCP, FormulaTwin

LEAST_PACKETS = 50
"""Shorter uploads are shorter than what the formula leaves out is long."""
_WHOLE = ("UPLOAD_STATUS_COMPLETE", "UPLOAD_STATUS_DUPLICATE")


def upload_durations(record: RunRecord, timeline: Timeline) -> UploadDurations:
    """Compare all uploads that were acknowledged in the contact that they were sent in."""
    links: dict[int, tuple[TwinLink, FormulaTwin]] = {}
    taken = {
        (int(number(event, "device")), event.get("task"), event.get("update_id")): event
        for event in record.of("server", "upload_complete")
    }
    found = []
    for event in record.of("agent", "upload_ended"):
        device = int(str(event["id"]))
        if not _was_whole(event) or device >= timeline.devices:
            continue
        if device not in links:
            link = timeline.link(device)
            links[device] = link, FormulaTwin(link.recorded_uplink(), resends=True)
        key = device, event.get("task"), event.get("update_id")
        compared = _compare(record, *links[device], event, taken.get(key))
        if compared is not None:
            found.append(compared)
    long = [one for one in found if one.wire_packets > LEAST_PACKETS]
    ratios = [one.measured_s / one.formula_s for one in long if one.formula_s]
    return UploadDurations(
        least_packets=LEAST_PACKETS,
        compared=len(ratios),
        too_long_by_formula=len(long) - len(ratios),
        median_deviation=_median([abs(ratio - 1) for ratio in ratios]),
        median_ratio=_median(ratios),
        median_answer_s=_median(
            [one.measured_s - one.arrived_s for one in long if one.arrived_s is not None]
        ),
        uploads=found,
    )


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _was_whole(event: Event) -> bool:
    return (
        event.get("status") in _WHOLE
        and event.get("attempts") == 1
        and number(event, "open_s") > 0
        and number(event, "packets") >= 1
        and number(event, "datagram_packets") == 0
    )


def _compare(
    record: RunRecord, link: TwinLink, twin: FormulaTwin, event: Event, taken: Event | None
) -> UploadDuration | None:
    """Return an upload's durations; None if it took more than one contact."""
    assert record.start_mono_s is not None
    measured_s = number(event, "open_s")
    end_s = number(event, "mono_s") - record.start_mono_s
    # Time out of contact is not in measured_s: then the window that holds the start ends too soon.
    start_s = max(0.0, end_s - measured_s)
    last_s = link.window_end_s(start_s) + link.tick_s
    if last_s < end_s:
        return None
    message = message_bytes(number(event, "coded_bits") / 8, int(number(event, "packets")))
    through_s = float(twin.transfer_end_s(np.array([message]), np.array([start_s]))[0])
    return UploadDuration(
        device=int(str(event["id"])),
        start_s=round(start_s, 6),
        wire_packets=int(np.ceil(message / TCP.payload_bytes)),
        measured_s=measured_s,
        arrived_s=(
            None
            if taken is None or taken.get("last_mono_s") is None
            else round(number(taken, "last_mono_s") - record.start_mono_s - start_s, 6)
        ),
        # Beyond the contact it would be the wait for the next one, for a frame or two.
        formula_s=round(through_s - start_s, 6) if through_s <= last_s else None,
    )
