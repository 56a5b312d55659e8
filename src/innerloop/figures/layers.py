"""Loss of what a model would predict after each of its layers (Vladymyrov et al. 2024, Figure 5)."""

from collections.abc import Mapping

import polars as pl
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from innerloop.figures.axes import (
    draw_band,
    draw_floor,
    draw_line,
    label_at_right,
    layer_axis,
    legend,
    legend_line,
    level_line,
    loss_axis,
    panel,
    reach,
    settle,
)
from innerloop.figures.depth import LOSS
from innerloop.figures.grid import finish, floors, grid
from innerloop.figures.style import FLOOR, looks, rc
from innerloop.figures.table import Table, checked, checked_level

READ_AT = "layers applied before the prediction is read"


@rc_context(rc)
def loss_after_layer(frame: Table, *, floor: float | None = None, title: str = "") -> Figure:
    """Adjusted loss of the prediction after k layers, a line a model, on a logarithmic axis.

    Args:
        frame: columns method (the model: "full", "diag, 4 layers", ...), layer (0: before the first), value
            (> 0) and standard_error (null: not known), drawn as a band of two.
        floor: the Bayes floor, drawn as a line above shaded ground; 0 is only named.
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; `floor` is negative or not finite; or two models
            mean the same.
    """
    table = checked(frame, x="layer", whole=True, positive=True)
    found = looks(table["method"].unique(maintain_order=True))
    figure, axes = panel(title)
    values = reach(table) + ([] if floor is None else [checked_level("floor", floor)])
    loss_axis(axes, values, log=True, floor=floor)
    layer_axis(axes, table["layer"], READ_AT)
    axes.set_ylabel(LOSS)
    if floor is not None:
        draw_floor(axes, floor)
    for method, look in found.items():
        rows = table.filter(pl.col("method") == method).sort("layer")
        x, y = rows["layer"].to_numpy(), rows["value"].to_numpy()
        draw_band(axes, x, y, rows["standard_error"], look)
        draw_line(axes, x, y, look)
    legend(figure, [legend_line(look) for look in found.values()])
    if floor is not None:
        label_at_right(axes, [(floor, FLOOR)])
    return settle(figure)


@rc_context(rc)
def losses_after_layer(
    frame: Table,
    *,
    floor: Mapping[str, float] | float,
    share: bool = True,
    columns: int = 3,
    title: str = "",
) -> Figure:
    """Adjusted loss of the prediction after k layers over seeds, on logarithmic axes: the paper's Figure 5.

    A panel a model or problem, a line a depth or method: the median over seeds, and a band from the least to
    the greatest.

    Args:
        frame: columns panel, method (the line: "4 layers", "full", ...), seed, layer (0: before the first)
            and value (> 0).
        floor: the Bayes floor, of all panels or by panel; one of 0 is below the axis.
        share: one vertical axis for all panels.
        columns: panels in a row.
        title: above all panels.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; a floor is missing, negative or not finite; or two
            methods mean the same.
    """
    table = checked(
        frame, x="layer", whole=True, positive=True, texts=("panel", "method"), keys=["seed"], error=False
    )
    names = table["panel"].unique(maintain_order=True).to_list()
    levels = floors(names, floor)
    found = looks(table["method"].unique(maintain_order=True))
    value = pl.col("value")
    spread = table.group_by("panel", "method", "layer", maintain_order=True).agg(
        median=value.median(), least=value.min(), greatest=value.max()
    )
    figure, panels = grid(names, columns=columns, title=title, x=READ_AT, y=LOSS)
    for name, axes in panels.items():
        rows = table.filter(pl.col("panel") == name)
        held = [*table["value"], *levels.values()] if share else [*rows["value"], levels[name]]
        lowest = min(levels.values()) if share else levels[name]
        loss_axis(axes, held, log=True, floor=lowest, small=True)
        layer_axis(axes, (table if share else rows)["layer"], small=True)
        draw_floor(axes, levels[name], small=True)
        for method in rows["method"].unique(maintain_order=True):
            line = spread.filter(panel=name, method=method).sort("layer")
            x, median, least, greatest = (
                line[c].to_numpy() for c in ("layer", "median", "least", "greatest")
            )
            axes.fill_between(x, least, greatest, color=found[method].colour, alpha=0.25, linewidth=0)
            draw_line(axes, x, median, found[method], small=True)
    several = table["seed"].n_unique() > 1
    band = Patch(color="0.8", label="all seeds; line: median")
    lines = [legend_line(look) for look in found.values()]
    return finish(figure, panels, lines, [level_line(FLOOR), *([band] if several else [])])
