"""Signs and moduli: what was predicted to arrive, and what did."""

from fadelab.report.markup import Cell, Markup, card, table, tag
from fadelab.report.model import Run
from fadelab.report.units import NONE, number
from fadelab.results.schema import ClassTraffic
from fadelab.results.sp_fl_schema import ClassArrivals

_ROWS = 100
_MODES = {
    "deadline": "what is incomplete at the deadline is lost; the links' rates follow the channel",
    "datagram": "datagrams are lost on the links, as often as the formula says",
    "bernoulli": "drawn at the receiver from the formula; nothing is lost on the links",
    "error_free": "nothing is lost",
}


def sp_fl(run: Run) -> Markup:
    """Show what arrived of each class; nothing for other methods."""
    found = run.summary.sp_fl
    if found is None:
        return Markup("")
    rows = [
        _row("signs", found.sign, _traffic(run, "sign")),
        _row("moduli, given the signs", found.modulus, _traffic(run, "modulus")),
    ]
    headings = [
        "class", "of updates", "predicted", "95 % interval", "carried", "arrived", "inside",
        "packets sent", "bytes sent", "queue full",
    ]  # fmt: skip
    power = NONE if found.mean_sign_power is None else number(100 * found.mean_sign_power)
    kappa = NONE if found.last_kappa is None else number(found.last_kappa)
    return card(
        "Signs and moduli",
        tag("p", f"Loss mode {found.loss}: {_MODES[found.loss]}.", class_="fact"),
        tag(
            "p",
            f"{found.rounds} rounds, {found.updates} updates: {found.both} with signs and moduli, "
            f"{found.signs_alone} with signs alone, {found.none} lost. On average {power} % of the "
            f"power was for signs; kappa at the end: {kappa}.",
            class_="fact",
        ),
        table(headings, rows, limit=len(rows)),
        _by_device(run),
        caption="Predicted: mean of the probabilities with which the rounds were decided. The "
        "interval is that of as many trials. Carried: what the links' programmed rates suffice for, "
        "where a deadline decides. Packets and bytes are those of the links' class queues, layer 2, "
        "of all devices; so are packets that found the queue full. Second table: the uplink of every "
        "device by its interface's counter at the server's end, and by those of the class queues.",
    )


def _by_device(run: Run) -> Markup:
    """Hold every device's interface against the queues of its classes."""
    names = [own.name for device in run.devices.values() for own in device.up.classes]
    names = list(dict.fromkeys(names))
    headings = [
        "device",
        "interface (bytes)",
        *(f"{name} ({what})" for name in names for what in ("packets", "bytes", "queue full")),
    ]
    rows = [
        [
            Cell(device),
            Cell(str(result.bytes.up.wire)),
            *(
                Cell(str(count))
                for own in result.up.classes
                for count in (own.packets, own.bytes, own.overflowed or 0)
            ),
        ]
        for device, result in run.devices.items()
    ]
    return table(headings, rows, limit=_ROWS)


def _row(name: str, arrivals: ClassArrivals, traffic: list[ClassTraffic]) -> list[Cell]:
    inside = arrivals.inside
    return [
        Cell(name),
        Cell(str(arrivals.packets)),
        Cell(_share(arrivals.predicted)),
        Cell(f"{_share(arrivals.low)} to {_share(arrivals.high)}"),
        Cell(_share(arrivals.carried)),
        Cell(_share(arrivals.empirical)),
        Cell(NONE if inside is None else "yes" if inside else "no"),
        Cell(str(sum(own.packets for own in traffic))),
        Cell(str(sum(own.bytes for own in traffic))),
        Cell(str(sum(own.overflowed or 0 for own in traffic))),
    ]


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def _traffic(run: Run, name: str) -> list[ClassTraffic]:
    return [own for device in run.devices.values() for own in device.up.classes if own.name == name]
