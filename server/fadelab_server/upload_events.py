"""What the event log says of uploads."""

from typing import Any

from fadelab_proto.events import EventLog
from fadelab_proto.packet import HEADER_BYTES, class_name
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.task_state import Applied


def log_upload(
    log: EventLog, event: str, task: str, upload: UpdateAssembly, applied: Applied | None
) -> None:
    """Write how an upload stands, or what became of it."""
    log.write(
        event,
        **_counts(task, upload),
        samples=upload.header.samples,
        packets_announced=upload.header.packets,
        duplicates=upload.duplicates,
        started_mono_s=upload.started_s,
        mark_mono_s=upload.timer.mark_s,
        last_mono_s=upload.timer.last_s,
        bytes_after_mark=upload.timer.bytes_after_mark,
        staleness_versions=None if applied is None else applied.staleness_versions,
        staleness_s=None if applied is None else round(applied.staleness_s, 6),
    )


def log_refusal(log: EventLog, task: str, upload: UpdateAssembly, reason: str) -> None:
    """Write that an update was not taken, and why."""
    log.write("upload_refused", **_counts(task, upload), reason=reason)


def _counts(task: str, upload: UpdateAssembly) -> dict[str, Any]:
    """Return whose update it is and what of it has crossed the link."""
    classes = sorted(upload.by_class)
    return {
        "device": upload.device,
        "task": task,
        "update_id": upload.header.update_id,
        "base_version": upload.header.base_version,
        "packets": len(upload.received),
        "payload_bytes": upload.payload_bytes,
        "header_bytes": HEADER_BYTES * len(upload.received),
        "classes": [class_name(number) for number in classes],
        "class_packets": [upload.by_class[number].packets for number in classes],
        "class_payload_bytes": [upload.by_class[number].payload_bytes for number in classes],
        "datagram_packets": upload.in_datagrams.packets,
        "datagram_payload_bytes": upload.in_datagrams.payload_bytes,
    }
