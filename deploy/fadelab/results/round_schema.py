"""The summary's part on rounds whose powers the server decided."""

from typing import Literal

from pydantic import Field

from fadelab_proto.config import StrictModel


class PlannedRound(StrictModel):
    """One round whose powers the server decided; lists go by ``devices``."""

    version: int = Field(description="The one that devices trained from.")
    devices: list[int] = Field(description="Who reported an update.")
    bits: list[int] = Field(description="Of the coded update, by the paper's formula.")
    wire_bits: list[int] = Field(
        description="Reported layer-2 bits, headers of all layers included."
    )
    coefficient: list[float] = Field(description="Power over full power; 0: the device was silent.")
    rate_bps: list[float] = Field(description="Planned rate, no less than the links' floor.")
    planned_s: list[float] = Field(description="Upload by the formulas.")
    measured_s: list[float | None] = Field(
        description="From the device's go-ahead to its last packet; null if it did not arrive."
    )
    planned_j: list[float] = Field(description="Radiated, by the formulas.")
    measured_j: list[float | None] = Field(
        description="Power in force times measured time; null if the upload did not arrive."
    )
    round_planned_s: float = Field(description="Longest upload and computing.")
    round_planned_j: float = Field(description="All uploads and computing.")
    round_measured_s: float | None = Field(description="Null if the round did not end.")
    round_measured_j: float | None
    slowest: int | None = Field(description="Device whose upload took longest, as measured.")
    slowest_as_planned: bool | None = Field(
        description="Whether its plan is within 5 % of the longest; null if an upload is missing."
    )
    silenced: list[int] = Field(
        description="Devices with something to send that were given no power."
    )
    solve_s: float = Field(description="Time that the power control took to decide.")


class RoundPlans(StrictModel):
    """Rounds whose powers the server decided: planned against measured, never mixed."""

    power_control: str
    stop_reason: str = Field(description="Why the run ended, such as a budget that is spent.")
    rounds: list[PlannedRound]
    median_ratio: float | None = Field(description="Measured over planned latency, all uploads.")
    long_uploads: int = Field(description="Uploads of more than 50 full frames.")
    median_ratio_of_long: float | None = Field(description="The same of these.")
    slowest_judged: int = Field(description="Rounds all of whose uploads arrived.")
    slowest_as_planned: int = Field(description="In how many of them the slowest was as planned.")
    largest_rate_gap: float = Field(
        description="Largest relative difference of a planned rate from the one put in force."
    )
    largest_rate_drift: float | None = Field(
        None,
        description="Largest relative difference, from the moment at which a round's powers were in "
        "force to its last packet, of a sending link's rate from the planned one; null if no "
        "timeline was recorded.",
    )
    rates_compared: int = Field(0, description="Ticks of sending links that were looked at.")
    rounds_ended: int = Field(0, description="Rounds that made a version.")
    spent_budget: Literal["energy", "latency"] | None = Field(
        None, description="Which budget ended the run; null if none did."
    )
    planned_s: float = Field(description="Sum over the rounds that ended.")
    planned_j: float
    measured_s: float
    measured_j: float
    mean_bits_per_update: float | None = Field(description="Nominal, of updates that were sent.")
    nominal_share: float | None = Field(
        None,
        description="Nominal bits of all updates that were due, over those of 32 bits for each "
        "entry. An update that a lazy rule skips was due and has none; one for which there was no "
        "power was not.",
    )
    wire_share: float | None = Field(
        None,
        description="Layer-2 bytes that uplinks carried, whatever for, over those of the same "
        "updates with 32 bits for each entry and the headers of all layers.",
    )
    silenced: int = Field(description="Updates that were not sent for want of power.")
