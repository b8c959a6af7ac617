"""The typed ``summary.json``; its JSON Schema is published in ``docs/schemas``.

All times are emulated seconds since the start of the run unless a name says otherwise; all byte
counts are as seen by the kernel's interface counters or by the codec, as each field says.
"""

from typing import Literal

from pydantic import Field

from fadelab.results.contact_schema import ContactUse
from fadelab.results.period_schema import Periods
from fadelab.results.round_schema import RoundPlans
from fadelab.results.sp_fl_schema import SpFlRounds
from fadelab.twin.schema import TwinResult
from fadelab_proto.config import StrictModel


class CurvePoint(StrictModel):
    """The validator's reading of one published model version."""

    t_s: float = Field(description="Emulated seconds at which the version was published.")
    version: int
    value: float = Field(description="The task's metric on the held-out test set.")
    loss: float | None = Field(description="Loss on the test set; null where it is not finite.")
    wire_up_bytes: int = Field(
        description="Uplink wire bytes of all devices up to then, of all tasks together."
    )
    energy_j: float | None = Field(
        None, description="What the task has cost all devices up to then, by measured times."
    )


class PacketBytes(StrictModel):
    """Packets of one class that came through, each counted once."""

    direction: Literal["up", "down"]
    packet_class: str = Field(description="For example 'update', 'sign', 'modulus' or 'model'.")
    packets: int
    payload: int = Field(description="Bytes that the codec wrote.")
    headers: int = Field(description="Bytes of the packets' own headers, 40 for each.")


class DevicePackets(PacketBytes):
    """Those of one device and task, over all versions."""

    task: str


class RoundPackets(PacketBytes):
    """Those of one model version, over all devices."""

    version: int = Field(description="The one that updates were trained from, or that was fetched.")
    devices: int = Field(description="How many devices they came from or went to.")


class UpdateCounts(StrictModel):
    """How contributions ended: a device's, a task's or all."""

    started: int
    complete: int
    partial: int = Field(description="Some packets acknowledged, not all, when the run ended.")
    lost: int = Field(description="Refused, given up, or nothing acknowledged.")


class Staleness(StrictModel):
    """Staleness of the applied updates, in versions and in seconds."""

    versions: list[int]
    seconds: list[float]


class TaskBaseline(StrictModel):
    """What a rule that learns nothing achieves on the task's test set."""

    name: str = Field(description="The rule, for example 'constant velocity'.")
    value: float = Field(description="Its metric.")


class TaskResult(StrictModel):
    """What was learned for one task."""

    metric: str = Field(description="Name of the metric, for example 'accuracy'.")
    unit: str = Field("", description="The metric's unit; empty where it has none.")
    higher_is_better: bool
    baseline: TaskBaseline | None = Field(
        None, description="Null where the task has no usual baseline."
    )
    final: float | None
    best: float | None
    versions: int = Field(description="Versions published, without the initial one.")
    curve: list[CurvePoint]
    rounds: list[RoundPackets] = Field(description="Packets by version, direction and class.")
    packets: list[PacketBytes] = Field([], description="The same over all versions.")
    updates: UpdateCounts | None = Field(
        None, description="Of all devices; null in summaries of older versions."
    )
    staleness: Staleness = Field(
        Staleness(versions=[], seconds=[]), description="Of the task's applied updates."
    )
    energy_j: float | None = Field(
        None, description="What the task has cost all devices in the end, by measured times."
    )


class DirectionBytes(StrictModel):
    """Where the bytes of one direction went.

    All down to ``probes``, less ``waiting`` and ``overflowed``, with ``residual`` adds up to ``wire``.
    """

    payload: int = Field(
        description="Bytes that codecs wrote, of packets that the other end took, each once."
    )
    packet_headers: int = Field(description="Those packets' own headers, 40 bytes for each.")
    framing: int = Field(
        description="What else TCP carried, as it was first sent: gRPC, HTTP/2 and protobuf, calls "
        "that are not transfers, and packets that were cut off or came a second time."
    )
    undelivered: int = Field(
        description="Packets in datagrams that were lost, refused or came a second time."
    )
    retransmitted: int = Field(description="What TCP sent again.")
    ip_headers: int = Field(
        description="Headers of TCP and UDP and of IP, acknowledgements without data included."
    )
    ethernet: int = Field(description="Ethernet headers, 14 bytes for each segment or datagram.")
    probes: int = Field(description="Frames with which the emulator timed the link's delay.")
    waiting: int = Field(
        description="Counted above but not on the wire: what waited at the shaper at the end."
    )
    overflowed: int = Field(
        0, description="The same: frames that found its queue full, each taken for a full one."
    )
    residual: int = Field(
        description="What is left of the wire bytes: options of selective acknowledgements, resets, "
        "ICMP, and (negative) what an interface that was down has dropped."
    )
    residual_percent: float | None = Field(
        description="Residual over wire; null if nothing crossed the link."
    )
    wire: int = Field(
        description="Layer-2 bytes that crossed the link, by the interface counters of the "
        "server's end; what measured the link before the run is left out."
    )
    device_end: int = Field(
        description="The same by the counters of the device's end. A relay's links differ by what "
        "it dropped or lost in between."
    )


