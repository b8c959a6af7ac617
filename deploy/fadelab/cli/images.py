"""``fadelab images``: the container images of server, agent and emulator."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fadelab.images.build import SOURCE, BuildOrder, Target, build_images

images = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@images.callback()
def _images() -> None:
    """Container images of server, agent and emulator."""


@images.command()
def build(
    targets: Annotated[
        list[Target] | None, typer.Argument(help="Which images; left out: all three.")
    ] = None,
    *,
    base: Annotated[
        str | None, typer.Option(help="Base image: glibc, Python 3.11 or later, venv and pip.")
    ] = None,
    wheels: Annotated[
        Path | None,
        typer.Option(help="Folder of wheels to be preferred to an index, such as torch's."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no index: --wheels has everything.")
    ] = False,
    network: Annotated[str | None, typer.Option(help="Network of the build, such as host.")] = None,
    tag: Annotated[
        str | None, typer.Option(help="Tag of the images; left out: Fadelab's version.")
    ] = None,
    source: Annotated[Path, typer.Option(help="A checkout of Fadelab.")] = SOURCE,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the engine says.")
    ] = False,
) -> None:
    """Build the images, or find them unchanged; say their sizes and how long it took.

    Example: fadelab images build --wheels wheels --offline
    """
    order = BuildOrder(
        source=source.absolute(),
        tag=tag or version("fadelab"),
        base=base,
        wheels=wheels,
        offline=offline,
        network=network,
    )
    begun_s = time.monotonic()
    for built in build_images(order, targets or list(Target), typer.echo if verbose else _ignore):
        size_mb = built.size_bytes / 1e6
        typer.echo(f"{built.image:<30} {size_mb:7.0f} MB  {built.seconds:6.1f} s")
    typer.echo(f"in {time.monotonic() - begun_s:.1f} s")


def _ignore(line: str) -> None:
    """Hear nothing."""
