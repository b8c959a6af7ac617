"""One look for all charts, and their way from matplotlib into the page."""

import re
import warnings
from collections.abc import Callable
from io import StringIO
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fadelab.report.markup import Markup, tag
from fadelab_proto import collector

# The palette of Okabe and Ito, which readers with colour vision deficiencies can tell apart.
BLUE = "#0072B2"
ORANGE = "#D98200"
SKY = "#56B4E9"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#B0578D"
GREY = "#9AA3AC"
INK = "#2B3138"

UP, DOWN = BLUE, ORANGE

WIDTH_IN = 9.6
"""Width of a chart; the page scales it to the column, so this sets the relative text size."""

_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#E4E7EB",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    # A device may be called "$x$"; that is a name, no formula.
    "text.parse_math": False,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.fonttype": "none",
}

# SVG's own resolution: at it text is measured as it will be drawn.
_POINTS_PER_IN = 72

_UNWANTED = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_IDENTIFIER = re.compile(r' id="([^"]*)"')
_LONG_NUMBER = re.compile(r"(\.\d\d)\d+")
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]*)')


def render(name: str, description: str, height_in: float, draw: Callable[[Figure], None]) -> Markup:
    """Draw a chart of the page's width and return it as inline SVG.

    ``name`` must be unique on the page: it seeds matplotlib's identifiers and prefixes them, as
    those of two charts on one page share a namespace. The same input gives the same bytes.
    """
    # Figures are full of cycles, and all of them are wanted until the last line is written.
    with collector.paused(), mpl.rc_context(), warnings.catch_warnings():
        # A name in a script that the measuring font lacks: the reader's browser will have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure)
        _lay_out(figure)
        stream = StringIO()
        canvas.print_figure(stream, format="svg", metadata={"Date": None})
    return _inline(stream.getvalue(), name, description)


def _lay_out(figure: Figure) -> None:
    """Give every panel its place, once and for all.

    matplotlib would draw the whole figure for it, and then again.
    """
    engine = figure.get_layout_engine()
    assert engine is not None
    pixels_per_in, figure.dpi = figure.dpi, _POINTS_PER_IN
    engine.execute(figure)
    # That of pictures inside the figure, such as a colour bar.
    figure.dpi = pixels_per_in
    figure.set_layout_engine(None)


def _inline(document: str, name: str, description: str) -> Markup:
    """Keep of an SVG document what an HTML page needs, with identifiers of its own."""
    opening, body = _UNWANTED.sub("", document[document.index("<svg") :]).split(">", 1)
    view_box = re.search(r'viewBox="([^"]*)"', opening)
    assert view_box is not None
    used = {target for _, target in _REFERENCE.findall(body)}

    def own_identifiers(match: re.Match[str]) -> str:
        element = _IDENTIFIER.sub(
            lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", match[0]
        )
        if element.startswith("<path"):
            # A hundredth of a point is finer than any screen.
            element = _LONG_NUMBER.sub(r"\1", element)
        return _REFERENCE.sub(rf"\g<1>{name}-\g<2>", element)

    inner = _TAG.sub(own_identifiers, body.rsplit("</svg>", 1)[0])
    return tag("svg", Markup(inner), viewBox=view_box[1], role="img", aria_label=description)


def note(axes: Axes, sentence: str) -> None:
    """Say inside an otherwise empty panel why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, sentence, transform=axes.transAxes, ha="center", va="center", wrap=True)


def use_log_scale(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make one axis logarithmic, with plain numbers at its ticks."""
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axes.autoscale_view()
    low, high = axis.get_view_interval()
    # Over many decades, powers of ten alone leave room for the labels.
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_above(figure: Figure, axes: Axes) -> None:
    """Put the legend of one panel above the whole figure, in one line."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=max(1, len(labels)))
