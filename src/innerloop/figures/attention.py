"""What the layers of causal decoders attend to, and how far they are from classical predictions."""

import textwrap

import numpy as np
import polars as pl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from innerloop.figures.axes import draw_band, draw_line, layer_axis, legend_line, loss_axis, reach, settle
from innerloop.figures.grid import finish, grid, spelt
from innerloop.figures.style import looks, rc
from innerloop.figures.table import Table, as_frame, checked, names, numbers, refuse

_SIDE = 1.4  # inches a map and the gap beside it
_CONTROL = "0.78"  # the grey of an untrained model
_STRIDE = 3  # tokens from one tick to the next: odd, so that x and y are named in turn


@rc_context(rc)
def attention_maps(frame: Table, *, title: str = "") -> Figure:
    """How much every token attends to those before it: a row a method, a column a layer, one colour scale for all.

    Colours are by the square root of the weight, or all but the first few tokens, which share their weight among fewer,
    would look empty. Cells of later tokens, which nothing attends to, are grey.

    Args:
        frame: columns method, layer (from 1), token and attended (numbers of the tokens x_0, y_0, x_1, .., attended not
            after token) and weight (>= 0); pairs that are not there have none.
        title: above all.

    Raises:
        ValueError: a column is missing, unexpected, of the wrong type or not finite; a weight is negative, or of a later
            token; or two rows are the same pair.
    """
    table = _pairs(frame)
    methods = table["method"].unique(maintain_order=True).to_list()
    layers = sorted(table["layer"].unique().to_list())
    tokens = int(table["token"].max()) + 1  # pyright: ignore[reportArgumentType, reportOperatorIssue]
    norm = PowerNorm(0.5, 0, table["weight"].max())  # pyright: ignore[reportArgumentType]
    size = (max(3.0, _SIDE * len(layers) + 1.2), _SIDE * len(methods) + 0.5 + 0.2 * bool(title))
    figure = Figure(figsize=size, layout="constrained")
    figure.set_label(title)
    if title:
        figure.suptitle(textwrap.fill(title, int(15 * size[0])), x=0.01, ha="left")
    cells = figure.subplots(len(methods), len(layers), squeeze=False, sharex=True, sharey=True)
    for axes, method in zip(cells[:, 0], methods, strict=True):
        axes.set_ylabel(textwrap.fill(spelt(method), 18))
    for axes, layer in zip(cells[0], layers, strict=True):
        axes.set_title(f"layer {layer:g}", loc="center", pad=4)
    for (method, layer), pairs in table.group_by("method", "layer", maintain_order=True):
        axes = cells[methods.index(method), layers.index(layer)]
        axes.imshow(_map(pairs, tokens), cmap="viridis", norm=norm, interpolation="nearest")
    for axes in cells.flat:
        _token_ticks(axes, tokens)
    image = next(axes.images[0] for axes in cells.flat if axes.images)
    bar = figure.colorbar(image, ax=cells, shrink=min(1, 2 / len(methods)), aspect=25, label="weight")
    bar.outline.set_linewidth(0.5)  # pyright: ignore[reportCallIssue]
    figure.supxlabel("token that is attended to")
    figure.supylabel("token that attends")
    return settle(figure)


def _pairs(frame: Table) -> pl.DataFrame:
    """The frame of `attention_maps`, each column of its type."""
    columns = ["layer", "token", "attended", "weight"]
    table = as_frame(frame, ["method", *columns])
    table = table.with_columns(names(table["method"]), *(numbers(table[name]) for name in columns))
    for name in columns[:3]:
        refuse(
            table, name, (table[name] < 0) | (table[name] != table[name].round()), "must hold whole numbers"
        )
    refuse(table, "weight", table["weight"] < 0, "must be >= 0")
    refuse(table, "attended", table["attended"] > table["token"], "must not be after token")
    same = table.select("method", *columns[:3]).is_duplicated()
    refuse(table, "attended", same, "must differ between the rows of one method, layer and token")
    return table


def _map(pairs: pl.DataFrame, tokens: int) -> np.ma.MaskedArray:
    """A row a token that attends, `(tokens, tokens)`, without what is after it."""
    weights = np.zeros((tokens, tokens))
    weights[pairs["token"].cast(pl.Int64), pairs["attended"].cast(pl.Int64)] = pairs["weight"]
    return np.ma.masked_where(np.triu(np.ones_like(weights), 1) > 0, weights)


def _token_ticks(axes: Axes, tokens: int) -> None:
    """x_0, y_1, x_3, y_4, ..: both kinds, as many as have room."""
    shown = range(0, tokens, _STRIDE if tokens > 8 else 1)
    labels = [f"${'xy'[token % 2]}_{{{token // 2}}}$" for token in shown]
    axes.set_facecolor("0.93")
    axes.grid(False)
    axes.set_xticks(shown, labels)
    axes.set_yticks(shown, labels)
    axes.tick_params(length=2)


@rc_context(rc)
def distances_after_layer(frame: Table, *, distance: str, columns: int = 4, title: str = "") -> Figure:
    """How far layers are from what they are held against, on a logarithmic axis: a panel a model, a line a target.

    Trained models have lines with bands of two standard errors; of the untrained one, the control, there is one grey band
    from the least to the greatest of its targets.

    Args:
        frame: columns panel, method (the target), model ("trained" or "untrained"), layer (0: before the first), value
            (> 0) and standard_error (null: not known).
        distance: what `value` is, on the vertical axis.
        columns: panels in a row.
        title: above all panels.

    Raises:
        ValueError: see `innerloop.figures.table.checked`; `model` holds another name; or two methods mean the same.
    """
    table = checked(frame, x="layer", whole=True, positive=True, texts=("panel", "method", "model"))
    refuse(table, "model", ~table["model"].is_in(["trained", "untrained"]), "must be trained or untrained")
    found = looks(table["method"].unique(maintain_order=True))
    panels_of = table["panel"].unique(maintain_order=True).to_list()
    at = "layer that is read (0: before the first)"
    figure, panels = grid(panels_of, columns=columns, title=title, x=at, y=distance)
    for name, axes in panels.items():
        axes.set_title(spelt(name).replace(", ", "\n", 1), fontsize=8.5, pad=4)
        rows = table.filter(panel=name)
        loss_axis(axes, reach(table), log=True, small=True)
        layer_axis(axes, rows["layer"], small=True)
        control = (
            rows.filter(model="untrained")
            .group_by("layer")
            .agg(least=pl.col("value").min(), greatest=pl.col("value").max())
        )
        # Its edge shows a band that is too narrow to see.
        axes.fill_between(*control.sort("layer").to_numpy().T, color=_CONTROL, linewidth=1.2, zorder=1.9)
        for method in rows["method"].unique(maintain_order=True):
            line = rows.filter(model="trained", method=method).sort("layer")
            x, y = line["layer"].to_numpy(), line["value"].to_numpy()
            draw_band(axes, x, y, line["standard_error"], found[method])
            draw_line(axes, x, y, found[method], small=True)
    control = Patch(color=_CONTROL, label="untrained, all targets")
    several = "untrained" in table["model"]
    return finish(figure, panels, [legend_line(look) for look in found.values()], [control] * several)
