"""The options with which links are described, common to the verbs that make links."""

import contextlib
import functools
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fadelab.link.options import LinkOptions
from fadelab_emulation.timeline.replay import AtEnd
from fadelab_emulation.window import BackendChoice, WindowMode

_UNITS = {"": 1.0, "bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
_RATE = re.compile(r"(?P<number>[-+0-9.eE]+)\s*(?P<unit>\D*)")


def rate_bps(text: str) -> float:
    """Return a rate in bits per second; BadParameter unless its unit is beyond doubt."""
    parts = _RATE.fullmatch(text.strip())
    if parts is not None and parts["unit"] in _UNITS:
        with contextlib.suppress(ValueError):
            return float(parts["number"]) * _UNITS[parts["unit"]]
    raise typer.BadParameter(
        f"{text!r} is no rate: give bits per second, such as 5e6, or a number with one of the "
        "units bit/s, kbit/s, Mbit/s, Gbit/s"
    )


def number(text: str) -> float:
    """Return a finite number; BadParameter for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} is not a number such as 0.02")
    return value


def outage_s(text: str) -> tuple[float, float]:
    """Return start and end of an outage; BadParameter unless it is START:END."""
    start, colon, end = text.partition(":")
    if not colon:
        raise typer.BadParameter(f"{text!r} is not START:END in seconds, such as 3:5.5")
    return number(start), number(end)


def _rate(text: str) -> Any:
    return typer.Option(parser=rate_bps, metavar="RATE", help=text)


def _seconds(text: str) -> Any:
    return typer.Option(parser=number, metavar="SECONDS", help=text)


def _share(text: str) -> Any:
    return typer.Option(parser=number, metavar="SHARE", help=text)


def _options(
    *,
    rate_up: Annotated[
        float | None, _rate("Uplink rate on layer 2: bits per second (5e6), or 5Mbit/s.")
    ] = None,
    rate_down: Annotated[float | None, _rate("Downlink rate.")] = None,
    trace_up: Annotated[
        Path | None, typer.Option(help="Mahimahi trace that the uplink follows, repeated.")
    ] = None,
    trace_down: Annotated[Path | None, typer.Option(help="The same for the downlink.")] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(help="A run directory or its links.schedule, or a table of rates (.csv)."),
    ] = None,
    device: Annotated[
        int | None, typer.Option(min=0, help="Whose link of a recorded schedule; default: 0.")
    ] = None,
    at_end: Annotated[
        AtEnd | None, typer.Option(help="What follows a recorded schedule; default: loop.")
    ] = None,
    radio: Annotated[
        Path | None,
        typer.Option(help="Radio models: the radio section of an experiment, or the experiment."),
    ] = None,
    delay_up: Annotated[float | None, _seconds("One-way delay besides the queue's.")] = None,
    delay_down: Annotated[float | None, _seconds("The same for the downlink.")] = None,
    jitter_up: Annotated[
        float | None, _seconds("Standard deviation of the delay, at most a third of it.")
    ] = None,
    jitter_down: Annotated[float | None, _seconds("The same for the downlink.")] = None,
    loss_up: Annotated[float | None, _share("Share of packets lost at random: 0 to 1.")] = None,
    loss_down: Annotated[float | None, _share("The same for the downlink.")] = None,
    outage: Annotated[
        list[Any] | None,
        typer.Option(
            parser=outage_s,
            metavar="START:END",
            help="Close all links from START to END seconds; may be repeated.",
        ),
    ] = None,
    window: Annotated[
        WindowMode | None,
        typer.Option(help="What becomes of packets while a link is closed; default: hold."),
    ] = None,
    backend: Annotated[
        BackendChoice | None,
        typer.Option(help="What carries the links; default: the cheapest that can."),
    ] = None,
    tick: Annotated[
        float | None, _seconds("Time between changes of a link's state; default: 0.1.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> LinkOptions:
    return LinkOptions(
        rate_up_bps=rate_up,
        rate_down_bps=rate_down,
        trace_up=trace_up,
        trace_down=trace_down,
        timeline=timeline,
        device=device,
        at_end=at_end,
        radio=radio,
        delay_up_s=delay_up,
        delay_down_s=delay_down,
        jitter_up_s=jitter_up,
        jitter_down_s=jitter_down,
        loss_up=loss_up,
        loss_down=loss_down,
        outages=tuple(outage or ()),
        window=window,
        backend=backend,
        tick_s=tick,
        seed=seed,
    )


def with_link_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb all these options; it gets them as its parameter ``options``."""
    common = inspect.signature(_options).parameters
    own = {
        name: parameter
        for name, parameter in inspect.signature(verb).parameters.items()
        if name != "options"
    }

    @functools.wraps(verb)
    def wrapped(**values: Any) -> None:
        told = {name: values.pop(name) for name in common}
        verb(options=_options(**told), **values)

    both = own | dict(common)
    # What typer reads to make a command line of it.
    wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in both.values()]
    )
    wrapped.__annotations__ = {name: one.annotation for name, one in both.items()}
    return wrapped
