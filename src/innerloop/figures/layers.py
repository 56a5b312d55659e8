"""Loss of what a model would predict after each of its layers (Vladymyrov et al. 2024, Figure 5)."""

import polars as pl
from matplotlib import rc_context
from matplotlib.figure import Figure

from innerloop.figures.axes import (
    draw_band,
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
)
from innerloop.figures.depth import LOSS
from innerloop.figures.style import METHODS, Look, looks, rc
from innerloop.figures.table import Table, checked, checked_level


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
    layer_axis(axes, table["layer"], "layers applied before the prediction is read")
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
        bayes = METHODS["bayes"]
        label_at_right(axes, [(floor, Look("Bayes floor", bayes.colour, bayes.marker))])
    return settle(figure)
