"""``fadelab boards``: a testbed of boards that are reached over SSH."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fadelab.boards.check import Checked, check_boards
from fadelab.boards.inventory import Inventory, load_inventory
from fadelab.boards.later import collect_again
from fadelab.boards.push import PushOrder, make_trust
from fadelab.boards.push import push as push_all
from fadelab.boards.ssh import Fleet
from fadelab.cli.run import Where
from fadelab.cli.run import run as run_anywhere
from fadelab.cli.summary import show_summary
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.follow import finish
from fadelab.local.launch import sockets_dir

boards = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)
_InventoryFile = Annotated[Path, typer.Argument(help="The inventory (YAML); see docs/boards.md.")]


@boards.callback()
def _boards() -> None:
    """Check boards, install Fadelab on them, run experiments on them; see docs/boards.md."""


@boards.command()
def check(inventory: _InventoryFile) -> None:
    """Reach every board and say what it is, what it has, and what it lacks.

    Example: fadelab boards check lab.yaml
    """
    found = asyncio.run(_check(load_inventory(inventory)))
    _show(Console(), found)
    if any(one.problems for one in found):
        raise typer.Exit(ExitCode.ENVIRONMENT)


async def _check(inventory: Inventory) -> list[Checked]:
    with sockets_dir() as sockets:
        async with Fleet(inventory, sockets) as fleet:
            return await check_boards(fleet)


@boards.command()
def push(
    inventory: _InventoryFile,
    wheels: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder of wheels, preferred to an index's."
        ),
    ] = None,
    offline: Annotated[bool, typer.Option(help="Boards ask no index: --wheels has all.")] = False,
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days until new certificates expire.")
    ] = 365,
) -> None:
    """Install this Fadelab on every board, with its certificate and token.

    Example: fadelab boards push lab.yaml --wheels wheels --offline
    """
    checked = load_inventory(inventory)
    if make_trust(checked, days):
        typer.echo(f"certificates and tokens: made in {checked.trust}, valid for {days} days")
    failures = asyncio.run(_push(checked, PushOrder(wheels, offline)))
    if failures:
        raise FadelabError(ExitCode.ENVIRONMENT, "; ".join(failures))


async def _push(inventory: Inventory, order: PushOrder) -> list[str]:
    with sockets_dir() as scratch:
        async with Fleet(inventory, scratch) as fleet:
            return await push_all(fleet, order, scratch, typer.echo)


@boards.command()
def run(
    inventory: _InventoryFile,
    experiment: Annotated[Path, typer.Argument(help="The experiment file (YAML).")],
    out: Annotated[
        Path | None, typer.Option(help="Run directory; must not exist. Default: runs/NAME-1, ...")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key.path=value: replace or add a setting; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replace the experiment's seed.")] = None,
) -> None:
    """Run an experiment: the server on this machine, an agent on every board.

    Example: fadelab boards run lab.yaml examples/quickstart.yaml --set devices.count=2
    """
    run_anywhere(experiment, out, settings, seed, deploy=Where.BOARDS, inventory=inventory)


@boards.command()
def collect(
    inventory: _InventoryFile,
    run_dir: Annotated[Path, typer.Argument(help="The run directory of `fadelab boards run`.")],
) -> None:
    """Fetch what boards could not hand over when their run ended, and make its report again.

    Example: fadelab boards collect lab.yaml runs/quickstart-1
    """
    lab = load_inventory(inventory)
    failures = asyncio.run(_collect(lab, run_dir))
    for failure in failures:
        typer.echo(failure, err=True)
    summary = finish(run_dir)
    show_summary(Console(), run_dir, summary)
    if failures:
        raise typer.Exit(ExitCode.ENVIRONMENT)
    raise typer.Exit(ExitCode.VALID if summary.valid else ExitCode.INVALID_RUN)


async def _collect(inventory: Inventory, run_dir: Path) -> list[str]:
    with sockets_dir() as sockets:
        async with Fleet(inventory, sockets) as fleet:
            return await collect_again(fleet, run_dir)


def _show(console: Console, found: list[Checked]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("board", "system", "Python", "free", "interface", "clock", "power"):
        table.add_column(title)
    for one in found:
        table.add_row(one.name, *_cells(one))
    console.print(table)
    for one in found:
        for problem in one.problems:
            console.print(f"{one.name}: {problem}", style="red", markup=False, soft_wrap=True)


def _cells(one: Checked) -> list[str]:
    facts, offset = one.facts, one.offset
    if facts is None or offset is None:
        return ["-"] * 6
    interface = facts.interface
    return [
        f"{facts.model or facts.architecture}, Linux {facts.kernel}",
        ".".join(map(str, facts.python)),
        f"{facts.free_bytes / 1e9:.1f} GB",
        "-" if interface is None else interface.address or "no address",
        f"{1e3 * offset.wall_offset_s:+.1f} ms",
        ", ".join(facts.sensors) or "model only",
    ]
