"""Where a device's energy figures come from, and what they are."""

from fadelab.report.markup import Cell, Markup, card, table
from fadelab.report.model import Run
from fadelab.report.units import NONE, number
from fadelab.results.schema import DeviceResult

_ROWS = 100
_HEADINGS = (
    "device",
    "measured by",
    "model (J)",
    "measured (J)",
    "training (J)",
    "uploads (J)",
    "uploads per wire MB (J)",
    "mean (W)",
)


def energy_table(run: Run) -> Markup:
    """List every board's energy by the model and, where it has a sensor, as measured."""
    if run.manifest.get("deployment") != "boards":
        return Markup("")
    rows = [_row(name, device) for name, device in run.devices.items()]
    return card(
        "Energy",
        table(_HEADINGS, rows, limit=_ROWS),
        caption="Model: the formulas from measured times. Measured: the whole board by its own "
        "sensor, from the start of the run to its end; training and uploads are its energy in these "
        "phases, which may overlap with others' work on the board. Devices without a sensor have the "
        "model only.",
    )


def _row(name: str, device: DeviceResult) -> list[Cell]:
    joules, measured = device.joules, device.measured_energy
    model_j = joules.compute + joules.uplink + joules.downlink
    if measured is None:
        return [Cell(name), Cell("model only"), Cell(number(model_j), model_j), *[Cell(NONE)] * 5]
    wire_mb = device.bytes.up.wire / 1e6
    values = (measured.total_j, measured.training_j, measured.uploads_j)
    return [
        Cell(name),
        Cell(measured.source),
        Cell(number(model_j), model_j),
        *(Cell(number(value), value) for value in values),
        Cell(number(measured.uploads_j / wire_mb)) if wire_mb else Cell(NONE),
        Cell(number(measured.mean_w), measured.mean_w),
    ]
