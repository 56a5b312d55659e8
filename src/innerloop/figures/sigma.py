"""Loss against the noise level (Vladymyrov et al. 2024, Figures 2 and 3)."""

import polars as pl
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from innerloop.figures.axes import draw_band, draw_line, legend, legend_line, loss_axis, panel, reach, settle
from innerloop.figures.depth import LOSS
from innerloop.figures.style import looks, rc
from innerloop.figures.table import Table, checked
from innerloop.tasks import NoiseLaw, Uniform, parse_noise


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
    table = checked(frame, x="sigma", whole=False, positive=True)
    law = parse_noise(in_distribution) if isinstance(in_distribution, str) else in_distribution
    found = looks(table["method"].unique(maintain_order=True))
    figure, axes = panel(title)
    loss_axis(axes, reach(table), log=True)
    largest = max(table["sigma"].to_list())
    axes.set_xlim(0, largest or 1)
    axes.set_xlabel("noise level \N{GREEK SMALL LETTER SIGMA} (standard deviation)")
    axes.set_ylabel(LOSS)
    mark = _mark_trained(axes, law)
    for method, look in found.items():
        rows = table.filter(pl.col("method") == method).sort("sigma")
        x, y = rows["sigma"].to_numpy(), rows["value"].to_numpy()
        draw_band(axes, x, y, rows["standard_error"], look)
        line = draw_line(axes, x, y, look)
        # One marker in eight is enough to tell the lines apart on a fine grid.
        line.set_markevery(max(1, len(x) // 8))
        line.set_clip_on(False)
    legend(figure, [*(legend_line(look) for look in found.values()), mark])
    return settle(figure)


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
