"""What the theorems of Vladymyrov et al. (2024) promise, as it comes out: depth for conditioning, error for context."""

import numpy as np
import polars as pl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from innerloop.figures.axes import (
    draw_bars,
    draw_line,
    legend,
    legend_line,
    loss_axis,
    panel,
    power,
    reach,
    settle,
    spans_more_than_a_decade,
)
from innerloop.figures.style import looks, rc
from innerloop.figures.table import Table, checked, refuse


@rc_context(rc)
def layers_against_condition(frame: Table, *, title: str = "") -> Figure:
    """Layers that it takes to come within a tolerance, against the condition number (Theorem 5.1).

    The horizontal axis is logarithmic and the vertical one is not, so that O(log condition) is a straight
    line.

    Args:
        frame: columns method (the line: "error 1e-6", "gradient descent, error 1e-6", ...), condition (the
            largest eigenvalue of the inputs' covariance over the smallest, >= 1), value (layers, >= 0) and
            standard_error (null: none, as for one draw).
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; a condition number is below 1; or two methods mean
            the same.
    """
    table = checked(frame, x="condition")
    refuse(table, "condition", table["condition"] < 1, "must be >= 1")
    refuse(table, "value", table["value"] < 0, "must be >= 0")
    figure, axes = panel(title)
    axes.set_ylim(0, 1.06 * (max(reach(table)) or 1))
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("condition number (largest over smallest eigenvalue)")
    axes.set_ylabel("layers needed")
    _draw_lines(figure, axes, table, "condition")
    return settle(figure)


@rc_context(rc)
def error_against_context(frame: Table, *, rate: float | None = -1.0, title: str = "") -> Figure:
    """Error against the number of examples in the context, both axes logarithmic (Theorem 5.2).

    Args:
        frame: columns method (the line: "full", "sigma in {1, 3}", ...), context (n >= 1), value (> 0: half
            the squared distance to the best predictor) and standard_error (null: not known).
        rate: the slope of a dotted guide, n^rate, through the first point of the first line; None: no guide.
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; a context is shorter than 1; or two methods mean
            the same.
    """
    table = checked(frame, x="context", whole=True, positive=True)
    refuse(table, "context", table["context"] < 1, "must be >= 1")
    figure, axes = panel(title)
    first = table.filter(pl.col("method") == table["method"][0]).sort("context")
    start, end = first["context"][0], first["context"][-1]
    guide = [first["value"][0] * (n / start) ** rate for n in (start, end)] if rate is not None else []
    loss_axis(axes, [*reach(table), *guide], log=True)
    axes.set_xlabel("examples in the context, n")
    axes.set_ylabel("squared distance to the best predictor (half)")
    handles = []
    if guide:
        style: dict = {"color": "0.35", "linestyle": (0, (1, 1.5)), "linewidth": 1.1}
        axes.plot([start, end], guide, label="guide", zorder=2, **style)
        handles = [Line2D([], [], label=f"slope {rate:g}".replace("-", "\N{MINUS SIGN}"), **style)]
    _draw_lines(figure, axes, table, "context", handles)
    return settle(figure)


def _draw_lines(figure: Figure, axes: Axes, table: pl.DataFrame, x: str, handles=()) -> None:
    """Lines with error bars on a logarithmic horizontal axis, and the legend."""
    found = looks(table["method"].unique(maintain_order=True))
    for method, look in found.items():
        rows = table.filter(pl.col("method") == method).sort(x)
        draw_line(axes, rows[x].to_numpy(), rows["value"].to_numpy(), look)
        draw_bars(axes, rows[x].to_numpy(), rows["value"].to_numpy(), rows["standard_error"], look)
    _log_axis(axes, table[x])
    legend(figure, [legend_line(look) for look in found.values()], handles)


def _log_axis(axes: Axes, column: pl.Series) -> None:
    powers = np.log10(column.to_numpy())
    low, high = powers.min(), powers.max()
    margin = 0.03 * ((high - low) or 1)
    axes.set_xscale("log")
    axes.set_xlim(10 ** (low - margin), 10 ** (high + margin))
    digits = (1,) if spans_more_than_a_decade(column.to_list()) else (1, 2, 5)
    axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(power if high > 4 else lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
