"""The server's configuration: what it listens on, what it trains, how it aggregates, when it ends."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fadelab_proto.codecs import CodecError
from fadelab_proto.codecs.config import ValueCodecConfig
from fadelab_proto.config import StrictModel
from fadelab_proto.packet import MAX_PACKETS
from fadelab_proto.substitutes import SubstituteConfig
from fadelab_server.rounds.config import AllocationConfig
from fadelab_server.scheduler.config import SchedulingConfig
from fadelab_server.sp_fl_config import SpFlConfig


class ConstantStaleness(StrictModel):
    """Every update weighs the same, however old its base version is."""

    kind: Literal["constant"] = "constant"


class PolynomialStaleness(StrictModel):
    """Weight ``(staleness + 1) ** -exponent``."""

    kind: Literal["polynomial"] = "polynomial"
    exponent: float = Field(0.5, ge=0, description="0 is the constant weight; 0.5 is usual.")


class HingeStaleness(StrictModel):
    """Weight 1 up to ``threshold`` versions, then ``1 / (slope * (staleness - threshold) + 1)``."""

    kind: Literal["hinge"] = "hinge"
    slope: float = Field(10.0, ge=0)
    threshold: int = Field(4, ge=0, description="Versions of staleness that cost nothing.")


StalenessConfig = Annotated[
    ConstantStaleness | PolynomialStaleness | HingeStaleness, Field(discriminator="kind")
]


Missing = Literal["zero", "reweigh"]
"""What an update says of coordinates that none of its packets cover: that nothing changed there, or
nothing at all."""


class FedAvgConfig(StrictModel):
    """Synchronous rounds: the sample-weighted mean of the updates to one version."""

    kind: Literal["fedavg"] = "fedavg"
    quorum: int | None = Field(
        None, ge=1, description="Updates that end a round; all devices in the run when left out."
    )
    missing: Missing = Field(
        "zero",
        description="Coordinates that an update's packets do not cover count as zero, or do not "
        "count: the mean there is over the other devices.",
    )


class FedAsyncConfig(StrictModel):
    """Asynchronous mixing: every arriving update makes a new version."""

    kind: Literal["fedasync"] = "fedasync"
    alpha: float = Field(0.6, gt=0, le=1, description="Mixing weight of an update without delay.")
    staleness: StalenessConfig = PolynomialStaleness()
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )
    missing: Missing = Field(
        "reweigh",
        description="Coordinates that an update's packets do not cover are mixed in as unchanged "
        "since its base version (zero), or stay as they are.",
    )


class LazyConfig(StrictModel):
    """Synchronous rounds in which a device counts with what it sent last until it sends more.

    What arrives is added to a vector that the server keeps for each device; the model moves by the
    sample-weighted mean of these vectors.
    """

    kind: Literal["lazy"] = "lazy"
    quorum: int | None = Field(
        None,
        ge=1,
        description="Devices that must speak before a round ends; all in the run when left out.",
    )


class AflConfig(StrictModel):
    """Asynchronous adding: every arriving update moves the model by its share."""

    kind: Literal["afl"] = "afl"
    devices: int | None = Field(
        None,
        ge=1,
        description="What updates are divided by; the devices in the run when left out.",
    )
    server_rate: float = Field(1.0, gt=0, description="What updates are multiplied by.")
    staleness: StalenessConfig = ConstantStaleness()
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )


class FedBuffConfig(StrictModel):
    """Asynchronous buffering: every K arriving updates make a new version."""

    kind: Literal["fedbuff"] = "fedbuff"
    buffer: int = Field(10, ge=1, description="Updates that make a new version.")
    server_rate: float = Field(1.0, gt=0, description="What their mean is multiplied by.")
    staleness: StalenessConfig = PolynomialStaleness()
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )


class DmaFlConfig(StrictModel):
    """Asynchronous mixing of updates whose devices were told to upload."""

    kind: Literal["dma_fl"] = "dma_fl"
    alpha: float = Field(0.6, gt=0, le=1, description="Mixing weight of an update without delay.")
    staleness: StalenessConfig = PolynomialStaleness()
    max_staleness: int | None = Field(
        None, ge=0, description="Older updates are refused; no limit when left out."
    )


AggregationConfig = Annotated[
    FedAvgConfig
    | FedAsyncConfig
    | LazyConfig
    | AflConfig
    | FedBuffConfig
    | SpFlConfig
    | DmaFlConfig,
    Field(discriminator="kind"),
]


class FullDownlink(StrictModel):
    """Every download is the whole model."""

    kind: Literal["full"] = "full"


class DeltaDownlink(StrictModel):
    """A device gets the entries that changed since the version it holds, exactly."""

    kind: Literal["delta"]


class QuantisedDownlink(StrictModel):
    """Every version is the one before plus a coded step; a device gets the steps it lacks."""

    kind: Literal["quantised"]
    codec: ValueCodecConfig


DownlinkConfig = Annotated[
    FullDownlink | DeltaDownlink | QuantisedDownlink, Field(discriminator="kind")
]


class TaskSpec(StrictModel):
    """One task as the server needs to know it: a vector's size, layout and first value."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    dimension: int = Field(ge=1, lt=2**32)
    layout_hash: int = Field(ge=0, lt=2**64)
    layers: tuple[int, ...] = Field(
        (), description="Parameters of each tensor, in order; only scales per layer need them."
    )
    initial: Path = Field(description="A .npy file with the float32 vector of version 0.")

    @model_validator(mode="after")
    def _layers_make_the_model(self) -> Self:
        if self.layers and sum(self.layers) != self.dimension:
            raise ValueError(
                f"the layers have {sum(self.layers)} parameters together, "
                f"the model has {self.dimension}"
            )
        return self


