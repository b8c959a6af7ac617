"""The timeline of local periods: what every task of every device did at each moment."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from fadelab.report.markup import Markup, card
from fadelab.report.model import Run
from fadelab.report.style import DOWN, GREEN, GREY, UP, render
from fadelab.report.units import short_name
from fadelab.results.stages import STAGES, Stage

_COLOURS = dict(zip(STAGES, (GREY, DOWN, GREEN, UP), strict=True))
_NAMED_LANES = 64
_MAX_LANES = 300
_MAX_BARS = 3000
_RASTER_COLUMNS = 1200

Lane = tuple[int, str]


def stages(run: Run) -> Markup:
    """Draw when every task of every device waited, downloaded, computed and uploaded."""
    found = run.timeline.stages
    if not found:
        return Markup()
    lanes = sorted({(stage.device, stage.task) for stage in found})
    shown = lanes[:_MAX_LANES]
    chart = render(
        "stages",
        "Timeline of waiting, downloading, computing and uploading of every device and task",
        0.9 + min(9.0, max(1.0, 0.16 * len(shown))),
        lambda figure: _draw(figure, run, found, shown),
    )
    left = len(lanes) - len(shown)
    more = f" {left} more lanes are not drawn." if left else ""
    return card(
        "Timeline of local periods",
        chart,
        caption="One lane for each task of each device, with what the agent said at the moment at "
        "which it began it. Idle: waiting for a version, or after computing for the turn to upload. "
        f"White: no period.{more}",
    )


def _draw(figure: Figure, run: Run, found: Sequence[Stage], lanes: Sequence[Lane]) -> None:
    axes = figure.subplots()
    place = {lane: number for number, lane in enumerate(lanes)}
    drawn = [stage for stage in found if (stage.device, stage.task) in place]
    end_s = max(run.summary.duration_s, *(stage.end_s for stage in drawn))
    if len(drawn) > _MAX_BARS:
        _draw_raster(axes, drawn, place, end_s)
    else:
        for name in STAGES:
            bars = _bars([stage for stage in drawn if stage.name == name], place)
            axes.add_patch(PathPatch(bars, facecolor=_COLOURS[name], linewidth=0))
    axes.set_xlim(0, end_s)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_xlabel("emulated time (s)")
    axes.grid(visible=False, axis="y")
    for number, (this, following) in enumerate(pairwise(lanes)):
        if this[0] != following[0]:
            axes.axhline(number + 0.5, color=GREY, linewidth=0.4)
    if len(lanes) <= _NAMED_LANES:
        names = [short_name(f"{device} {task}", 24) for device, task in lanes]
        axes.set_yticks(range(len(lanes)), names)
    else:
        axes.set_ylabel("device and task, in this order")
    patches = [Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
    figure.legend(handles=patches, loc="outside upper left", ncols=len(patches))


def _bars(drawn: Sequence[Stage], place: dict[Lane, int]) -> Path:
    """Join all bars into one path, which takes a fraction of the space that single ones take."""
    rows = np.array([place[stage.device, stage.task] for stage in drawn])
    starts, ends = (np.array([getattr(s, name) for s in drawn]) for name in ("start_s", "end_s"))
    x = np.stack([starts, ends, ends, starts, starts], axis=1)
    y = rows[:, None] + np.array([-0.4, -0.4, 0.4, 0.4, -0.4]) if len(drawn) else x
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(drawn)
    return Path(np.stack([x, y], axis=-1).reshape(-1, 2), codes)


def _draw_raster(axes: Axes, drawn: Sequence[Stage], place: dict[Lane, int], end_s: float) -> None:
    """Thousands of bars would only make the file large: one row of pixels per lane shows as much."""
    image = np.full((len(place), _RASTER_COLUMNS, 3), 255, dtype=np.uint8)
    for stage in drawn:
        first, last = (
            round(edge / end_s * _RASTER_COLUMNS) for edge in (stage.start_s, stage.end_s)
        )
        # The shortest stage is one pixel wide: an upload must not vanish beside minutes of waiting.
        row = image[place[stage.device, stage.task]]
        row[min(first, _RASTER_COLUMNS - 1) : max(last, first + 1)] = _rgb(_COLOURS[stage.name])
    extent = (0.0, end_s, len(place) - 0.5, -0.5)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="none")


def _rgb(colour: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8)
