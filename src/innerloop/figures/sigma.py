"""Loss against the noise level (Vladymyrov et al. 2024, Figures 2, 3, 6 and 7)."""

from collections.abc import Iterable, Mapping

import polars as pl
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from innerloop.figures.axes import draw_band, draw_line, legend, legend_line, loss_axis, panel, reach, settle
from innerloop.figures.depth import LOSS
from innerloop.figures.grid import finish, grid, known_first, laws
from innerloop.figures.style import Look, looks, method_key, rc
from innerloop.figures.table import Table, checked, refuse
from innerloop.tasks import NoiseLaw, Uniform, parse_noise

_BREAKDOWN = 10.0  # times the largest loss at levels that were trained on: more says no more
SIGMA = "noise level \N{GREEK SMALL LETTER SIGMA} (standard deviation)"


@rc_context(rc)
def loss_against_sigma(frame: Table, *, in_distribution: NoiseLaw | str, title: str = "") -> Figure:
    """Adjusted loss against sigma, the standard deviation of the label noise, on a logarithmic axis.

    A line a method, with a band of two standard errors. The horizontal axis runs from 0 to the largest sigma
    given; the paper goes to one above what was trained on.

    Args:
        frame: columns method ("full, 7 layers", "bayes", ...), sigma, value (> 0) and standard_error (null:
            not known).
        in_distribution: the law of sigma in training, or its text: a uniform law is shaded, levels are dotted
            lines.
        title: above the panel.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; the law cannot be read; or two methods mean the
            same.
    """
    table = checked(frame, x="sigma", positive=True)
    law = parse_noise(in_distribution) if isinstance(in_distribution, str) else in_distribution
    found = looks(table["method"].unique(maintain_order=True))
    figure, axes = panel(title)
    loss_axis(axes, reach(table), log=True)
    axes.set_xlabel(SIGMA)
    axes.set_ylabel(LOSS)
    mark = _draw_panel(axes, table, found, law)
    legend(figure, [*(legend_line(look) for look in found.values()), mark])
    return settle(figure)


@rc_context(rc)
def losses_against_sigma(
    frame: Table,
    *,
    in_distribution: Mapping[str, NoiseLaw | str] | NoiseLaw | str | None = None,
    loss: str = LOSS,
    share: bool = False,
    columns: int = 4,
    title: str = "",
) -> Figure:
    """Loss against sigma in many panels, a line a method, on logarithmic axes: the paper's Figures 2, 3, 6 and 7.

    A panel is a problem, a model or a depth; its lines are methods ("full"), depths ("3 layers") or layers
    ("after layer 3"), and keep their looks in all panels. Bands are two standard errors. The floor of every
    panel is the line of the method "bayes": the Bayes-optimal predictor for the law that was trained on. Axes
    hold all other lines; where Bayes or the oracle is lower, as near sigma = 0, or a loss is 0, it leaves the
    panel at the bottom. Where a model breaks down beyond what it was trained on, its line leaves at the top.

    Args:
        frame: columns panel, method, sigma, value (>= 0) and standard_error (null: not known); every panel
            has a method "bayes".
        in_distribution: the law of sigma in training, for all panels or by panel: a uniform law is shaded,
            levels are dotted lines. By default a panel's name is its law.
        loss: what `value` is, on the vertical axis.
        share: one vertical axis for all panels.
        columns: panels in a row.
        title: above all panels.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; a panel has no "bayes", or no positive value; a law
            cannot be read; or two methods mean the same.
    """
    table = checked(frame, x="sigma", texts=("panel", "method"))
    refuse(table, "value", table["value"] < 0, "must be >= 0")
    names = table["panel"].unique(maintain_order=True).to_list()
    trained = laws(names, in_distribution)
    bounds = _bounds(table["method"].unique())
    for name in names:
        rows = table.filter(pl.col("panel") == name)
        if "bayes" not in {method_key(method) for method in rows["method"]}:
            raise ValueError(f"every panel needs the method 'bayes', got none for {name!r}")
        if not (_above(rows, bounds)["value"] > 0).any():
            raise ValueError(f"column 'value' must be positive somewhere in every panel, got 0 in {name!r}")
    found = looks(table["method"].unique(maintain_order=True))
    figure, panels = grid(names, columns=columns, title=title, x=SIGMA, y=loss)
    marks = {}
    for name, axes in panels.items():
        rows = table.filter(pl.col("panel") == name)
        shown = [_shown(table.filter(pl.col("panel") == each), bounds, trained[each]) for each in names]
        own = pl.concat(shown) if share else shown[names.index(name)]
        loss_axis(axes, reach(own), log=True, small=True)
        mark = _draw_panel(axes, rows, found, trained[name], small=True)
        marks[isinstance(trained[name], Uniform)] = mark
    for uniform, mark in marks.items():
        mark.set_label("\N{GREEK SMALL LETTER SIGMA} trained on" if uniform else "levels trained on")
    return finish(figure, panels, [legend_line(look) for look in known_first(found)], list(marks.values()))


