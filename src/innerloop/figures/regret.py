"""Regret, the adjusted loss minus the Bayes floor, against the number of layers: how fast the gap to Bayes closes."""

from typing import Literal

import polars as pl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from innerloop.figures.axes import draw_bars, layer_axis, legend, legend_line, loss_axis, panel, reach, settle
from innerloop.figures.depth import LAYERS, draw_methods
from innerloop.figures.grid import finish, grid, spelt
from innerloop.figures.style import Look, looks, rc, relabelled
from innerloop.figures.table import Table, checked, refuse

REGRET = "regret: adjusted loss minus Bayes floor\n(half squared error)"


@rc_context(rc)
def regret_against_depth(frame: Table, *, title: str = "") -> Figure:
    """Regret, the adjusted loss minus the Bayes floor, against the number of layers, on a logarithmic axis.

    Args:
        frame: columns method, layers, value (> 0) and standard_error (null: not known).
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; or two methods mean the same.
    """
    table = checked(frame, x="layers", whole=True, positive=True)
    found = looks(table["method"].unique(maintain_order=True))
    figure, axes = panel(title)
    loss_axis(axes, reach(table), log=True)
    layer_axis(axes, table["layers"], LAYERS)
    axes.set_ylabel(REGRET)
    draw_methods(axes, table.with_columns(source=pl.lit("ours")), found)
    legend(figure, [legend_line(look) for look in found.values()])
    return settle(figure)


@rc_context(rc)
def regrets_against_depth(
    frame: Table,
    *,
    panels: Literal["method", "problem"] = "method",
    share: bool = False,
    columns: int = 3,
    title: str = "",
) -> Figure:
    """Regret against the number of layers on every problem, on logarithmic axes.

    A panel a method with a line a problem, or the other way round. Error bars are two standard errors. A
    point whose regret is less than that, which is not told apart from 0, is hollow; if the estimate itself is
    not positive, it is drawn at the upper end of its error bar; if it is above all others, it stretches no axis: its line
    may leave the panel.

    Args:
        frame: columns problem (the noise law as text, or any name), method, layers, value (the regret) and
            standard_error (null: not known).
        panels: what has a panel of its own.
        share: one vertical axis for all panels.
        columns: panels in a row.
        title: above all panels.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; a value that is not positive has no upper end above
            0; `panels` is neither; or two methods mean the same.
    """
    if panels not in ("method", "problem"):
        raise ValueError(f"panels must be 'method' or 'problem', got {panels!r}")
    table = checked(frame, x="layers", whole=True, texts=("problem", "method"))
    upper = pl.col("value") + 2 * pl.col("standard_error").fill_null(0)
    table = table.with_columns(
        hollow=pl.col("value") < 2 * pl.col("standard_error").fill_null(0),
        value=pl.when(pl.col("value") > 0).then("value").otherwise(upper),
        standard_error=pl.when(pl.col("value") > 0).then("standard_error"),
    )
    refuse(table, "value", table["value"] <= 0, "must be positive, or its error bar reach above 0")
    line = "problem" if panels == "method" else "method"
    names = table[line].unique(maintain_order=True)
    found = {name: relabelled(look, spelt(name)) for name, look in looks(names).items()}
    shown = table[panels].unique(maintain_order=True).to_list()
    figure, places = grid(shown, columns=columns, title=title, x=LAYERS, y=REGRET)
    for name, axes in places.items():
        held = table if share else table.filter(pl.col(panels) == name)
        loss_axis(axes, reach(held), log=True, small=True)
        layer_axis(axes, table["layers"], small=True)
        for each in names:
            rows = table.filter(pl.col(panels) == name, pl.col(line) == each).sort("layers")
            _draw_closing(axes, rows, found[each])
    hollow = Line2D([], [], color="0.35", marker="o", markerfacecolor="white", linestyle="none")
    hollow.set_label("regret < 2 s.e.")
    return finish(
        figure, places, [legend_line(look) for look in found.values()], [hollow] * any(table["hollow"])
    )


def _draw_closing(axes: Axes, rows: pl.DataFrame, look: Look) -> None:
    x, y, hollow = (rows[name].to_numpy() for name in ("layers", "value", "hollow"))
    axes.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=1.1, label=look.label, zorder=2.4)
    draw_bars(axes, x, y, rows["standard_error"], look)
    for open_, face in [(False, look.colour), (True, "white")]:
        style = {"marker": look.marker, "markersize": 4, "linestyle": "none", "zorder": 2.7}
        axes.plot(
            x[hollow == open_],
            y[hollow == open_],
            markerfacecolor=face,
            markeredgecolor=look.colour,
            markeredgewidth=0.8,
            label=f"{look.label}, {'not told from 0' if open_ else 'positive'}",
            **style,
        )
