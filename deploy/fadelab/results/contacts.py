"""How devices used their contacts, where they upload once in each: the summary's part on MADS."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from fadelab.methods import MadsMethod
from fadelab.results.contact_schema import ContactUse
from fadelab.results.record import Event, RunRecord, number
from fadelab_emulation.schedule import contact_windows


@dataclass(frozen=True, slots=True)
class Upload:
    """One update that was sent, and the contact that it was sent in; times in emulated seconds."""

    device: int
    predicted_s: float
    """Remaining contact as the device was told it."""
    remaining_s: float
    """What really remained."""
    k_keep: int | None
    """Entries kept; None where the codec decided that."""
    kept_share: float | None
    """The same over all entries."""
    fits: bool
    """Whether it was to fit into the predicted remainder."""
    acknowledged: bool
    """Within that contact."""


def contact_use(record: RunRecord) -> ContactUse | None:
    """Return what became of contacts; None if devices did not upload once in each."""
    used = record.of("agent", "contact_used")
    if not used:
        return None
    sent = list(uploads(record))
    margin = prediction_margin(record)
    tick_s = record.experiment.radio.tick_s
    covered = [
        upload
        for upload in sent
        if upload.fits and upload.remaining_s + tick_s >= upload.predicted_s * (1 - margin)
    ]
    kept = [upload.kept_share for upload in sent if upload.kept_share is not None]
    last = {(str(event["id"]), str(event["task"])): event for event in used}
    allowance = used[0].get("allowance_j")
    return ContactUse(
        used=len(used),
        skipped=len(record.of("agent", "contact_skipped")),
        sent=len(sent),
        acknowledged=sum(upload.acknowledged for upload in sent),
        predicted_to_fit=sum(upload.fits for upload in sent),
        covered=len(covered),
        covered_acknowledged=sum(upload.acknowledged for upload in covered),
        mean_predicted_s=_mean([upload.predicted_s for upload in sent]),
        mean_kept_share=_mean(kept),
        mean_energy_j=_mean([number(event, "energy_j") for event in used]),
        allowance_j=float(allowance) if isinstance(allowance, int | float) else None,
        mean_queue_j=_mean([number(event, "queue_j") for event in last.values()]),
    )


def uploads(record: RunRecord) -> Iterator[Upload]:
    """Yield what was sent, but for uploads that the end of the run cut off."""
    start_s = record.start_mono_s
    if record.schedule is None or start_s is None:
        return
    windows = contact_windows(record.schedule)
    ended = {
        (str(event["id"]), str(event["task"]), int(number(event, "update_id"))): event
        for event in record.of("agent", "contact_used")
        if event["update_id"] is not None
    }
    for plan in record.of("agent", "plan"):
        end = ended.get((str(plan["id"]), str(plan["task"]), int(number(plan, "update_id"))))
        device, t_s = int(str(plan["id"])), number(plan, "mono_s") - start_s
        window_end_s = _end_of_window(windows[device], t_s)
        if end is None or (window_end_s >= record.duration_s and not end["acknowledged"]):
            continue
        k_keep = plan.get("k_keep")
        yield Upload(
            device=device,
            predicted_s=number(plan, "predicted_contact_s"),
            remaining_s=max(0.0, window_end_s - t_s),
            k_keep=k_keep if isinstance(k_keep, int) else None,
            kept_share=(k_keep / number(plan, "dimension") if isinstance(k_keep, int) else None),
            fits=_fits(plan),
            acknowledged=end["acknowledged"] is True,
        )


def prediction_margin(record: RunRecord) -> float:
    """Return the share of predicted contacts that devices did not count on."""
    method = record.experiment.method
    return method.decision.prediction_margin if isinstance(method, MadsMethod) else 0.0


def _fits(plan: Event) -> bool:
    if plan.get("safe_contact_s") is not None:
        return True  # the policy chose what fits
    rate_bps = number(plan, "full_rate_bps")
    return number(plan, "estimated_bits") <= rate_bps * number(plan, "predicted_contact_s")


def _end_of_window(windows: list[tuple[float, float]], t_s: float) -> float:
    at = bisect_right(windows, t_s, key=lambda window: window[0]) - 1
    return windows[at][1] if at >= 0 else 0.0


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
