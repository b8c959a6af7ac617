"""The typed ``summary.json``; its JSON Schema is published in ``docs/schemas``.

All times are emulated seconds since the start of the run unless a name says otherwise; all byte
counts are as seen by the kernel's interface counters or by the codec, as each field says.
"""

from pydantic import Field

from fadelab_proto.config import StrictModel


class CurvePoint(StrictModel):
    """The validator's reading of one published model version."""

    t_s: float = Field(description="Emulated seconds at which the version was published.")
    version: int
    value: float = Field(description="The task's metric on the held-out test set.")
    loss: float | None = Field(description="Loss on the test set; null where it is not finite.")
    wire_up_bytes: int = Field(description="Uplink wire bytes of all devices up to then.")


class TaskResult(StrictModel):
    """What was learned for one task."""

    metric: str = Field(description="Name of the metric, for example 'accuracy'.")
    higher_is_better: bool
    final: float | None
    best: float | None
    versions: int = Field(description="Versions published, without the initial one.")
    curve: list[CurvePoint]


class DirectionBytes(StrictModel):
    """Where the bytes of one direction went; the three kinds add up to ``wire``."""

    payload: int = Field(description="Codec output (uplink) or model values (downlink).")
    framing: int = Field(
        description="Packet headers, gRPC, HTTP/2, TCP/IP, Ethernet, acknowledgements, control: "
        "what is left of the wire bytes."
    )
    retransmitted: int = Field(description="TCP payload bytes sent again (kernel's TCP_INFO).")
    wire: int = Field(description="All layer-2 bytes, from the interface counters.")


class ByteLedger(StrictModel):
    """Bytes in both directions, seen from the device."""

    up: DirectionBytes
    down: DirectionBytes


class UpdateCounts(StrictModel):
    """How a device's contributions ended."""

    started: int
    complete: int
    partial: int = Field(description="Some packets acknowledged, not all, when the run ended.")
    lost: int = Field(description="Refused, given up, or nothing acknowledged.")


class Staleness(StrictModel):
    """Staleness of the applied updates, in versions and in seconds."""

    versions: list[int]
    seconds: list[float]


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


class Joules(StrictModel):
    """Energy by the papers' formulas from measured times (DMA-FL equations 20 to 25)."""

    compute: float
    uplink: float
    downlink: float


class Contact(StrictModel):
    """One contact window."""

    start_s: float
    end_s: float


class DeviceResult(StrictModel):
    """Everything measured for one device."""

    bytes: ByteLedger
    updates: UpdateCounts
    staleness: Staleness
    contacts: list[Contact]
    up: LinkFidelity
    down: LinkFidelity
    resume_ms: list[float] = Field(
        description="Per reopened window with a waiting uplink: ms until the first frame arrived."
    )
    joules: Joules
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


class Totals(StrictModel):
    """The devices' results added up."""

    bytes: ByteLedger
    updates: UpdateCounts
    staleness: Staleness
    leaked_packets: int
    resume_p95_ms: float | None
    joules: Joules


class Summary(StrictModel):
    """``summary.json``: what a run found, and whether it may be believed."""

    schema_version: int = 1
    name: str
    valid: bool
    invalid_reasons: list[str]
    duration_s: float = Field(description="Emulated seconds that the run lasted.")
    wall_s: float = Field(description="Wall seconds from the command to the end of the run.")
    tasks: dict[str, TaskResult]
    devices: dict[str, DeviceResult]
    total: Totals
    lateness: Lateness
    start_up: StartUp
