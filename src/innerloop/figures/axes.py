"""What the panels share: readable axes, lines with their uncertainty, the Bayes floor, labels, legends."""

import textwrap
from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    NullLocator,
)

from innerloop.figures.style import HEIGHT, METHODS, WIDTH, Look

_FLOOR_AT = 0.1  # of the axis' height: room below the floor for its shading and one line of text


def panel(title: str) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    figure.set_label(title)
    axes = figure.subplots()
    axes.set_title(textwrap.fill(title, 80))
    return figure, axes


def settle(figure: Figure) -> Figure:
    """Fix the layout as it is, so that every later drawing, in any format, is the same."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def spans_more_than_a_decade(values: Sequence[float]) -> bool:
    positive = [value for value in values if value > 0]
    return max(positive, default=1) > 10 * min(positive, default=1)


def loss_axis(
    axes: Axes, values: Sequence[float], *, log: bool, floor: float | None = None, small: bool = False
) -> None:
    """Scale, limits and ticks of the vertical axis, to hold `values` and room below a drawn `floor`.

    In a `small` panel there is room for half as many labels.
    """
    heights = np.array([value for value in values if value > 0 or not log], dtype=float)
    if log:
        axes.set_yscale("log")
        heights = np.log10(heights)
    bottom, top = heights.min(), heights.max()
    extent = (top - bottom) or (0.5 if log else abs(top) or 1.0)
    at_floor = floor is not None and (floor > 0 or not log)
    below = extent * (_FLOOR_AT / (0.95 - _FLOOR_AT) if at_floor else 0.05 / 0.9)
    low, high = bottom - below, top + extent * 0.05 / 0.9
    if log:
        low, high = 10**low, 10**high
    else:
        low = max(low, 0.0) if bottom >= 0 else low  # half a squared error is not negative
    axes.set_ylim(low, high)
    if log:
        log_ticks(axes.yaxis, low, high, small=small)
    elif small:
        axes.yaxis.set_major_locator(MaxNLocator(4))


def layer_axis(axes: Axes, layers: pl.Series, label: str = "", *, small: bool = False) -> None:
    """Whole numbers only, each one where there is room."""
    low, high = float(layers.min()), float(layers.max())  # pyright: ignore[reportArgumentType]
    axes.set_xlim(low - 0.3, high + 0.3)
    room = 8 if small else 16
    axes.xaxis.set_major_locator(
        MultipleLocator(1) if high - low <= room else MaxNLocator(3 * room // 4, integer=True)
    )
    axes.set_xlabel(label)


def reach(table: pl.DataFrame) -> list[float]:
    """The values and the ends of their error bars, but no end that would stretch a logarithmic axis, and nothing of a value
    that is not told apart from 0, such as a mean that one sequence carries, if it is above all that are."""
    certain = pl.col("value") >= 2 * pl.col("standard_error").fill_null(0)
    greatest = table.filter(certain)["value"].max()
    if greatest is not None:
        table = table.filter(certain | (pl.col("value") <= greatest))
    value, half = table["value"], 2 * table["standard_error"].fill_null(0)
    lower = (value - half).filter(value - half > value / 4)
    return [*value, *(value + half), *lower]


def draw_line(
    axes: Axes, x, y, look: Look, *, label: str | None = None, hollow: bool = False, small: bool = False
) -> Line2D:
    """A method's line, labelled for whoever looks for it in the axes; legends are made separately."""
    label = look.label if label is None else label
    style = strokes(look, hollow)
    if small:
        style |= {"markersize": 5.6 if hollow else 3.4, "linewidth": 0.8 if hollow else 1.1}
    (line,) = axes.plot(x, y, label=label, zorder=2.4 if hollow else 2.6, **style)
    return line


def draw_bars(axes: Axes, x, y, standard_error: pl.Series, look: Look) -> None:
    """Error bars of two standard errors, where these are known."""
    known = standard_error.is_not_null().to_numpy()
    if known.any():
        bars = 2 * standard_error.to_numpy()[known]
        axes.errorbar(
            x[known], y[known], yerr=bars, fmt="none", ecolor=look.colour, elinewidth=1, capsize=2.2
        )


def draw_band(axes: Axes, x, y, standard_error: pl.Series, look: Look) -> None:
    """A band of two standard errors, of no width where they are not known."""
    half = 2 * standard_error.fill_null(0).to_numpy()
    axes.fill_between(x, y - half, y + half, color=look.colour, alpha=0.2, linewidth=0)


def strokes(look: Look, hollow: bool = False) -> dict:
    """Line and marker: solid and filled, or dashed and hollow in the same colour, for published numbers.

    A hollow marker is wide enough to be seen around a filled one at the same point.
    """
    common = {"color": look.colour, "marker": look.marker, "markeredgecolor": look.colour}
    if hollow:
        return common | {
            "linestyle": (0, (4, 2)),
            "linewidth": 1.0,
            "markerfacecolor": "none",
            "markersize": 8,
            "markeredgewidth": 0.9,
        }
    return common | {"linestyle": look.dash, "markeredgewidth": 0.4}


def draw_floor(axes: Axes, floor: float, *, small: bool = False) -> None:
    """The Bayes floor, and the ground below it; one of 0 on a logarithmic axis is below the axis."""
    bottom = axes.get_ylim()[0]
    if floor <= bottom:
        return
    look = METHODS["bayes"]
    axes.axhspan(bottom, floor, color="0.88", linewidth=0, zorder=0.6)
    axes.axhline(floor, color=look.colour, linewidth=1.1, label="Bayes floor", zorder=2.2)
    height = _fraction(axes, floor)
    if height > 0.065 and not small:  # enough for a line of text
        style = {"va": "center", "fontsize": 8, "color": "0.3", "transform": axes.transAxes}
        axes.text(0.015, height / 2, "no predictor can be below", **style)


