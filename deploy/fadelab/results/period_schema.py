"""The summary's part on local periods: what devices that train several tasks did with their time."""

from pydantic import Field

from fadelab_proto.config import StrictModel


class PeriodJoules(StrictModel):
    """Energy of local periods by the formulas of DMA-FL (equations 21, 23 and 25)."""

    compute: float
    uplink: float
    downlink: float


class PeriodFigures(StrictModel):
    """Local periods that ended; means are over them and null if there are none."""

    ended: int
    mean_idle_s: float | None = Field(
        description="Waiting for a version and for the turn to upload, as measured."
    )
    mean_downlink_s: float | None
    mean_compute_s: float | None = Field(description="Emulated computing (20).")
    mean_uplink_s: float | None
    mean_steps: float | None = Field(description="Local steps e.")
    mean_batch: float | None = Field(description="Samples of a step, B.")
    mean_cpu_hz: float | None = Field(description="Emulated clock f.")
    downlink_bits: float = Field(description="Of all models that were fetched, together.")
    uplink_bits: float = Field(description="Of all models that were sent, together.")
    modelled: PeriodJoules = Field(
        description="From formulas alone: emulated computing, and the bits over the rate that was "
        "programmed for the link, as if each task had the link to itself."
    )
    metered: PeriodJoules = Field(
        description="From measured times: the same powers for as long as it really took."
    )
    overruns: int = Field(description="Trainings that really took longer than they were said to.")
    late_s: float = Field(description="By how much these did so, together; emulated seconds.")


class DevicePeriods(StrictModel):
    """One task's periods of one device."""

    device: int
    periods: PeriodFigures


class BoundPoint(StrictModel):
    """The convergence bound of DMA-FL (19), term by term; null where a number cannot hold it."""

    t_s: float = Field(description="When it was computed.")
    version: int
    a: float | None = Field(description="Initial error.")
    b: float | None = Field(description="Dissimilarity of devices.")
    c: float | None = Field(description="Noise of batches.")
    d: float | None = Field(description="Local models that leave the version they began with.")
    e: float | None = Field(description="Staleness.")
    f: float | None = Field(description="Data that change: concept drift.")
    total: float | None


class TaskPeriods(StrictModel):
    """One task's periods, over all devices and by device."""

    periods: PeriodFigures
    scheduled: int = Field(description="Periods that the server decided on.")
    mean_planned_idle_s: float | None = Field(
        description="Waiting before a period, as the server planned it; null if it plans none."
    )
    staleness_cap: int | None = Field(
        description="Versions by which an update may be late; null if the method has no limit."
    )
    largest_staleness: int | None = Field(description="Of the applied updates; null if none was.")
    over_cap: int = Field(description="Applied updates that were staler than the limit.")
    devices: list[DevicePeriods]
    bound: BoundPoint | None = Field(description="The last one; null if none was computed.")


class Periods(StrictModel):
    """Local periods of devices: waiting, downloading, computing, uploading."""

    tasks: dict[str, TaskPeriods]
    modelled: PeriodJoules = Field(description="Of all tasks together.")
    metered: PeriodJoules = Field(description="Of all tasks together.")
    overruns: int
    trainings: int
