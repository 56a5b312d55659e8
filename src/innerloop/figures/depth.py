"""Loss and regret against the number of layers (Vladymyrov et al. 2024, Figure 1)."""

from collections.abc import Mapping

import polars as pl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from innerloop.figures.axes import (
    draw_bars,
    draw_floor,
    draw_line,
    label_at_right,
    layer_axis,
    legend,
    legend_line,
    loss_axis,
    panel,
    reach,
    settle,
    spans_more_than_a_decade,
    strokes,
)
from innerloop.figures.style import METHODS, Look, looks, rc
from innerloop.figures.table import SOURCES, Table, checked, checked_level

LOSS = "adjusted loss (half squared error)"
_FLOOR = Look("Bayes floor", METHODS["bayes"].colour, METHODS["bayes"].marker)
_GREY = Look("", "0.35", "o")


@rc_context(rc)
def loss_against_depth(
    frame: Table, *, floor: float | None = None, baselines: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """Adjusted loss against the number of layers, a line a method: one panel of the paper's Figure 1.

    Our numbers are solid with filled markers, published ones dashed and hollow in the same colour; error bars
    are two standard errors. The axis is logarithmic when what is drawn spans more than a decade; a baseline
    or floor of 0 is then named at the bottom instead of drawn.

    Args:
        frame: columns method, layers, value, standard_error (null: not known), source ("ours" or
            "published").
        floor: the Bayes floor, drawn as a line above shaded ground.
        baselines: losses of predictors without layers, by name, drawn as horizontal lines.
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; `floor` or a baseline is negative or not finite; or
            two methods mean the same.
    """
    table = checked(frame, x="layers", whole=True, positive=False, sourced=True)
    levels = {name: checked_level(f"baseline '{name}'", value) for name, value in (baselines or {}).items()}
    found = looks([*table["method"].unique(maintain_order=True), *levels])
    flat = [*levels.values(), *([] if floor is None else [checked_level("floor", floor)])]

    figure, axes = panel(title)
    log = bool((table["value"] > 0).all()) and spans_more_than_a_decade([*table["value"], *flat])
    loss_axis(axes, [*reach(table), *flat], log=log, floor=floor)
    layer_axis(axes, table["layers"], "number of layers")
    axes.set_ylabel(LOSS)
    if floor is not None:
        draw_floor(axes, floor)
    for name, value in levels.items():
        if value > 0 or not log:
            look = found[name]
            axes.axhline(
                value, color=look.colour, linestyle=look.dash, linewidth=1.2, label=look.label, zorder=2.1
            )
    _draw_methods(axes, table, found)
    sources = [source for source in SOURCES if source in table["source"]]
    keys = [Line2D([], [], label=source, **strokes(_GREY, source == "published")) for source in sources]
    methods = table["method"].unique(maintain_order=True)
    legend(figure, [legend_line(found[method]) for method in methods], keys if "published" in sources else [])
    named = [(value, found[name]) for name, value in levels.items()]
    label_at_right(axes, named if floor is None else [*named, (floor, _FLOOR)])
    return settle(figure)


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
    layer_axis(axes, table["layers"], "number of layers")
    axes.set_ylabel("regret: adjusted loss minus Bayes floor\n(half squared error)")
    _draw_methods(axes, table.with_columns(source=pl.lit("ours")), found)
    legend(figure, [legend_line(look) for look in found.values()])
    return settle(figure)


def _draw_methods(axes: Axes, table: pl.DataFrame, found: dict[str, Look]) -> None:
    for method, source in table.select("method", "source").unique(maintain_order=True).iter_rows():
        rows = table.filter(method=method, source=source).sort("layers")
        x, y = rows["layers"].to_numpy(), rows["value"].to_numpy()
        published = source == "published"
        look = found[method]
        draw_line(axes, x, y, look, label=f"{look.label}, {source}", hollow=published)
        draw_bars(axes, x, y, rows["standard_error"], look)
