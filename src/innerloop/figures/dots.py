"""Rows of dots: a row a circumstance, a dot a method, losses across."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from innerloop.figures.axes import legend, log_ticks, panel, reach, settle, spans_more_than_a_decade
from innerloop.figures.style import FLOOR, Look, looks
from innerloop.figures.table import Table, as_frame, names, numbers, refuse

_ROW = 0.27  # inches


def checked_rows(frame: Table, row: str) -> pl.DataFrame:
    """The frame with columns method, `row`, value (> 0) and standard_error (null: not known), each of its type.

    Raises:
        ValueError: a column is missing, unexpected or of the wrong type; a value is not positive; or two rows are the
            same.
    """
    table = as_frame(frame, ["method", row, "value", "standard_error"])
    table = table.with_columns(
        names(table["method"]),
        names(table[row]),
        numbers(table["value"]),
        numbers(table["standard_error"], nullable=True),
    )
    refuse(table, "value", table["value"] <= 0, "must be positive")
    refuse(table, "standard_error", table["standard_error"] < 0, "must be >= 0")
    refuse(
        table, row, table.select("method", row).is_duplicated(), "must differ between the rows of one method"
    )
    return table


def rows_of_dots(table: pl.DataFrame, row: str, *, loss: str, floor: float | None, title: str) -> Figure:
    """A row a value of the column `row`, from the top in the table's order; error bars are two standard errors.

    Args:
        table: as `checked_rows` gives it.
        loss: what the horizontal axis shows.
        floor: a vertical line, if there is one.

    Raises:
        ValueError: two methods mean the same.
    """
    found = looks(table["method"].unique(maintain_order=True))
    rows = table[row].unique(maintain_order=True).to_list()
    figure, axes = panel(title)
    _loss_across(axes, [*reach(table), *([floor] if floor else [])])
    axes.set_xlabel(loss)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    if floor is not None and floor > axes.get_xlim()[0]:
        axes.axvspan(axes.get_xlim()[0], floor, color="0.88", linewidth=0, zorder=0.6)
        axes.axvline(floor, color=FLOOR.colour, linewidth=1.1, label=FLOOR.label, zorder=2.2)
    shifts = (np.arange(len(found)) - (len(found) - 1) / 2) * min(0.22, 0.7 / len(found))
    for shift, (method, look) in zip(shifts, found.items(), strict=True):
        _draw_dots(axes, table.filter(pl.col("method") == method), row, rows, float(shift), look)
    marks = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=look.label)
        for look in found.values()
    ]
    line = Line2D([], [], color=FLOOR.colour, linewidth=1.1, label=FLOOR.label)
    legend(figure, marks, [] if floor is None else [line])
    figure.set_figheight(0.95 + _ROW * max(len(rows), 3) * max(1, 0.5 * len(found)) + 0.17 * bool(title))
    return settle(figure)


def _loss_across(axes: Axes, values: Sequence[float]) -> None:
    """Scale, limits and ticks of a horizontal axis that holds the losses."""
    low, high = min(values), max(values)
    if spans_more_than_a_decade(values):
        factor = (high / low) ** 0.05
        axes.set_xscale("log")
        axes.set_xlim(low / factor, high * factor)
        log_ticks(axes.xaxis, low / factor, high * factor)
    else:
        margin = 0.06 * ((high - low) or high)
        axes.set_xlim(max(low - margin, 0), high + margin)


def _draw_dots(axes: Axes, table: pl.DataFrame, row: str, rows: list[str], shift: float, look: Look) -> None:
    x, y = table["value"].to_numpy(), np.array([rows.index(name) for name in table[row]]) + shift
    known = table["standard_error"].is_not_null().to_numpy()
    bars = 2 * table["standard_error"].to_numpy()[known]
    axes.errorbar(
        x[known], y[known], xerr=bars, fmt="none", ecolor=look.colour, elinewidth=1, capsize=2.2, zorder=2.5
    )
    axes.plot(x, y, color=look.colour, marker=look.marker, linestyle="none", label=look.label, zorder=2.7)
