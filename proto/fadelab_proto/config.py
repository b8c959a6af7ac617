"""The base of every configuration model: strict about keys, immutable once read."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A pydantic model that refuses unknown keys and cannot change after validation.

    Physical quantities carry their SI unit in the field name (``rate_bps``, ``power_w``), so a
    value in the wrong unit stands out where it is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
