"""What a file of runs by formula holds."""

from typing import Literal

from fadelab_proto.config import StrictModel


class FormulaRun(StrictModel):
    """What the formulas make of one run."""

    variant: str
    point: dict[str, str]
    seed: int
    rounds: int
    metric: float
    """Of the last version."""
    energy_j: float
    latency_s: float
    nominal_share: float
    """Bits of all updates that were due over 32 for each entry."""
    wire_share: float
    """The same with the headers of all layers."""
    silenced: int
    spent_budget: Literal["energy", "latency"] | None


class FormulaRuns(StrictModel):
    """All runs of a sweep file, by formula."""

    formula: Literal[True] = True
    name: str
    baseline: str
    runs: list[FormulaRun]
