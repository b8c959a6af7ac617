"""What a run looks like in the terminal while it goes on."""

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fadelab.experiment import Experiment
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import radio_pb2

_MAX_ROWS = 24
_LINE_EVERY_S = 10.0
_PHASES = {
    "links_ready": "links and namespaces are ready",
    "agents_forked": "agents are started",
    "all_joined": "all devices have joined",
    "started": "the run has begun",
    "over": "the run is over",
}


class RunView:
    """A table that keeps itself up to date on a terminal; a line now and then elsewhere."""

    def __init__(self, experiment: Experiment, console: Console) -> None:
        self._experiment = experiment
        self._console = console
        self._status = pb.ServerStatus()
        self._fidelity = radio_pb2.FidelityReport()
        self._last_line_s = 0.0
        self._over = False
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def phase(self, name: str, since_command_s: float) -> None:
        """Say that the run has come to a new phase; after the last one the table goes."""
        if name == "over":
            self.close()
            self._over = True
        if name in _PHASES:
            self._console.print(f"[dim]{since_command_s:6.2f} s[/]  {_PHASES[name]}")

    def links(self, variant: str, why: str) -> None:
        """Say which back-end carries the links, and why."""
        self._console.print(f"links by {variant}: {why}", style="dim", markup=False)

    def status(self, status: pb.ServerStatus) -> None:
        """Show the server's news."""
        self._status = status
        self._refresh()

    def fidelity(self, report: radio_pb2.FidelityReport) -> None:
        """Show the emulator's news."""
        self._fidelity = report
        self._refresh()

    def _refresh(self) -> None:
        if self._over:
            return
        if self._live is not None:
            # Started here and not before: by now the run is forked, and rich may use threads.
            self._live.start()
            self._live.update(self._picture(), refresh=True)
        elif self._status.started and time.monotonic() - self._last_line_s > _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self._console.print(self._headline(), *self._task_lines(), sep="\n", soft_wrap=True)

    def _headline(self) -> Text:
        tasks = self._status.tasks
        parts = [
            f"t = {self._fidelity.t_s:5.1f} of {self._experiment.duration_s:g} s",
            f"{self._status.joined} devices",
            # One task stands in the same line; several have a line each below it.
            *([f"{task.name}: {self._state(task)}" for task in tasks] if len(tasks) == 1 else []),
            f"link updates late by {self._fidelity.lateness_p99_ms:.1f} ms (p99)",
        ]
        return Text("   ".join(parts))

    def _task_lines(self) -> list[Text]:
        tasks = self._status.tasks
        if len(tasks) < 2:
            return []
        width = max(len(task.name) for task in tasks)
        return [Text(f"  {task.name:<{width}}  {self._state(task)}") for task in tasks]

    def _state(self, task: pb.TaskStatus) -> str:
        parts = [f"version {task.version}", self._reading(task)]
        if len(self._status.tasks) > 1:
            parts.append(f"staleness up to {task.largest_staleness}")
        if task.HasField("bound"):
            parts.append(f"bound {task.bound:.3g}")
        return ", ".join(parts)

    def _reading(self, task: pb.TaskStatus) -> str:
        if not task.validated:
            return "-"
        metric = self._experiment.learning[task.name].task.metric
        unit = f" {metric.unit}" if metric.unit else ""
        return f"{metric.name} {task.metric:.3f}{unit}, loss {task.loss:.3f}"

    def _picture(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title, justify in (
            ("device", "right"),
            ("contact", "left"),
            ("Mbit/s", "right"),
            ("achieved", "right"),
            ("upload", "left"),
            ("updates", "right"),
            ("staleness", "right"),
            ("wire up kB", "right"),
            ("down kB", "right"),
            ("leaked", "right"),
        ):
            table.add_column(title, justify="left" if justify == "left" else "right")
        devices = {device.device: device for device in self._status.devices}
        for link in self._fidelity.links[:_MAX_ROWS]:
            table.add_row(*_row(link, devices.get(link.device)))
        more = self._experiment.devices.count - _MAX_ROWS
        footer = [Text(f"... and {more} more devices", style="dim")] if more > 0 else []
        return Group(self._headline(), *self._task_lines(), table, *footer)


def _row(link: radio_pb2.LinkFidelity, device: pb.DeviceStatus | None) -> Sequence[str | Text]:
    return (
        str(link.device),
        Text("open", style="green") if link.open else Text("closed", style="dim"),
        f"{link.rate_up_bps / 1e6:.2f}" if link.open else "-",
        f"{link.achieved_ratio:.3f}" if link.saturated else "-",
        _upload(device),
        str(device.updates) if device is not None else "-",
        str(device.staleness) if device is not None else "-",
        f"{link.wire_up_bytes / 1e3:.0f}",
        f"{link.wire_down_bytes / 1e3:.0f}",
        Text(str(link.leaked_packets), style="red" if link.leaked_packets else "dim"),
    )


def _upload(device: pb.DeviceStatus | None) -> str:
    if device is None or device.packets == 0:
        return ""
    done = round(10 * device.packets_received / device.packets)
    return "#" * done + "." * (10 - done) + f" {device.bytes_left / 1e3:.0f} kB left"
