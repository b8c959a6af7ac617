"""Everything but the tasks that one agent process needs to know."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from fadelab_agent.config import ComputeConfig
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.lazy_config import InnovationConfig
from fadelab_agent.period_config import PeriodConfig
from fadelab_agent.policy import MadsConfig, PolicyConfig
from fadelab_agent.radio_config import NoRadioConfig, RadioConfig
from fadelab_agent.routes import ClassRoutes, MtuBytes, UplinkShares
from fadelab_agent.trust import AgentTrust
from fadelab_proto.config import StrictModel
from fadelab_proto.datagram import ETHERNET_MTU_BYTES
from fadelab_proto.substitutes import LastStep, SubstituteConfig


class AgentConfig(StrictModel):
    """Everything but the tasks that one agent process needs."""

    run_id: int = Field(ge=0, lt=2**32)
    seed: int = Field(0, ge=0, lt=2**63, description="The experiment's seed.")
    device: int = Field(ge=0, le=65535)
    server: str = Field(description="HOST:PORT of the server's data plane.")
    trust: AgentTrust | None = Field(
        None, description="TLS to the server; plain text without, fit for one machine only."
    )
    token: Path | None = Field(
        None, description="File with this device's join token, if the server asks for one."
    )
    radio_socket: Path | None = Field(
        None, description="Unix socket of the emulator's radio plane; none on a real link."
    )
    radio: RadioConfig = Field(
        NoRadioConfig(), description="What tells of a real link, without a radio plane."
    )
    events_dir: Path
    state_dir: Path | None = Field(
        None,
        description="Folder of this device alone, in which a restarted agent finds the update that "
        "was under way; without it, that update is lost with the agent.",
    )
    state_sync: bool = Field(
        default=True,
        description="Whether it shall survive a crash of the machine, not of the agent alone: each "
        "update then waits for the disk once.",
    )
    policy: PolicyConfig
    error_memory: bool = True
    innovation: InnovationConfig | None = Field(
        None,
        description="Send how updates changed, as far as this rule finds it worth sending; only "
        "for servers that aggregate lazily. Takes the error memory's place.",
    )
    substitute: SubstituteConfig | None = Field(
        None, description="As in the server's configuration."
    )
    reports_updates: bool = Field(
        default=False,
        description="Tell the server of every update before it is uploaded, and wait for what the "
        "round gives it; only for servers that allocate.",
    )
    gives_up: bool = Field(
        default=False,
        description="Whether an update ends with the contact window that it was sent in; if not, "
        "the next window goes on where this one ended.",
    )
    contact: ContactConfig | None = Field(
        None,
        description="Train between contacts and upload once in each; when left out, a device "
        "uploads whenever it has trained for its local steps.",
    )
    reports: bool = Field(
        default=False,
        description="Report each update's figures before it is sent, and send within the time that "
        "the server gives the round; only for servers that ask for it.",
    )
    periods: PeriodConfig | None = Field(
        None,
        description="Ask the server for each local period, and do as it says; only for servers that "
        "schedule them.",
    )
    keeps_model: bool = Field(
        default=False,
        description="Hold the last model, so that only what has changed needs to be fetched.",
    )
    max_payload_bytes: int = Field(16384, ge=512, le=1 << 20)
    classes: ClassRoutes = Field(
        ClassRoutes(), description="How the packets of each class travel to the server."
    )
    mtu_bytes: MtuBytes = ETHERNET_MTU_BYTES
    uplink_shares: UplinkShares = Field(
        UplinkShares(), description="How the link divides the uplink's rate among packet classes."
    )
    uplink_power_w: float = Field(0.2, ge=0)
    downlink_power_w: float = Field(1.0, ge=0)
    compute: ComputeConfig = ComputeConfig()
    measure_memory: bool = Field(
        default=True, description="Log private memory at the end; the kernel walks every page."
    )
    measure_power: bool = Field(
        default=False, description="Log what the board's own sensor says, if it has one."
    )
    accelerate: bool = Field(default=False, description="As in the server's configuration.")
    stall_s: float = Field(
        10.0, gt=0, description="Seconds in contact without progress that are always tolerated."
    )
    time_scale: float = Field(
        1.0, gt=0, description="Emulated seconds per second; 1 where nothing is emulated."
    )
    clock_offset_s: float = Field(
        0.0,
        description="Seconds by which the monotonic clock of the server's machine is ahead of this "
        "machine's; 0 on one machine.",
    )

    @model_validator(mode="after")
    def _datagrams_are_meant(self) -> Self:
        if self.trust and self.classes.datagrams() and not self.trust.datagrams_in_clear:
            raise ValueError(
                f"the class '{self.classes.datagrams()[0][0]}' is to travel as datagrams, but TLS "
                "does not protect them: send it over a connection, or allow datagrams with "
                "trust.datagrams_in_clear"
            )
        return self

    @model_validator(mode="after")
    def _loop_suits_the_policy(self) -> Self:
        others = (self.contact, self.innovation, self.reports or None, self.reports_updates or None)
        if self.periods is not None and any(other is not None for other in others):
            raise ValueError(
                "the server schedules local periods: periods excludes contact, innovation, reports "
                "and reports_updates"
            )
        if self.contact is not None and self.innovation is not None:
            raise ValueError(
                "innovations are sent in rounds: contact and innovation exclude each other"
            )
        if self.contact is not None and self.reports_updates:
            raise ValueError(
                "updates are reported in rounds: contact and reports_updates exclude each other"
            )
        if self.contact is None and isinstance(self.policy, MadsConfig):
            raise ValueError("the policy mads decides at the beginning of a contact: give contact")
        return self

    @model_validator(mode="after")
    def _knows_its_reference(self) -> Self:
        if self.innovation is not None and self.substitute == LastStep():
            raise ValueError(
                "substitute is last_step, which a device cannot know; one that sends innovations "
                "must know what the server has of it: mean_modulus and constant are allowed"
            )
        return self
