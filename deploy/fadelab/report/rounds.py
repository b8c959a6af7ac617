"""Rounds whose powers the server decided: what was planned, and what came of it."""

from fadelab.report.markup import Cell, Markup, card, figure, join, table, tag
from fadelab.report.model import Run
from fadelab.report.units import NONE, number, plural, share
from fadelab.results.round_schema import PlannedRound, RoundPlans

_ROUNDS, _UPLOADS = 100, 400
_ROUND_HEADINGS = (
    "version",
    "planned (s)",
    "measured (s)",
    "planned (J)",
    "measured (J)",
    "slowest device",
    "as planned",
    "silenced",
)
_UPLOAD_HEADINGS = (
    "version",
    "device",
    "kbit on the wire",
    "power coefficient",
    "planned rate (kbit/s)",
    "planned (s)",
    "measured (s)",
    "measured / planned",
    "planned (mJ)",
    "measured (mJ)",
)


def round_plans(run: Run) -> Markup:
    """Show planned against measured latency and energy, round by round and upload by upload."""
    plans = run.summary.rounds
    if plans is None:
        return Markup()
    rounds = [_round(one) for one in plans.rounds]
    uploads = [row for one in plans.rounds for row in _uploads(one)]
    return card(
        f"Rounds planned by power control {plans.power_control}",
        tag("div", *_figures(plans), class_="figures"),
        join(
            table(_ROUND_HEADINGS, rows=rounds, limit=_ROUNDS),
            table(_UPLOAD_HEADINGS, rows=uploads, limit=_UPLOADS),
        ),
        caption="Planned: by the formulas, for the bits on the wire that devices reported and the "
        "rates that follow from all powers. Measured: from the device's go-ahead to the arrival of "
        "its last packet; energy is the transmit power in force times measured time. Rounds count "
        "the longest upload and computing. Planned and measured are separate accounts. The slowest "
        "device is as planned if its plan is within 5 % of the round's longest. Silenced devices "
        "got no power and sent nothing. An upload is long from 50 full frames on.",
    )


def _figures(plans: RoundPlans) -> list[Markup]:
    return [
        figure("Rounds", number(len(plans.rounds)), f"end: {plans.stop_reason}"),
        figure(
            "Measured / planned latency",
            number(plans.median_ratio_of_long),
            f"median of {plural(plans.long_uploads, 'long upload')}; "
            f"of all {number(plans.median_ratio)}",
        ),
        figure(
            "Slowest as planned",
            share(plans.slowest_as_planned, plans.slowest_judged),
            f"of {plural(plans.slowest_judged, 'complete round')}",
        ),
        figure(
            "Rates during rounds",
            number(plans.largest_rate_drift),
            f"largest relative difference from the plan, {plans.rates_compared} ticks of sending "
            "links",
        ),
        figure(
            "Uplink against full precision",
            number(plans.wire_share),
            f"of the wire bytes; of the updates' bits {number(plans.nominal_share)}",
        ),
        figure("Planned", number(plans.planned_j, "J"), f"in {number(plans.planned_s, 's')}"),
        figure("Measured", number(plans.measured_j, "J"), f"in {number(plans.measured_s, 's')}"),
    ]


def _round(one: PlannedRound) -> list[Cell]:
    as_planned = {True: "yes", False: "no", None: NONE}[one.slowest_as_planned]
    return [
        Cell(str(one.version), one.version),
        Cell(number(one.round_planned_s), one.round_planned_s),
        _cell(one.round_measured_s),
        Cell(number(one.round_planned_j), one.round_planned_j),
        _cell(one.round_measured_j),
        Cell(NONE if one.slowest is None else str(one.slowest)),
        Cell(as_planned, is_bad=one.slowest_as_planned is False),
        Cell(", ".join(map(str, one.silenced)) or NONE),
    ]


def _uploads(one: PlannedRound) -> list[list[Cell]]:
    rows = []
    for at, device in enumerate(one.devices):
        planned_s, measured_s = one.planned_s[at], one.measured_s[at]
        planned_j, measured_j = one.planned_j[at], one.measured_j[at]
        ratio = measured_s / planned_s if measured_s is not None and planned_s > 0 else None
        rows.append(
            [
                Cell(str(one.version), one.version),
                Cell(str(device), device),
                Cell(number(one.wire_bits[at] / 1e3), one.wire_bits[at]),
                Cell(number(one.coefficient[at]), one.coefficient[at]),
                Cell(number(one.rate_bps[at] / 1e3), one.rate_bps[at]),
                Cell(number(planned_s), planned_s),
                _cell(measured_s),
                _cell(ratio),
                Cell(number(1e3 * planned_j), planned_j),
                _cell(None if measured_j is None else 1e3 * measured_j),
            ]
        )
    return rows


def _cell(value: float | None) -> Cell:
    return Cell(NONE) if value is None else Cell(number(value), value)