class ByteLedger(StrictModel):
    """Bytes in both directions, seen from the device."""

    up: DirectionBytes
    down: DirectionBytes
    connections: int | None = Field(
        description="TCP connections, attempts included; null if the kernel did not tell of all of them: what they "
        "would explain is in the residual."
    )


class Connectivity(StrictModel):
    """Programmed against observed connectivity of one direction, in intervals between readings."""

    open_passed: int = Field(description="Programmed open, and packets passed.")
    open_stuck: int = Field(
        description="Programmed open, packets waited all the time, and none passed: wrong."
    )
    closed_silent: int = Field(description="Programmed closed, and nothing passed.")
    closed_passed: int = Field(description="Programmed closed, and packets passed: wrong.")


class LossFidelity(StrictModel):
    """Programmed against achieved packet loss of one direction of one link."""

    arrived: int = Field(
        description="Packets that came to the point at which losses are drawn, over the open link."
    )
    lost: int = Field(description="How many of them were lost there.")
    expected: float = Field(
        description="How many were to be expected by the probabilities in force."
    )
    z: float | None = Field(
        description="(lost - expected) in standard deviations of such a count, which bursts "
        "increase; null if no loss was expected and none happened."
    )


class DelayFidelity(StrictModel):
    """Programmed against achieved one-way delay of one direction of one link, on the wall clock."""

    programmed_ms: float = Field(description="Median of the delays programmed for the probes.")
    achieved_ms: float = Field(description="Median of what the probes took over the idle link.")
    error_ms: float = Field(description="Median of achieved less programmed, probe by probe.")
    jitter_ms: float = Field(description="Median of the programmed standard deviations.")
    transmission_ms: float = Field(
        description="Median of the probes' transmission times at the programmed rate. The error "
        "may hold up to as much: an idle shaper lets a probe pass at once, a relay takes its time."
    )
    probes: int = Field(description="Small datagrams that were timed.")


class ClassTraffic(StrictModel):
    """What one packet class of a link sent in one direction; lost on the air or not."""

    name: str = Field(description="As in the experiment's radio.classes; 'default' is the rest.")
    packets: int
    bytes: int = Field(description="Layer-2 bytes.")
    overflowed: int | None = Field(None, description="Packets besides that found the queue full.")


class LinkFidelity(StrictModel):
    """Programmed against achieved for one direction of one link."""

    programmed_bytes: float = Field(
        description="Integral of the programmed rate over ticks in which the queue never emptied."
    )
    achieved_bytes: int = Field(description="Bytes that left the shaper in those same ticks.")
    stretches: int = Field(
        description="Uninterrupted sequences of such ticks; each may be off by up to three frames."
    )
    ratio: float | None = Field(description="achieved / programmed; null if never saturated.")
    programmed_goodput_bps: float | None = Field(
        description="Mean programmed rate while updates were in transfer."
    )
    achieved_goodput_bps: float | None = Field(
        description="Payload bits per second of those transfers, measured at the receiver."
    )
    leaked_packets: int = Field(description="Packets seen in closed windows after the guard time.")
    connectivity: Connectivity | None = Field(
        description="Confusion matrix of connectivity; null if no readings were recorded."
    )
    classes: list[ClassTraffic] = Field(
        default=[], description="What the queue of each packet class sent; empty without classes."
    )
    loss: LossFidelity | None = Field(description="Null if losses were not counted.")
    delay: DelayFidelity | None = Field(description="Null if no delay was programmed or timed.")


class Joules(StrictModel):
    """Energy by the papers' formulas from measured times (DMA-FL equations 20 to 25)."""

    compute: float
    uplink: float
    downlink: float


