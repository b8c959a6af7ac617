"""Where base stations or access points stand."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_proto.config import StrictModel
from fadelab_proto.seeds import Stream, generator


class ListedSites(StrictModel):
    """Every site at a given place."""

    kind: Literal["listed"] = "listed"
    positions_m: list[tuple[float, float]] = Field(
        min_length=1, max_length=4096, description="x and y of site 0, 1, ..."
    )

    def place(self, area_m: tuple[float, float], seed: int) -> FloatArray:
        """Return the places, shape ``(sites, 2)``; ValueError for one outside the area."""
        del seed
        for x_m, y_m in self.positions_m:
            if not (0 <= x_m <= area_m[0] and 0 <= y_m <= area_m[1]):
                raise ValueError(
                    f"the base station at ({x_m:g}, {y_m:g}) stands outside the area of "
                    f"{area_m[0]:g} m x {area_m[1]:g} m"
                )
        return np.asarray(self.positions_m, dtype=np.float64)


class GridSites(StrictModel):
    """Sites in the middles of equal rectangles, each moved a little at random."""

    kind: Literal["grid"] = "grid"
    columns: int = Field(ge=1, le=64, description="Sites along the area's width.")
    rows: int = Field(ge=1, le=64, description="Sites along the area's height.")
    jitter: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Greatest displacement along each axis, as a part of the grid's spacing.",
    )

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if self.columns * self.rows > 4096:
            raise ValueError(f"{self.columns} x {self.rows} sites are more than 4096")
        return self

    def place(self, area_m: tuple[float, float], seed: int) -> FloatArray:
        """Return the places, shape ``(sites, 2)``, row by row."""
        x, y = np.meshgrid(np.arange(self.columns) + 0.5, np.arange(self.rows) + 0.5)
        grid = np.column_stack([x.ravel(), y.ravel()])
        draw = generator(seed, Stream.CHANNEL, ChannelDraw.SITES)
        moved = grid + self.jitter * draw.uniform(-1, 1, grid.shape)
        places_m: FloatArray = moved * np.array([area_m[0] / self.columns, area_m[1] / self.rows])
        return places_m


AnySites = Annotated[ListedSites | GridSites, Field(discriminator="kind")]
