"""Loss while training, under shifts and by position (Goel et al. 2026)."""

import polars as pl
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from innerloop.figures.axes import (
    draw_band,
    draw_line,
    legend,
    legend_line,
    log_ticks,
    loss_axis,
    panel,
    settle,
)
from innerloop.figures.dots import checked_rows, rows_of_dots
from innerloop.figures.grid import finish, grid
from innerloop.figures.style import FLOOR, looks, rc
from innerloop.figures.table import Table, checked, checked_level, refuse

SEEN = "training sequences seen"


@rc_context(rc)
def losses_while_training(
    frame: Table,
    *,
    loss: str,
    published: dict[tuple[str, str], float] | None = None,
    seen: str = SEEN,
    share: bool = True,
    columns: int = 3,
    title: str = "",
) -> Figure:
    """Loss against the sequences that training has seen, on logarithmic axes: the median over seeds, and all of them.

    A panel a depth or problem, a line a method; the band runs from the least to the greatest seed.

    Args:
        frame: columns panel, method, seed, sequences (> 0) and value (the loss, > 0).
        loss: what `value` is, on the vertical axis.
        published: last values to stand beside ours, by (panel, method): a hollow mark at the line's end.
        seen: what `sequences` counts, where it is something else.
        share: one pair of axes for all panels.
        columns: panels in a row.
        title: above all panels.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; sequences are not positive; a published value is negative, not
            finite, or of a line that is not there; or two methods mean the same.
    """
    table = checked(
        frame, x="sequences", whole=True, positive=True, texts=("panel", "method"), keys=["seed"], error=False
    )
    refuse(table, "sequences", table["sequences"] == 0, "must be positive (its axis is logarithmic)")
    lines = set(table.select("panel", "method").unique().iter_rows())
    for line, level in (published or {}).items():
        checked_level("published", level)
        if line not in lines:
            raise ValueError(f"published must be given for lines of the frame, got {line!r}")
    names = table["panel"].unique(maintain_order=True).to_list()
    found = looks(table["method"].unique(maintain_order=True))
    value = pl.col("value")
    spread = table.group_by("panel", "method", "sequences", maintain_order=True).agg(
        median=value.median(), least=value.min(), greatest=value.max()
    )
    figure, panels = grid(names, columns=columns, title=title, x=seen, y=loss)
    for name, axes in panels.items():
        held = table if share else table.filter(pl.col("panel") == name)
        levels = [level for (place, _), level in (published or {}).items() if share or place == name]
        loss_axis(axes, [*held["value"], *levels], log=True, small=True)
        counts = held["sequences"].to_numpy()
        ends = [float(counts.min()), float(counts.max())]
        ends = ends if ends[0] < ends[1] else [ends[0] * 0.8, ends[1] * 1.25]
        axes.set_xscale("log")
        axes.set_xlim(*ends)
        log_ticks(axes.xaxis, *ends, small=True)
        for method in table.filter(pl.col("panel") == name)["method"].unique(maintain_order=True):
            line = spread.filter(panel=name, method=method).sort("sequences")
            x, median, least, greatest = (
                line[c].to_numpy() for c in ("sequences", "median", "least", "greatest")
            )
            axes.fill_between(x, least, greatest, color=found[method].colour, alpha=0.25, linewidth=0)
            drawn = draw_line(axes, x, median, found[method], small=True)
            drawn.set_markevery(max(1, len(x) // 5))
            if (level := (published or {}).get((name, method))) is not None:
                mark = _hollow(found[method].marker, found[method].colour)
                axes.plot(x[-1:], [level], clip_on=False, zorder=5, **mark)
    marks: list[Artist] = []
    if table["seed"].n_unique() > 1:
        marks.append(Patch(color="0.8", label="all seeds; line: median"))
    if published:
        marks.append(Line2D([], [], label="published", **_hollow("o", "0.35")))
    return finish(figure, panels, [legend_line(look) for look in found.values()], marks)


@rc_context(rc)
def losses_under_shifts(frame: Table, *, loss: str, title: str = "") -> Figure:
    """Loss on test sets that differ from the training data, a row a shift and a dot a method.

    Rows come in the order of the table, from the top; error bars are two standard errors.

    Args:
        frame: columns method, shift (what differs), value (> 0) and standard_error (null: not known).
        loss: what `value` is, on the horizontal axis.
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.dots.checked_rows`; or two methods mean the same.
    """
    return rows_of_dots(checked_rows(frame, "shift"), "shift", loss=loss, floor=None, title=title)


@rc_context(rc)
def losses_by_examples(
    frame: Table, *, loss: str, floor: dict[int, float] | None = None, title: str = ""
) -> Figure:
    """Loss of a prediction against the examples that it was given, a line a method with a band of two standard errors.

    Args:
        frame: columns method, examples (>= 0), value (> 0) and standard_error (null: not known).
        loss: what `value` is, on the logarithmic vertical axis.
        floor: the least possible loss after so many examples, a black line; levels of zero are left out.
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; a level of the floor is negative or not finite; or two methods
            mean the same.
    """
    table = checked(frame, x="examples", whole=True, positive=True)
    levels = {x: level for x, each in (floor or {}).items() if (level := checked_level("floor", each)) > 0}
    found = looks(table["method"].unique(maintain_order=True))
    figure, axes = panel(title)
    loss_axis(axes, [*table["value"], *levels.values()], log=True)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel("examples in the context")
    axes.set_ylabel(loss)
    if levels:
        axes.plot(list(levels), list(levels.values()), color=FLOOR.colour, linewidth=1.1, zorder=2.2)
    for method in table["method"].unique(maintain_order=True):
        line = table.filter(pl.col("method") == method).sort("examples")
        x, y = line["examples"].to_numpy(), line["value"].to_numpy()
        draw_band(axes, x, y, line["standard_error"], found[method])
        draw_line(axes, x, y, found[method])
    last = [Line2D([], [], color=FLOOR.colour, linewidth=1.1, label=FLOOR.label)] if levels else []
    legend(figure, [legend_line(look) for look in found.values()], last)
    return settle(figure)


def _hollow(marker: str, colour: str) -> dict:
    return {
        "marker": marker,
        "markerfacecolor": "white",
        "markeredgecolor": colour,
        "markersize": 6,
        "markeredgewidth": 1.4,
        "linestyle": "none",
    }
