"""Compute the formula twin of a run directory's run."""

import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fadelab.results.contacts import Upload, uploads
from fadelab.results.record import Event, RunRecord, number
from fadelab.twin.decisions import replay_decisions
from fadelab.twin.device import TwinContact, TwinDevice, TwinTerms
from fadelab.twin.durations import upload_durations
from fadelab.twin.given import given_of
from fadelab.twin.schema import TwinFigures, TwinPair, TwinResult, TwinRun
from fadelab.twin.server import TwinServer
from fadelab.twin.timeline import Timeline, powers_known, powers_matter
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.contact_history import ContactHistory
from fadelab_agent.policy import build_policy
from fadelab_agent.spool import Owner
from fadelab_agent.terms import DeviceTerms

_NEEDED = {"task", "dimension", "max_payload_bytes"}
"""What the twin has to know of a plan."""


def formula_twin(record: RunRecord) -> TwinResult | None:
    """Return the twin's figures; None if devices did not upload once in each contact."""
    pieces = record.experiment.method.pieces()
    schedule = record.schedule
    if pieces.contacts is None or schedule is None or not record.of("agent", "contact_used"):
        return None
    timeline = Timeline.of(record, schedule)
    return TwinResult(
        decisions=replay_decisions(record, pieces.policy),
        durations=upload_durations(record, timeline),
        run=_run(record, timeline, pieces.contacts),
    )


def _run(record: RunRecord, timeline: Timeline, config: ContactConfig) -> TwinRun | None:
    devices = _devices(record, timeline, config)
    if record.real_links or not powers_known(record) or not devices:
        return None
    follow(list(devices.values()))
    sockets = _sockets(record)
    twins = {device: twin.contacts for device, twin in devices.items()}
    return TwinRun(
        total=TwinPair(
            sockets=_logged_figures(sockets.values()),
            twin=_figures([contact for found in twins.values() for contact in found]),
        ),
        devices={
            str(device): TwinPair(sockets=_logged_figures([sockets[device]]), twin=_figures(found))
            for device, found in sorted(twins.items())
        },
    )


def follow(devices: Sequence[TwinDevice]) -> None:
    """Let devices live at once: the one whose next meeting with the server is first goes on."""
    lives = [device.life() for device in devices]
    due = [(0.0, place) for place in range(len(lives))]
    while due:
        _, place = heapq.heappop(due)
        meets_s = next(lives[place], None)
        if meets_s is not None:
            heapq.heappush(due, (meets_s, place))


def _devices(record: RunRecord, timeline: Timeline, config: ContactConfig) -> dict[int, TwinDevice]:
    experiment = record.experiment
    pieces = experiment.method.pieces()
    seen = next((plan for plan in record.of("agent", "plan") if plan.keys() >= _NEEDED), None)
    if seen is None:
        return {}
    dimension, task = int(number(seen, "dimension")), str(seen["task"])
    server = TwinServer(pieces.aggregation)
    found = {}
    for device, known in given_of(record).items():
        terms = TwinTerms(
            device=DeviceTerms(
                run_id=0,
                seed=experiment.seed,
                device=device,
                max_payload_bytes=int(number(seen, "max_payload_bytes")),
                uplink_power_w=experiment.radio.uplink_power_w,
                downlink_power_w=experiment.radio.downlink_power_w,
                compute=experiment.devices.compute,
                gives_up=pieces.cut_updates != "resume",
                substitute=pieces.substitute,
            ),
            contact=config,
            training=experiment.first.training,
            dimension=dimension,
            layers=_layers(seen),
            takes_part=pieces.cut_updates in ("keep", "substitute"),
            powers_matter=powers_matter(record),
        )
        owner = Owner(0, device, task, dimension, 0, "")
        found[device] = TwinDevice(
            terms,
            build_policy(pieces.policy),
            ContactHistory.of(owner, config.initial_queue_j),
            link=timeline.link(device),
            server=server,
            given=known,
        )
    return found


def _layers(plan: Event) -> tuple[int, ...]:
    layers = plan.get("layers")
    return tuple(int(size) for size in layers) if isinstance(layers, list) else ()


def _figures(contacts: Sequence[TwinContact]) -> TwinFigures:
    sent = [use for use in contacts if use.sent and (use.acknowledged or not use.cut_by_end)]
    return TwinFigures(
        contacts=len(contacts),
        skipped=sum(use.skipped for use in contacts),
        sent=len(sent),
        acknowledged=sum(use.acknowledged for use in sent),
        k_keep=_mean([use.k_keep for use in sent if use.k_keep is not None]),
        staleness=_mean([use.staleness for use in contacts if use.staleness is not None]),
        energy_j=sum(use.energy_j for use in contacts),
        upload_s=_median([use.upload_s for use in contacts if use.upload_s is not None]),
    )


@dataclass(slots=True)
class _Logged:
    """What a device's events say of its contacts."""

    used: list[Event] = field(default_factory=list)
    sent: list[Upload] = field(default_factory=list)
    staleness: list[float] = field(default_factory=list)
    skipped: int = 0
    open_s: list[float] = field(default_factory=list)
    """Of uploads that were acknowledged in their contacts."""


def _sockets(record: RunRecord) -> defaultdict[int, _Logged]:
    """Sort out what the run's events say, by device."""
    logged: defaultdict[int, _Logged] = defaultdict(_Logged)
    open_s = {
        (event["id"], event.get("update_id")): number(event, "open_s")
        for event in record.of("agent", "upload_ended")
    }
    for event in record.of("agent", "contact_used"):
        own, key = logged[int(str(event["id"]))], (event["id"], event.get("update_id"))
        own.used.append(event)
        if event.get("acknowledged") is True and key in open_s:
            own.open_s.append(open_s[key])
    for event in record.of("agent", "contact_skipped"):
        logged[int(str(event["id"]))].skipped += 1
    for event in record.of("server", "upload_complete"):
        logged[int(number(event, "device"))].staleness.append(number(event, "staleness_versions"))
    for upload in uploads(record):
        logged[upload.device].sent.append(upload)
    return logged


def _logged_figures(devices: Iterable[_Logged]) -> TwinFigures:
    found = list(devices)
    sent = [upload for device in found for upload in device.sent]
    return TwinFigures(
        contacts=sum(len(device.used) for device in found),
        skipped=sum(device.skipped for device in found),
        sent=len(sent),
        acknowledged=sum(upload.acknowledged for upload in sent),
        k_keep=_mean([upload.k_keep for upload in sent if upload.k_keep is not None]),
        staleness=_mean([value for device in found for value in device.staleness]),
        energy_j=sum(number(event, "energy_j") for device in found for event in device.used),
        upload_s=_median([value for device in found for value in device.open_s]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
