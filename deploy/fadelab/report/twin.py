"""The formula twin beside the sockets: decisions, durations of uploads, and what came of contacts."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fadelab.report.markup import Cell, Markup, card, figure, join, table, tag
from fadelab.report.model import Run
from fadelab.report.style import BLUE, GREY, ORANGE, WIDTH_IN, note, render, use_log_scale
from fadelab.report.units import NONE, number, plural
from fadelab.twin.schema import (
    DecisionReplay,
    TwinFigures,
    TwinPair,
    TwinResult,
    TwinRun,
    UploadDurations,
)

_ROWS = 100
_BAND = 0.05
"""Shaded: how far the median of long uploads may be off."""
_HEADINGS = (
    "device",
    *(
        f"{what}, {side}"
        for what in (
            "contacts",
            "sent",
            "acknowledged",
            "k kept",
            "staleness",
            "energy (J)",
            "upload (s)",
        )
        for side in ("sockets", "twin")
    ),
)
_CAPTION = (
    "The twin goes through the run's recorded timeline with the same policy code, and formulas in "
    "the place of the network: transfers take what the programmed rate allows, training what the "
    "emulated processor needs, everything else no time. It does not learn: what waits at a contact "
    "and how large a model is are the run's own figures of the nearest moment. Decisions: every "
    "logged observation given to the policy once more. Left: duration of each acknowledged upload, "
    "from its first byte to the acknowledgement of its last, over the formula from the same start "
    "and the same recorded rates. Middle and right: one dot for each device, sockets across, twin "
    "up. Staleness in versions; upload: median duration of those that were acknowledged."
)


def twin(run: Run) -> Markup:
    """Set the sockets' run beside its formula twin; nothing for methods that have none."""
    found = run.summary.twin
    if found is None:
        return Markup("")
    chart = render(
        "twin",
        "Upload durations over the formula, entries kept and energy of sockets and twin",
        0.3 * WIDTH_IN,
        lambda figure: _draw(figure, found),
    )
    figures = tag("div", *_figures(found), class_="figures")
    rows = Markup("") if found.run is None else _table(found.run)
    return card("Formula twin", join(figures, chart, rows), caption=_CAPTION)


def _figures(found: TwinResult) -> list[Markup]:
    shown = [_decisions(found.decisions), _durations(found.durations)]
    if found.run is not None:
        sockets, twin = found.run.total.sockets, found.run.total.twin
        shown += [
            _beside("Acknowledged", sockets.acknowledged, twin.acknowledged),
            _beside("Mean k kept", sockets.k_keep, twin.k_keep),
            _beside("Mean staleness", sockets.staleness, twin.staleness),
            _beside("Energy of contacts", sockets.energy_j, twin.energy_j, "J"),
        ]
    return shown


def _decisions(replay: DecisionReplay) -> Markup:
    left = f"; {number(replay.incomplete)} not logged in full" if replay.incomplete else ""
    return figure(
        "Decisions that differ",
        number(replay.mismatches),
        f"of {plural(replay.replayed, 'decision')} made again{left}",
        is_bad=replay.mismatches > 0,
    )


def _durations(durations: UploadDurations) -> Markup:
    deviation = durations.median_deviation
    return figure(
        "Duration over formula",
        NONE if deviation is None else number(100 * deviation, "%"),
        f"off in the median of {plural(durations.compared, 'upload')} of more than "
        f"{number(durations.least_packets)} wire packets; the server's answer took "
        f"{number(durations.median_answer_s, 's')}",
        is_bad=deviation is not None and deviation > _BAND,
    )


def _beside(name: str, sockets: float | None, twin: float | None, unit: str = "") -> Markup:
    return figure(name, number(sockets, unit), f"{number(twin, unit)} by formula")


def _table(run: TwinRun) -> Markup:
    rows = [[Cell(name), *_cells(pair)] for name, pair in run.devices.items()]
    return table(_HEADINGS, rows, foot=[Cell("all"), *_cells(run.total)], limit=_ROWS)


def _cells(pair: TwinPair) -> list[Cell]:
    sides = [_values(pair.sockets), _values(pair.twin)]
    return [Cell(number(value), value) for both in zip(*sides, strict=True) for value in both]


def _values(figures: TwinFigures) -> list[float | None]:
    return [
        figures.contacts,
        figures.sent,
        figures.acknowledged,
        figures.k_keep,
        figures.staleness,
        figures.energy_j,
        figures.upload_s,
    ]


def _draw(chart: Figure, found: TwinResult) -> None:
    left, middle, right = chart.subplots(1, 3)
    _draw_durations(left, found.durations)
    pairs = [] if found.run is None else list(found.run.devices.values())
    kept = [(pair.sockets.k_keep, pair.twin.k_keep) for pair in pairs]
    _draw_diagonal(middle, kept, "mean k kept")
    spent = [(pair.sockets.energy_j, pair.twin.energy_j) for pair in pairs]
    _draw_diagonal(right, spent, "energy (J)")


def _draw_durations(axes: Axes, durations: UploadDurations) -> None:
    points = [
        (upload.wire_packets, upload.measured_s / upload.formula_s)
        for upload in durations.uploads
        if upload.formula_s
    ]
    if not points:
        note(axes, "No upload was acknowledged in its contact.")
        return
    packets, ratio = np.array(points).T
    is_long = packets > durations.least_packets
    axes.axhspan(1 - _BAND, 1 + _BAND, color=GREY, alpha=0.2, linewidth=0)
    axes.axhline(1, color=GREY, linewidth=0.8)
    axes.axvline(durations.least_packets, color=GREY, linewidth=0.8, linestyle="--")
    axes.plot(packets[~is_long], ratio[~is_long], "o", color=GREY, markersize=3)
    axes.plot(packets[is_long], ratio[is_long], "o", color=BLUE, markersize=3)
    use_log_scale(axes, "x")
    axes.set_xlabel("wire packets of the upload")
    axes.set_ylabel("measured / formula duration")


def _draw_diagonal(
    axes: Axes, pairs: Sequence[tuple[float | None, float | None]], name: str
) -> None:
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    if not known:
        note(axes, f"No figures of both: {name}.")
        return
    x, y = np.array(known).T
    top = 1.08 * max(float(x.max()), float(y.max())) or 1.0
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8)
    axes.plot(x, y, "o", color=ORANGE, markersize=3.5)
    axes.locator_params(nbins=5)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel=f"{name}, sockets", ylabel=f"{name}, twin")