class StopConfig(StrictModel):
    """The run ends at whichever comes first."""

    duration_s: float = Field(gt=0, description="Emulated seconds after the start.")
    max_versions: int | None = Field(None, ge=1, description="Versions of the first task.")


class ServerTrust(StrictModel):
    """TLS on the data plane; `fadelab certs` makes these files."""

    certificate: Path = Field(description="PEM file with the server's certificate.")
    key: Path = Field(description="PEM file with its private key.")
    client_ca: Path | None = Field(
        None,
        description="PEM file of the authority that signs devices' certificates: mutual TLS. "
        "Without it, devices need no certificate.",
    )
    datagrams_in_clear: bool = Field(
        default=False,
        description="Whether datagrams may be taken although nothing protects them.",
    )


class ServerConfig(StrictModel):
    """Everything that ``fadelab server`` needs."""

    run_id: int = Field(ge=0, lt=2**32)
    listen: str = Field(description="HOST:PORT of the data plane.")
    datagram_listen: str | None = Field(
        None,
        pattern=r"^[^:]+:\d{1,5}$",
        description="HOST:PORT, IPv4, for packets that come as datagrams; none are taken without.",
    )
    trust: ServerTrust | None = Field(
        None, description="TLS on the data plane; plain text without, fit for one machine only."
    )
    tokens: Path | None = Field(
        None,
        description="File with the hashes of the devices' join tokens; every device needs its own "
        "then.",
    )
    operator_socket: Path = Field(description="Unix socket for the launcher and the validator.")
    radio_socket: Path | None = Field(
        None,
        description="Unix socket of the radio plane, for methods that divide the radio's resources.",
    )
    events_dir: Path
    checkpoint_dir: Path
    devices: int = Field(ge=1, le=65535)
    tasks: tuple[TaskSpec, ...] = Field(min_length=1, max_length=255)
    aggregation: AggregationConfig
    allocation: AllocationConfig | None = Field(
        None,
        description="What devices are given in each round, once all have reported their updates; "
        "each uploads as it likes when left out.",
    )
    scheduling: SchedulingConfig | None = Field(
        None,
        description="Tell devices when to receive and upload, and with what to compute; each does as "
        "it likes when left out.",
    )
    stop: StopConfig
    max_payload_bytes: int = Field(16384, ge=512, le=1 << 20)
    history_bytes: int = Field(
        256 << 20, ge=0, description="Memory for past versions of each task; 2 are always kept."
    )
    downlink: DownlinkConfig = Field(
        FullDownlink(), description="What is sent to a device that holds an earlier version."
    )
    downlink_memory_bytes: int = Field(
        32 << 20,
        ge=0,
        description="Memory for what is ready to be sent, and as much for the steps of a "
        "quantised downlink, for each task.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="The experiment's seed.")
    accelerate: bool = Field(
        default=False,
        description="Decode and add up with compiled kernels; needs the extra 'accelerate'.",
    )
    upload_memory_bytes: int = Field(
        64 << 20,
        ge=0,
        description="Memory for the packets of unfinished uploads; the journal keeps the others.",
    )
    partial_updates: Literal["discard", "keep"] = Field(
        "discard",
        description="What becomes of an update that its device closes early: nothing of it is "
        "used, or the packets that arrived are.",
    )
    substitute: SubstituteConfig | None = Field(
        None,
        description="What stands in for the modulus of an entry of which only the sign arrived; "
        "such entries do not count when left out.",
    )
    journal_keeps: bool = Field(
        default=False,
        description="Keep all updates in the journal until the end, so that aggregation can be done "
        "once more from the beginning.",
    )
    journal_sync: bool = Field(
        default=True,
        description="Whether durable means on the disk; if not, a crash of the machine may lose "
        "what a crash of the server does not.",
    )
    time_scale: float = Field(
        1.0, gt=0, description="Emulated seconds per second; 1 where nothing is emulated."
    )

    @model_validator(mode="after")
    def _channels_are_known(self) -> Self:
        rule = self.aggregation
        if isinstance(rule, SpFlConfig) and rule.needs_channels and self.radio_socket is None:
            raise ValueError(
                f"aggregation is sp_fl with loss: {rule.loss}, which divides the radio's "
                "resources: give radio_socket, or loss: error_free"
            )
        return self

    @model_validator(mode="after")
    def _datagrams_are_meant(self) -> Self:
        if self.trust and self.datagram_listen and not self.trust.datagrams_in_clear:
            raise ValueError(
                "datagram_listen is given together with trust, but TLS does not protect datagrams: "
                "leave it out, or allow them with trust.datagrams_in_clear"
            )
        return self

    @model_validator(mode="after")
    def _rounds_can_be_allocated(self) -> Self:
        if self.allocation is None:
            return self
        if self.radio_socket is None:
            raise ValueError("allocation needs a radio plane: give radio_socket")
        if len(self.tasks) > 1:
            raise ValueError(
                f"allocation is for the rounds of one task, but there are {len(self.tasks)} tasks"
            )
        if self.aggregation.kind not in ("fedavg", "lazy") or self.aggregation.quorum is not None:
            raise ValueError(
                "allocation needs rounds that wait for all devices: aggregation of kind fedavg or "
                "lazy, without quorum"
            )
        return self

    @model_validator(mode="after")
    def _periods_can_be_scheduled(self) -> Self:
        scheduling = self.scheduling
        if scheduling is not None:
            scheduling.check(devices=self.devices, tasks=len(self.tasks))
        in_rounds = scheduling is not None and scheduling.in_rounds
        scheduled = scheduling is not None and not in_rounds
        wrong = in_rounds and self.aggregation.kind != "fedavg"
        if wrong or scheduled != (self.aggregation.kind == "dma_fl"):
            raise ValueError(
                "aggregation of kind dma_fl and scheduling belong together; with schedule rounds, "
                "aggregation is of kind fedavg"
            )
        return self

    @model_validator(mode="after")
    def _steps_can_be_written(self) -> Self:
        if isinstance(self.downlink, QuantisedDownlink):
            for task in self.tasks:
                try:
                    self.downlink.codec.build(task.dimension, task.layers)
                except CodecError as error:
                    raise ValueError(f"downlink of task '{task.name}': {error}") from None
        return self

    @model_validator(mode="after")
    def _models_fit_into_packets(self) -> Self:
        most = MAX_PACKETS * (self.max_payload_bytes // 4)
        for task in self.tasks:
            if task.dimension > most:
                raise ValueError(
                    f"task '{task.name}' has {task.dimension} parameters; {MAX_PACKETS} packets "
                    f"of {self.max_payload_bytes} bytes carry {most}: raise max_payload_bytes"
                )
        return self