def _bounds(methods: Iterable[str]) -> list[str]:
    """The methods that are there to be compared with, and may leave a panel at the bottom."""
    return [method for method in methods if method_key(method) in ("bayes", "oracle")]


def _above(rows: pl.DataFrame, bounds: list[str]) -> pl.DataFrame:
    """The rows that an axis must hold: not the bounds, unless there is nothing else."""
    others = rows.filter(~pl.col("method").is_in(bounds))
    return rows if others.is_empty() else others


def _shown(rows: pl.DataFrame, bounds: list[str], law: NoiseLaw) -> pl.DataFrame:
    """The rows that an axis must hold: not the bounds, nor what breaks down beyond the levels that were trained on."""
    rows = _above(rows, bounds)
    greatest = float(law.quadrature(64)[0].max())
    known = rows.filter(pl.col("sigma") <= greatest) if greatest > 0 else rows
    top = pl.lit(_BREAKDOWN * (known if len(known) else rows)["value"].to_numpy().max())
    return rows.filter(pl.col("value") <= top).with_columns(
        standard_error=pl.min_horizontal("standard_error", (top - pl.col("value")) / 2)
    )


def _draw_panel(
    axes: Axes, table: pl.DataFrame, found: dict[str, Look], law: NoiseLaw, *, small: bool = False
) -> Artist:
    """Lines and the law; returns the legend's handle for the latter."""
    largest = max(table["sigma"].to_list()) or 1
    axes.set_xlim(0, largest)
    if small:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=largest > 1))
    mark = _mark_trained(axes, law)
    bottom, top = axes.get_ylim()
    for method in table["method"].unique(maintain_order=True):
        rows = table.filter(pl.col("method") == method).sort("sigma")
        x, y = rows["sigma"].to_numpy(), rows["value"].to_numpy()
        shown = rows.filter(pl.col("value") <= top)
        draw_band(
            axes,
            shown["sigma"].to_numpy(),
            shown["value"].to_numpy(),
            shown["standard_error"],
            found[method],
        )
        line = draw_line(axes, x, y, found[method], small=small)
        # One marker in eight is enough to tell the lines apart on a fine grid.
        line.set_markevery(max(1, len(x) // (5 if small else 8)))
        line.set_clip_on(bool(((y < bottom) | (y > top)).any()))
    return mark


def _mark_trained(axes: Axes, law: NoiseLaw) -> Artist:
    """Shade or dot what was trained on; returns the legend's handle."""
    if isinstance(law, Uniform):
        label = f"trained on: {law.low:g} to {law.high:g}"
        axes.axvspan(law.low, law.high, color="0.945", linewidth=0, zorder=0.5)
        return Patch(color="0.9", label=label)
    levels = sorted(law.quadrature(1)[0])
    for level in levels:
        axes.axvline(level, color="0.35", linestyle=":", linewidth=1.1, zorder=1.5)
    label = f"trained on: {', '.join(f'{level:g}' for level in levels)}"
    return Line2D([], [], color="0.35", linestyle=":", linewidth=1.1, label=label)
