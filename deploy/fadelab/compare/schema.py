"""The typed ``compare.json``; its JSON Schema is published in ``docs/schemas``."""

from typing import Literal

from pydantic import Field

from fadelab.sweep.record import AxisEntry
from fadelab_proto.config import StrictModel


class MeasureInfo(StrictModel):
    """What a number is."""

    title: str
    unit: str = Field(description="Empty for a number without one.")
    task: str | None = Field(description="Null for a number of the whole run.")
    higher_is_better: bool | None = Field(description="Null where neither is.")


class MeanResult(StrictModel):
    """The mean over a group's valid runs."""

    n: int
    mean: float
    std: float | None = Field(description="Of the runs' values; null for one run.")
    low: float | None = Field(description="Interval of the mean; null for one run.")
    high: float | None


class DifferenceResult(StrictModel):
    """The mean difference to the baseline's runs with the same seeds."""

    n: int
    mean: float
    low: float | None
    high: float | None
    relative: float | None = Field(
        description="Mean difference over the baseline's mean of the same seeds."
    )
    seeds: list[int] = Field(description="Seeds that were paired.")
    unpaired: list[int] = Field(description="Seeds that only one of the two has a value of.")


class MeasureResult(StrictModel):
    """One measure of one group."""

    mean: MeanResult | None = Field(description="Null if no valid run has a value.")
    without: list[int] = Field(
        description="Seeds of valid runs without a value, such as those that never reached a target."
    )
    difference: DifferenceResult | None = Field(
        description="Null for the baseline, and where no seed can be paired."
    )


class RunResult(StrictModel):
    """One run of a group."""

    seed: int
    folder: str
    state: Literal["valid", "invalid", "failed", "missing"] = Field(
        description="Invalid: its own measurements say so. Failed: it ended early. Missing: there is "
        "no finished run of the planned experiment."
    )
    reasons: list[str] = Field(description="Why it does not count.")
    values: dict[str, float | None] = Field(
        description="By measure, of invalid runs too; null where there is none."
    )


class Group(StrictModel):
    """The runs of one variant at one grid point."""

    variant: str
    point: dict[str, str]
    runs: list[RunResult]
    results: dict[str, MeasureResult] = Field(description="Of valid runs alone, by measure.")


class Comparison(StrictModel):
    """``compare.json``: groups of runs beside one another."""

    compare_version: Literal[1] = 1
    title: str
    confidence: float
    baseline: str | None = Field(description="Null if there is but one variant.")
    variants: list[str]
    axes: list[AxisEntry]
    main: list[str] = Field(description="The measures that were asked for.")
    measures: dict[str, MeasureInfo]
    groups: list[Group]
    remarks: list[str] = Field(description="What a reader should know before believing this.")
