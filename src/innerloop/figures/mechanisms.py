"""How a trained model works: how it scales its output with the noise, and what it loses without one of its parts."""

import polars as pl
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from innerloop.figures.axes import (
    draw_band,
    draw_line,
    legend,
    legend_line,
    panel,
    reach,
    settle,
)
from innerloop.figures.depth import LOSS
from innerloop.figures.dots import checked_rows, rows_of_dots
from innerloop.figures.grid import finish, grid
from innerloop.figures.style import FLOOR, looks, rc
from innerloop.figures.table import Table, as_frame, checked, checked_level, names, numbers

_RESIDUAL = "residual variance of least squares, rss / (n \N{MINUS SIGN} d)"


def binned(table: Table, *, x: str, bins: int = 20) -> pl.DataFrame:
    """Means in bins of equally many points, a method at a time: what `output_scale` draws, from single sequences.

    Args:
        table: columns method, `x` and value, a row a sequence.
        x: the column whose quantiles are the bins' edges.
        bins: how many for each method.

    Returns:
        Columns method, `x` and value (means of the bin) and standard_error (null in a bin of one).

    Raises:
        ValueError: a column is missing, unexpected, of the wrong type or not finite; or there are fewer rows
            of a method than bins.
    """
    frame = as_frame(table, ["method", x, "value"])
    frame = frame.with_columns(names(frame["method"]), numbers(frame[x]), numbers(frame["value"]))
    fewest = min(frame.group_by("method").len()["len"].to_list())
    if not 1 <= bins <= fewest:
        raise ValueError(f"bins must be from 1 to {fewest}, the fewest rows of a method, got {bins}")
    rank = pl.col(x).rank("ordinal").over("method") - 1
    place = (rank * bins // pl.len().over("method")).alias("bin")
    parts = frame.with_columns(place).group_by("method", "bin", maintain_order=True)
    value = pl.col("value")
    means = parts.agg(pl.col(x).mean(), value.mean(), standard_error=value.std() / pl.len().sqrt())
    order = pl.DataFrame({"method": frame["method"].unique(maintain_order=True)})
    return order.join(means.sort("bin"), on="method", maintain_order="left_right").drop("bin")


@rc_context(rc)
def output_scale(frame: Table, *, title: str = "") -> Figure:
    """How much of least squares a model predicts, against the residual variance of least squares (section 5.2).

    A line a method, the Bayes-optimal predictor among them, with a band of two standard errors. The dotted
    line at 1 is least squares.

    Args:
        frame: columns method, residual_variance (rss / (n - d), the unbiased estimate of sigma^2), value (the
            output scale: the prediction's regression on that of least squares) and standard_error (null: not
            known), as `binned` makes them.
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; there is no Bayes-optimal predictor; or two methods
            mean the same.
    """
    table = checked(frame, x="residual_variance")
    found = looks(table["method"].unique(maintain_order=True))
    if FLOOR.colour not in {look.colour for look in found.values()}:
        raise ValueError(f"one method must be 'bayes', got {', '.join(found)}")
    figure, axes = panel(title)
    held = [*reach(table), 0.0, 1.0]
    margin = 0.05 * (max(held) - min(held))
    axes.set_ylim(min(held) - margin * (min(held) < 0), max(held) + margin)
    axes.set_xlim(0, 1.02 * (max(table["residual_variance"].to_list()) or 1))
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(_RESIDUAL)
    axes.set_ylabel("output scale (1: least squares)")
    axes.axhline(1, color="0.35", linestyle=":", linewidth=1.1, label="least squares", zorder=1.8)
    for method, look in found.items():
        rows = table.filter(pl.col("method") == method).sort("residual_variance")
        x, y = rows["residual_variance"].to_numpy(), rows["value"].to_numpy()
        draw_band(axes, x, y, rows["standard_error"], look)
        draw_line(axes, x, y, look)
    legend(figure, [legend_line(look) for look in found.values()])
    return settle(figure)


@rc_context(rc)
def step_sizes(frame: Table, *, columns: int = 3, title: str = "") -> Figure:
    """How far each layer goes along the gradient, against the residual variance of least squares (section 5.3).

    A panel a model and a line a layer, with a band of two standard errors; a step of plain gradient descent would be a
    horizontal line, and the dotted one is no step.

    Args:
        frame: columns panel (the model), method (the line: "layer 1", ...), residual_variance, value (the step, in units
            of n over the Gram matrix) and standard_error (null: not known).
        columns: panels in a row.
        title: above all panels.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; or two methods mean the same.
    """
    table = checked(frame, x="residual_variance", texts=("panel", "method"))
    found = looks(table["method"].unique(maintain_order=True))
    models = table["panel"].unique(maintain_order=True).to_list()
    figure, panels = grid(models, columns=columns, title=title, x=_RESIDUAL, y="step along the gradient")
    for name, axes in panels.items():
        rows = table.filter(pl.col("panel") == name)
        held = [*reach(rows), 0.0]
        margin = 0.05 * ((max(held) - min(held)) or 1)
        axes.set_ylim(min(held) - margin, max(held) + margin)
        axes.set_xlim(0, 1.02 * (max(rows["residual_variance"].to_list()) or 1))
        axes.axhline(0, color="0.35", linestyle=":", linewidth=1.1, zorder=1.8)
        for method in rows["method"].unique(maintain_order=True):
            line = rows.filter(pl.col("method") == method).sort("residual_variance")
            x, y = line["residual_variance"].to_numpy(), line["value"].to_numpy()
            draw_band(axes, x, y, line["standard_error"], found[method])
            draw_line(axes, x, y, found[method], small=True)
    return finish(figure, panels, [legend_line(look) for look in found.values()])


@rc_context(rc)
def ablations(frame: Table, *, floor: float, title: str = "") -> Figure:
    """Loss of models without one of their parts, a row a part and a dot a model, on a logarithmic axis if need be.

    Rows come in the order of the table, from the top; error bars are two standard errors.

    Args:
        frame: columns method (the model), ablation ("none", "$w_{yy}$ = 0", ...), value (adjusted loss, > 0) and
            standard_error (null: not known).
        floor: the Bayes floor, a vertical line.
        title: above the panel.

    Raises:
        ValueError: a column is missing, unexpected or of the wrong type; a value is not positive; two rows
            are the same; the floor is negative or not finite; or two methods mean the same.
    """
    table = checked_rows(frame, "ablation")
    return rows_of_dots(table, "ablation", loss=LOSS, floor=checked_level("floor", floor), title=title)