def label_at_right(axes: Axes, levels: Sequence[tuple[float, Look]]) -> None:
    """Name horizontal lines at the right end, with leaders where names are moved apart not to overlap.

    A level that a logarithmic axis cannot show, 0, is named at the bottom with an arrow down.
    """
    if not levels:
        return
    log = axes.get_yscale() == "log"
    levels = sorted(levels, key=lambda level: level[0])
    figure = axes.get_figure(root=True)
    assert figure is not None
    texts = []
    for value, look in levels:
        shown = value > 0 or not log
        text = look.label if shown else f"{look.label} = 0 \N{DOWNWARDS ARROW}"
        kwargs = {"transform": axes.transAxes, "va": "center_baseline", "fontsize": 8, "color": look.ink}
        texts.append(axes.text(1.04, 0.5, text, **kwargs))
    figure.draw_without_rendering()  # the axes' height is known once the layout is done
    height = axes.get_window_extent().height * 72 / figure.dpi
    anchors = [_fraction(axes, value) if value > 0 or not log else 0.0 for value, _ in levels]
    for (value, look), text, anchor, place in zip(
        levels, texts, anchors, spread(anchors, 10.5 / height), strict=True
    ):
        text.set_y(place)
        if value > 0 or not log:
            leader = Line2D(
                [1.0, 1.03], [anchor, place], transform=axes.transAxes, color=look.colour, linewidth=0.8
            )
            leader.set_clip_on(False)
            axes.add_artist(leader)


def spread(places: Sequence[float], gap: float) -> np.ndarray:
    """The points nearest to ascending `places`, in least squares, at least `gap` apart and within [0, 1].

    With z_i = p_i - i gap the constraint is z ascending: isotonic regression, which clipping keeps optimal
    within bounds. If they do not fit, the top ones stick out.
    """
    from scipy.optimize import isotonic_regression  # slow to import, and most figures have one label or none

    steps = gap * np.arange(len(places))
    z = isotonic_regression(np.asarray(places, dtype=float) - steps).x
    return np.clip(z, 0, max(1 - steps[-1], 0)) + steps


def legend(figure: Figure, handles: Sequence[Artist], last: Sequence[Artist] = ()) -> None:
    """Below the axes, where it hides nothing, in a figure made taller for it; `last` starts a new column."""
    filled, columns = in_columns(figure, handles, last)
    figure.set_figheight(HEIGHT + 0.17 * (len(filled) // columns - 2))
    figure.legend(handles=filled, loc="outside lower center", ncols=columns)


def in_columns(figure: Figure, handles: Sequence[Artist], last: Sequence[Artist]) -> tuple[list[Artist], int]:
    """The handles filled up with blanks for as many columns as the figure has room for, and their number."""
    longest = max(len(str(handle.get_label())) for handle in [*handles, *last])
    room = max(2, int(figure.get_figwidth() * 72 / (36 + 4.3 * longest)))
    rows = next(n for n in range(1, 99) if -(-len(handles) // n) - (-len(last) // n) <= room)
    blank = Line2D([], [], linestyle="none", label=" ")
    filled = [*handles, *[blank] * (-len(handles) % rows), *last, *[blank] * (-len(last) % rows)]
    return filled, len(filled) // rows


def legend_line(look: Look, *, hollow: bool = False) -> Line2D:
    return Line2D([], [], label=look.label, **strokes(look, hollow))


def level_line(look: Look) -> Line2D:
    """The legend's handle of a horizontal line."""
    style: dict = {"color": look.colour, "linestyle": look.dash, "linewidth": 1.2}
    return Line2D([], [], label=look.label, **style)


def _fraction(axes: Axes, value: float) -> float:
    """Where on the axes' height a value lies."""
    pixels = axes.get_yaxis_transform().transform((0, value))
    return float(axes.transAxes.inverted().transform(pixels)[1])


def log_ticks(axis: Axis, low: float, high: float, *, small: bool = False) -> None:
    """0.04, 0.05, 0.1 instead of powers, as long as they are short; between decades too, if these are few."""
    decades = np.log10(high / low)
    all_digits = tuple(range(1, 10))
    plain = low >= 1e-4 and high <= 1e5
    crowd = decades * (1.5 if small else 1)  # as if there were more of them
    long = not plain or high > 1e4  # labels, which take more room
    if decades < 0.5:
        axis.set_major_locator(MaxNLocator(3 if small else 6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_minor_locator(NullLocator())
    elif crowd < 3.5:
        few = (1, 2, 5) if long else (1, 1.5, 2, 3, 4, 5, 6, 8)
        digits = few if crowd < 1 else (1, 2, 3, 5) if crowd < 2 and not long else (1, 3)
        axis.set_major_locator(LogLocator(subs=digits, numticks=99))
        axis.set_minor_locator(LogLocator(subs=all_digits, numticks=99))
    else:
        axis.set_major_locator(LogLocator(numticks=5 if small else 9))
        axis.set_minor_locator(LogLocator(subs=all_digits if crowd < 7 else (1,), numticks=99))
    axis.set_major_formatter(FuncFormatter(_plain if plain else power))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _=None) -> str:
    return f"{value:.6g}"


def power(value: float, _=None) -> str:
    """A tick's label as a power of ten."""
    mantissa, exponent = f"{value:.3e}".split("e")
    factor = "" if float(mantissa) == 1 else rf"{float(mantissa):g}\times"
    return rf"${factor}10^{{{int(exponent)}}}$"