class MeasuredEnergy(StrictModel):
    """Energy of the whole board by its own sensor, from the start of the run to its end."""

    source: str = Field(description="The sensor and what it covers.")
    mean_w: float
    total_j: float
    training_j: float = Field(description="While the agent trained.")
    uploads_j: float = Field(description="From each update's plan to the end of its upload.")


class Contact(StrictModel):
    """One contact window."""

    start_s: float
    end_s: float


class DeviceResult(StrictModel):
    """Everything measured for one device."""

    bytes: ByteLedger
    packets: list[DevicePackets] = Field(description="By direction, task and packet class.")
    updates: UpdateCounts
    staleness: Staleness
    contacts: list[Contact]
    up: LinkFidelity
    down: LinkFidelity
    resume_ms: list[float] = Field(
        description="Per reopened window with a waiting uplink: ms until the first frame arrived."
    )
    joules: Joules
    measured_energy: MeasuredEnergy | None = Field(
        None, description="Null if the device's energy is the model's only."
    )
    join_s: float | None = Field(description="Wall seconds from the command to the join.")
    private_memory_mib: float | None = Field(
        description="Pages of the agent that no other process shares, at its end; sampled."
    )


class Lateness(StrictModel):
    """How late the emulator carried out its ticks."""

    ticks: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class StartUp(StrictModel):
    """How long it took to start, in wall seconds from the command."""

    links_s: float = Field(description="All namespaces and links exist.")
    agents_forked_s: float
    all_joined_s: float
    median_private_memory_mib: float | None


class ConnectivityTotals(StrictModel):
    """The confusion matrices of all links added up."""

    up: Connectivity
    down: Connectivity


class LinkCalibration(StrictModel):
    """One direction of one link, measured before the run; on the wall clock."""

    device: int
    direction: Literal["up", "down"]
    programmed_bps: float = Field(description="Layer-2 rate of the run's first tick.")
    achieved_bps: float = Field(
        description="Layer-2 bits that crossed the saturated link per second."
    )
    programmed_delay_ms: float = Field(description="One-way delay of the run's first tick.")
    jitter_ms: float = Field(description="Its programmed standard deviation.")
    achieved_delay_ms: float | None = Field(
        description="Median of what ten probes took; null if none came through."
    )
    transmission_ms: float = Field(description="Time that a probe takes at the programmed rate.")
    within_bounds: bool = Field(description="Whether the experiment's validity section allows it.")


class Links(StrictModel):
    """What carried the links, why, and how well it did before the run."""

    backend: str | None = Field(description="Null if the run ended before its links were made.")
    variant: str | None = Field(description="Back-end and what draws its losses.")
    why: str | None = Field(description="Why this one carries the links.")
    passed_over: list[str] = Field(description="Better variants, each with why it was not taken.")
    window: str | None = Field(description="What becomes of packets while a link is closed.")
    loss_is_seeded: bool | None = Field(
        description="Whether the same seed loses the same packets of a link."
    )
    time_scale: float = Field(description="Emulated seconds per second of the wall clock.")
    oracle: bool = Field(
        description="Whether devices were told the true future of their contact, which no device "
        "can know."
    )
    calibration: list[LinkCalibration]


class Totals(StrictModel):
    """The devices' results added up."""

    bytes: ByteLedger
    updates: UpdateCounts
    staleness: Staleness
    leaked_packets: int
    connectivity: ConnectivityTotals | None = Field(
        description="Null if no readings were recorded."
    )
    resume_p95_ms: float | None
    joules: Joules


class Summary(StrictModel):
    """``summary.json``: what a run found, and whether it may be believed."""

    schema_version: Literal[3] = 3
    name: str
    valid: bool
    invalid_reasons: list[str]
    links: Links
    duration_s: float = Field(description="Emulated seconds that the run lasted.")
    wall_s: float = Field(description="Wall seconds from the command to the end of the run.")
    tasks: dict[str, TaskResult]
    devices: dict[str, DeviceResult]
    total: Totals
    lateness: Lateness
    start_up: StartUp
    contacts: ContactUse | None = Field(
        None, description="Null if devices do not upload once in each contact."
    )
    sp_fl: SpFlRounds | None = Field(None, description="Null if the method is another.")
    rounds: RoundPlans | None = Field(
        None, description="Null if the server gave devices nothing before they uploaded."
    )
    periods: Periods | None = Field(
        None, description="Local periods; null if devices did not report any."
    )
    twin: TwinResult | None = Field(
        None, description="The formula twin; null if devices do not upload once in each contact."
    )
