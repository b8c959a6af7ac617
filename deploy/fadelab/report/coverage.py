"""Where the devices were and when they could talk: timeline, programmed rates and map."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from fadelab.report.markup import Markup, card, empty
from fadelab.report.model import BoolArray, FloatArray, Run, ScheduleView
from fadelab.report.style import DOWN, GREEN, GREY, INK, UP, VERMILION, WIDTH_IN, note, render
from fadelab.report.units import plural, short_name, spread
from fadelab.results.schema import Contact, DeviceResult

_COVERAGE = (
    "A dashed circle is a coverage radius; with hysteresis, a device may keep its contact a "
    "little beyond it. "
)
_RASTER_COLUMNS = 800
_MAX_BARS = 3000
_MAX_LANES = 150
_RATE_SAMPLES = 300
_MAP_POINTS = 20_000
_MAP_CELLS = 60
_LARGE_SITES = 16


def timeline(run: Run) -> Markup:
    """Draw each device's contact windows, how many were in contact, and the programmed rates."""
    title = "Contact timeline"
    if not any(device.contacts for device in run.devices.values()):
        return card(title, empty("No device was ever in contact with a base station."))

    lanes_in = min(max(1.0, 0.2 * len(run.devices)), 5.0)
    chart = render(
        "timeline",
        "Contact windows of every device, devices in contact and programmed rates against time",
        lanes_in + 0.36 * WIDTH_IN,
        lambda figure: _draw_timeline(figure, run, lanes_in),
    )
    return card(
        title,
        chart,
        caption="A bar is a contact window: the time in which the link of a device was open; "
        "between windows nothing passes in either direction. Programmed rate: the layer-2 rate "
        "that the radio model asked the kernel for, at the devices in contact; the line is their "
        "median, the band reaches from the 10th to the 90th percentile.",
    )


def _draw_timeline(figure: Figure, run: Run, lanes_in: float) -> None:
    lanes, count, rates = figure.subplots(
        3, 1, sharex=True, height_ratios=(lanes_in, 0.1 * WIDTH_IN, 0.18 * WIDTH_IN)
    )
    contacts = [device.contacts for device in run.devices.values()]
    end_s = max(run.summary.duration_s, *(c.end_s for windows in contacts for c in windows))
    raster = _raster(contacts, end_s)
    _draw_lanes(lanes, run, contacts, raster, end_s)
    centres = (np.arange(_RASTER_COLUMNS) + 0.5) * end_s / _RASTER_COLUMNS
    count.fill_between(centres, raster.sum(axis=0), step="mid", color=GREEN, alpha=0.5, linewidth=0)
    count.set_ylim(0, 1.08 * len(contacts))
    count.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    count.set_ylabel("in contact\n(devices)")
    _draw_rates(rates, run.schedule)
    rates.set_xlim(0, end_s)
    rates.set_xlabel("emulated time (s)")


def _raster(contacts: Sequence[Sequence[Contact]], end_s: float) -> BoolArray:
    """Tell for each device and column of time whether the column's centre lies in a window."""
    raster = np.zeros((len(contacts), _RASTER_COLUMNS), dtype=bool)
    for row, windows in zip(raster, contacts, strict=True):
        for window in windows:
            first, last = (
                math.ceil(edge / end_s * _RASTER_COLUMNS - 0.5)
                for edge in (window.start_s, window.end_s)
            )
            row[max(0, first) : last] = True
    return raster


def _draw_lanes(
    axes: Axes,
    run: Run,
    contacts: Sequence[Sequence[Contact]],
    raster: BoolArray,
    end_s: float,
) -> None:
    devices = len(contacts)
    axes.set_ylim(devices - 0.5, -0.5)
    if devices > _MAX_LANES or sum(map(len, contacts)) > _MAX_BARS:
        # Thousands of bars would only make the file large: one pixel row per device shows as much.
        image = np.where(raster[..., None], _rgb(GREEN), _rgb("#FFFFFF"))
        extent = (0, end_s, devices - 0.5, -0.5)
        axes.imshow(image, extent=extent, aspect="auto", interpolation="none")
        axes.grid(visible=False)
    else:
        axes.add_patch(PathPatch(_bars(contacts), facecolor=GREEN, linewidth=0))
    axes.grid(visible=False, axis="y")
    if run.shows_names:
        axes.set_yticks(range(devices), [short_name(name) for name in run.devices])
    else:
        axes.set_ylabel("device, in the order of summary.json")


