"""``fadelab link``: shaped links on their own, for any program."""

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fadelab.cli.link_options import number, with_link_options
from fadelab.cli.link_table import show
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link import named
from fadelab.link.driving import drive_links
from fadelab.link.oneshot import Cast, run_behind_links
from fadelab.link.options import LinkOptions
from fadelab.link.recording import export_trace
from fadelab.local.calibrate import calibrate as measure

link = typer.Typer(
    help="Shaped links on their own, for any program.", no_args_is_help=True, rich_markup_mode=None
)

# Below this a link or the transport wastes time; above it a link is faster than it was told.
_GOOD_RATIOS = (0.93, 0.957)

_Record = Annotated[
    Path | None,
    typer.Option(help="Folder to be made for the schedule, what was achieved and the events."),
]
_Devices = Annotated[int, typer.Option(help="Number of devices, each behind a link of its own.")]


class Direction(StrEnum):
    """Which way packets go."""

    UP = "up"
    DOWN = "down"


@link.command(context_settings={"allow_interspersed_args": False})
@with_link_options
def run(
    command: Annotated[
        list[str], typer.Argument(help="The program of each device, and its arguments.")
    ],
    *,
    options: LinkOptions,
    server: Annotated[
        str | None, typer.Option(help="Command that runs at the other end of the links.")
    ] = None,
    server_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Begin once the server listens on this TCP port."),
    ] = None,
    devices: _Devices = 1,
    record: _Record = None,
) -> None:
    """Run a program behind a link, without root; end with its exit code.

    The server's address is 10.77.0.1 ($FADELAB_SERVER), that of device 0 10.77.1.1
    ($FADELAB_DEVICE). The timeline begins with the program.

    Example: fadelab link run --rate-up 5e6 --rate-down 20e6 --server "iperf3 -s" --server-port 5201
    -- iperf3 -c 10.77.0.1
    """
    cast = Cast(tuple(command), _split(server), server_port)
    ended = run_behind_links(options.with_devices(devices).job(), cast, record)
    if ended.report is not None:
        show(ended.report)
    if ended.server_exit_code:
        typer.echo(f"fadelab: the server ended with exit code {ended.server_exit_code}", err=True)
    raise typer.Exit(ended.exit_code)


@link.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call them.")],
    devices: _Devices = 1,
) -> None:
    """Make named network namespaces, in which programs can be started (root).

    Links are made by `fadelab link drive`.

    Example: fadelab link create lab --devices 2 && ip netns exec fadelab-lab-0 bash
    """
    named.create(name, devices)
    last = "" if devices == 1 else f" to fadelab-{name}-{devices - 1}"
    typer.echo(f"fadelab-{name} (server), fadelab-{name}-0{last}")


@link.command()
@with_link_options
def drive(
    name: Annotated[str, typer.Argument(help="What `fadelab link create` called them.")],
    options: LinkOptions,
    duration: Annotated[
        float | None,
        typer.Option(parser=number, metavar="SECONDS", help="Until when; default: Ctrl-C."),
    ] = None,
    record: _Record = None,
) -> None:
    """Make the links of named namespaces, drive them, and remove them at the end (root).

    The server's address is 10.77.0.1, those of the devices are 10.77.1.1, 10.77.1.2 ...

    Example: fadelab link drive lab --trace-up up.trace --trace-down down.trace --duration 60
    """
    if duration is not None and duration <= 0:
        raise FadelabError(ExitCode.USAGE, f"--duration must be above 0 s, not {duration:g}")
    with named.hold(name) as namespaces:
        job = options.with_devices(len(namespaces.devices)).job()
        report = drive_links(
            job,
            namespaces,
            duration_s=duration,
            record=record,
            in_force=lambda: typer.echo(f"the links of {name} are up", err=True),
        )
    show(report)


@link.command()
def delete(
    name: Annotated[str | None, typer.Argument(help="Which ones.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that `fadelab link create` made.")
    ] = False,
) -> None:
    """Remove named namespaces and the links inside (root).

    Example: fadelab link delete lab
    """
    if (name is None) != everything:
        raise FadelabError(ExitCode.USAGE, "give either a name or --all")
    for one in [name] if name is not None else named.own_names():
        named.delete(one)


@link.command(name="list")
def list_links(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which named namespaces there are, and whether their links are being driven.

    Example: fadelab link list
    """
    found = named.listing()
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=2))
        return
    for one in found:
        state = "driven" if one.driven else "idle"
        typer.echo(f"{one.name}  {one.devices} devices, {state if one.whole else 'incomplete'}")


@link.command()
def export(
    recording: Annotated[
        Path, typer.Argument(help="A run directory or its links.schedule.", metavar="RECORDING")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to be made.")],
    direction: Annotated[Direction, typer.Option(help="Which direction.")],
    device: Annotated[int, typer.Option(min=0, help="Whose link.")] = 0,
) -> None:
    """Write a recorded link as a Mahimahi trace, for mm-link or --trace-up and --trace-down.

    Example: fadelab link export runs/quickstart-1 --device 3 --direction up -o up.trace
    """
    found = export_trace(recording, device, output, uplink=direction is Direction.UP)
    typer.echo(
        f"{output}: {found.packets} packets in {found.duration_s:g} s, "
        f"{found.mean_bps / 1e6:.3f} Mbit/s"
    )


@link.command()
def calibrate(
    rates_mbps: Annotated[
        str, typer.Option(help="Programmed rates in Mbit/s, one link each, all at once.")
    ] = "0.2,1,5,20,50",
    megabytes: Annotated[float, typer.Option(help="Size of each update in MB.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send updates over links of fixed rates and compare goodput with the programme.

    Example: fadelab link calibrate --rates-mbps 1,10 --megabytes 1
    """
    rates_bps = _rates_bps(rates_mbps)
    if not 0.01 <= megabytes <= 1000:
        raise typer.BadParameter(f"{megabytes:g} MB is not between 0.01 and 1000")
    results = measure(rates_bps, round(1e6 * megabytes))
    low, high = _GOOD_RATIOS
    if as_json:
        rows = [
            {
                "programmed_bps": r.programmed_bps,
                "goodput_bps": r.goodput_bps,
                "ratio": r.ratio,
                "seconds": r.seconds,
                "update_bytes": r.update_bytes,
            }
            for r in results
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = Table(box=None, header_style="dim")
        for title in ("programmed Mbit/s", "goodput Mbit/s", "ratio", "seconds", ""):
            table.add_column(title, justify="right")
        for r in results:
            good = low <= r.ratio <= high
            table.add_row(
                f"{r.programmed_bps / 1e6:g}",
                f"{r.goodput_bps / 1e6:.4f}",
                f"{r.ratio:.4f}",
                f"{r.seconds:.2f}",
                "[green]ok[/]" if good else "[red]off[/]",
            )
        Console().print(table)
    if not all(low <= r.ratio <= high for r in results):
        raise typer.Exit(ExitCode.INVALID_RUN)


def _rates_bps(text: str) -> list[float]:
    try:
        rates = [1e6 * float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.2,1,5") from None
    for rate in rates:
        if not 64e3 <= rate <= 10e9:
            raise typer.BadParameter(f"{rate / 1e6:g} Mbit/s is not between 0.064 and 10000")
    return rates


def _split(command: str | None) -> tuple[str, ...] | None:
    if command is None:
        return None
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise FadelabError(ExitCode.USAGE, f"--server {command!r}: {error}") from None
