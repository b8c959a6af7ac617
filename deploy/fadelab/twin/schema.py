"""What ``summary.json`` says of the formula twin."""

from pydantic import Field

from fadelab_proto.config import StrictModel


class DecisionReplay(StrictModel):
    """Logged decisions that were made again, by the same policy from the same observations."""

    replayed: int
    incomplete: int = Field(
        description="Decisions that were not: their events do not hold all that was known."
    )
    mismatches: int = Field(
        description="Of those replayed, how many came out otherwise: another number of entries, "
        "power, safe contact time, weight or number of bits, to the last bit of each."
    )
    mismatched: list[str] = Field(description="The first few: device, update, emulated second.")


class UploadDuration(StrictModel):
    """One update that was acknowledged in the contact that it was sent in; emulated seconds."""

    device: int
    start_s: float = Field(description="When the sender began.")
    wire_packets: int = Field(description="TCP segments of a full MTU that the update makes.")
    measured_s: float = Field(description="From then to the acknowledgement of the last byte.")
    arrived_s: float | None = Field(
        description="From then to the last packet's arrival at the server; null if it did not say."
    )
    formula_s: float | None = Field(
        description="What the recorded timeline's rate allows; null if the contact ends before."
    )


class UploadDurations(StrictModel):
    """How long uploads took, against the formula with the same start and the same rates."""

    least_packets: int = Field(description="Wire packets that an update must have more than.")
    compared: int = Field(description="Updates that have, and that the formula can carry, too.")
    too_long_by_formula: int = Field(
        0,
        description="Updates that have, but came through by the frames that a shaper lets pass at "
        "once: by formula their contact ends before.",
    )
    median_deviation: float | None = Field(
        description="Median of |measured / formula - 1| over these; null if there are none."
    )
    median_ratio: float | None = Field(description="Median of measured / formula over these.")
    median_answer_s: float | None = Field(
        description="Median, over these, of the time from the last packet's arrival to the "
        "acknowledgement: the server's work and the way back, which the formula leaves out."
    )
    uploads: list[UploadDuration] = Field(description="All, small ones included.")


class TwinFigures(StrictModel):
    """What became of contacts, over sockets or by formula; emulated seconds."""

    contacts: int = Field(description="Used, whatever was done with them.")
    skipped: int = Field(description="Of these, how many in which nothing was to be sent.")
    sent: int = Field(description="Updates, but for those that the end of the run cut off.")
    acknowledged: int = Field(description="Of these, in the contact that they were sent in.")
    k_keep: float | None = Field(description="Mean of the entries kept; null if none were counted.")
    staleness: float | None = Field(description="Mean of the taken updates', in versions.")
    energy_j: float = Field(description="Transmit power times airtime, over all contacts.")
    upload_s: float | None = Field(description="Median duration of acknowledged uploads.")


class TwinPair(StrictModel):
    """A device's figures, or all devices', over sockets and by formula."""

    sockets: TwinFigures
    twin: TwinFigures


class TwinRun(StrictModel):
    """The same contacts gone through once more, with formulas in the place of the network."""

    total: TwinPair
    devices: dict[str, TwinPair]


class TwinResult(StrictModel):
    """The formula twin of a run: docs/methods/mads.md says what it takes and what it computes."""

    decisions: DecisionReplay
    durations: UploadDurations
    run: TwinRun | None = Field(
        description="Null where the record does not say which transmit powers were in force, or "
        "links were real ones."
    )