def _rgb(colour: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8)


def _bars(contacts: Sequence[Sequence[Contact]]) -> Path:
    """Join all bars into one path, which takes a fraction of the space that single ones take."""
    corners = [
        ((c.start_s, lane - 0.36), (c.end_s, lane - 0.36), (c.end_s, lane + 0.36),
         (c.start_s, lane + 0.36), (c.start_s, lane - 0.36))
        for lane, windows in enumerate(contacts)
        for c in windows
    ]  # fmt: skip
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(corners)
    return Path(np.array(corners).reshape(-1, 2), codes)


def _draw_rates(axes: Axes, schedule: ScheduleView) -> None:
    ticks = _sample(len(schedule.t_s), _RATE_SAMPLES)
    if not schedule.is_open[ticks].any():
        note(axes, "No link was open in the recorded schedule.")
        return
    for name, rates, colour in (
        ("uplink", schedule.rate_up_bps, UP),
        ("downlink", schedule.rate_down_bps, DOWN),
    ):
        low, median, high = _open_quantiles(rates[ticks] / 1e6, schedule.is_open[ticks])
        axes.fill_between(schedule.t_s[ticks], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(schedule.t_s[ticks], median, color=colour, linewidth=1, label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("programmed\nrate (Mbit/s)")
    axes.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.14))


def _sample(length: int, at_most: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, length - 1, min(length, at_most)).astype(np.intp))


def _open_quantiles(values: FloatArray, is_open: BoolArray) -> NDArray[np.float64]:
    """Return the 10, 50 and 90 % quantiles over the open links, shape (3, ticks); NaN if none."""
    quantiles = np.full((3, len(values)), np.nan)
    for tick, (row, mask) in enumerate(zip(values, is_open, strict=True)):
        if mask.any():
            quantiles[:, tick] = np.quantile(row[mask], (0.1, 0.5, 0.9))
    return quantiles


def field_map(run: Run) -> Markup:
    """Draw where the devices moved, the coverage, and how long each device was in contact."""
    title = "Map and contact share"
    if run.schedule.x_m.size == 0:
        return card(title, empty("The run recorded no link schedule, so there is no map."))
    if not run.schedule.has_places:
        return card(title, empty("The links' timeline has no places, so there is no map."))

    chart = render(
        "map",
        "Trajectories of the devices around the base stations, and share of time in contact",
        0.5 * WIDTH_IN,
        lambda figure: _draw_field(figure, run),
    )
    counts = [float(len(device.contacts)) for device in run.devices.values()]
    windows = f" Contact windows per device: {spread(counts, '')}." if counts else ""
    return card(
        title,
        chart,
        caption="Positions are those of the mobility model, from the recorded link schedule. "
        + (_COVERAGE if run.schedule.radius_m is not None else "")
        + "Contact share: time in contact windows over the duration of the run."
        + windows,
    )


def _draw_field(figure: Figure, run: Run) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    if run.shows_names:
        _draw_trajectories(left, run.schedule)
    else:
        _draw_density(figure, left, run.schedule)
    _draw_cell(left, run.schedule)
    _draw_contact_share(right, run)


def _draw_trajectories(axes: Axes, schedule: ScheduleView) -> None:
    ticks, devices = schedule.x_m.shape
    kept = _sample(ticks, max(2, _MAP_POINTS // devices))
    gap = np.full((1, devices), np.nan)
    # Columns after one another with gaps between them: all trajectories in one SVG path.
    x, y = (np.vstack([values[kept], gap]).T.ravel() for values in (schedule.x_m, schedule.y_m))
    is_open = np.vstack([schedule.is_open[kept], np.zeros((1, devices), dtype=bool)]).T.ravel()
    axes.plot(x, y, color=GREY, linewidth=0.7, alpha=0.7, label="out of contact")
    axes.plot(np.where(is_open, x, np.nan), y, color=GREEN, linewidth=1.3, label="in contact")
    axes.plot(schedule.x_m[0], schedule.y_m[0], ".", color=INK, markersize=4, label="start")
    if devices <= 12:
        for name, x_m, y_m in zip(
            schedule.device_ids, schedule.x_m[0], schedule.y_m[0], strict=True
        ):
            axes.annotate(
                short_name(name, 12),
                (x_m, y_m),
                (3, 3),
                textcoords="offset points",
                fontsize=6.5,
                bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
            )


def _draw_density(figure: Figure, axes: Axes, schedule: ScheduleView) -> None:
    kept = _sample(len(schedule.t_s), 1000)
    x, y = schedule.x_m[kept].ravel(), schedule.y_m[kept].ravel()
    cells, x_edges, y_edges = np.histogram2d(x, y, bins=_MAP_CELLS)
    shares = 100 * cells.T / cells.sum()
    extent = (x_edges[0], x_edges[-1], y_edges[0], y_edges[-1])
    image = axes.imshow(
        shares, extent=extent, origin="lower", cmap="Blues", interpolation="none", vmin=0
    )
    figure.colorbar(image, ax=axes, label="device time spent in a cell (%)", shrink=0.7)
    axes.grid(visible=False)


def _draw_cell(axes: Axes, schedule: ScheduleView) -> None:
    """Draw the base stations, their coverage and the area; frame what there is to see."""
    corners = [(schedule.x_m.min(), schedule.y_m.min()), (schedule.x_m.max(), schedule.y_m.max())]
    sites = len(schedule.sites_m)
    if sites:
        size = 7 if sites <= _LARGE_SITES else 4
        name = "base station" if sites == 1 else "base stations"
        axes.plot(*schedule.sites_m.T, "^", color=VERMILION, markersize=size, label=name)
    radius_m = schedule.radius_m or 0.0
    for x_m, y_m in schedule.sites_m.tolist():
        if radius_m:
            axes.add_patch(
                Circle((x_m, y_m), radius_m, fill=False, edgecolor=VERMILION, linestyle="--")
            )
        corners += [(x_m - radius_m, y_m - radius_m), (x_m + radius_m, y_m + radius_m)]
    if schedule.area_m is not None:
        axes.add_patch(Rectangle((0, 0), *schedule.area_m, fill=False, edgecolor=GREY))
        corners += [(0.0, 0.0), schedule.area_m]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    margin = max(5.0, 0.04 * float((high - low).max()))
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)
    axes.set_aspect("equal")
    axes.set_xlabel("x (m)")
    axes.set_ylabel("y (m)")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=4, columnspacing=1, handletextpad=0.4
    )


def _draw_contact_share(axes: Axes, run: Run) -> None:
    shares = [_contact_share(device, run.summary.duration_s) for device in run.devices.values()]
    axes.set_xlim(0, 100)
    axes.set_xlabel("time in contact (%)")
    if not run.shows_names:
        axes.hist(shares, bins=list(range(0, 101, 4)), color=GREEN, alpha=0.8)
        axes.set_ylabel("devices")
        return
    lanes = range(len(shares))
    axes.barh(lanes, shares, height=min(0.7, 0.1 * len(shares)), color=GREEN, alpha=0.8)
    for lane, value, device in zip(lanes, shares, run.devices.values(), strict=True):
        inside = value > 60
        axes.text(
            value + (-1 if inside else 1), lane, plural(len(device.contacts), "window"),
            ha="right" if inside else "left", va="center", fontsize=7,
            color="white" if inside else INK,
        )  # fmt: skip
    axes.set_yticks(lanes, [short_name(name) for name in run.devices])
    axes.set_ylim(max(1, len(shares)) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _contact_share(device: DeviceResult, duration_s: float) -> float:
    in_contact_s = sum(window.end_s - window.start_s for window in device.contacts)
    return min(100.0, 100 * in_contact_s / duration_s) if duration_s > 0 else 0.0
