"""Adjusted loss against the number of layers (Vladymyrov et al. 2024, Figure 1)."""

from collections.abc import Mapping, Sequence

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
    level_line,
    loss_axis,
    panel,
    reach,
    settle,
    spans_more_than_a_decade,
    strokes,
)
from innerloop.figures.grid import finish, grid
from innerloop.figures.results import checked_results, floor_rows
from innerloop.figures.style import FLOOR, Look, looks, method_key, rc
from innerloop.figures.table import SOURCES, Table, checked, checked_level

LOSS = "adjusted loss (half squared error)"
LAYERS = "number of layers"
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
    table = checked(frame, x="layers", whole=True, texts=("method", "source"))
    levels = {name: checked_level(f"baseline '{name}'", value) for name, value in (baselines or {}).items()}
    found = looks([*table["method"].unique(maintain_order=True), *levels])
    flat = [*levels.values(), *([] if floor is None else [checked_level("floor", floor)])]

    figure, axes = panel(title)
    log = bool((table["value"] > 0).all()) and spans_more_than_a_decade([*table["value"], *flat])
    _draw_panel(axes, table, found, levels, floor, log=log)
    axes.set_xlabel(LAYERS)
    axes.set_ylabel(LOSS)
    methods = table["method"].unique(maintain_order=True)
    legend(figure, [legend_line(found[method]) for method in methods], _source_lines(table["source"]))
    named = [(value, found[name]) for name, value in levels.items()]
    label_at_right(axes, named if floor is None else [*named, (floor, FLOOR)])
    return settle(figure)


@rc_context(rc)
def losses_against_depth(frame: Table, *, loss: str = LOSS, columns: int = 4, title: str = "") -> Figure:
    """Loss against the number of layers, a panel a problem: the paper's Figure 1 with the Bayes floor.

    Ours solid, published dashed and hollow, as in `loss_against_depth`; predictors without layers and the
    floor are horizontal lines. All axes are logarithmic if the values of one panel span more than a decade;
    a level of 0 is then said in the panel instead of drawn. A value that is not told apart from 0, such as a mean
    that one sequence carries, stretches no axis: its line may leave the panel. Rows of the Bayes-optimal predictor
    are left out: its loss is the floor.

    Args:
        frame: columns problem, method, layers, value, standard_error and published, as
            `innerloop.figures.results.checked_results` describes them; one row of each problem is its floor.
        loss: what `value` is, on the vertical axis.
        columns: panels in a row.
        title: above all panels.

    Raises:
        ValueError: see `innerloop.figures.results.checked_results`; no row has layers; or two methods mean
            the same.
    """
    table = checked_results(frame)
    levels = dict(table.filter(floor_rows(table)).select("problem", "value").iter_rows())
    shown = [method_key(method) != "bayes" for method in table["method"]]
    table = table.filter(pl.Series(shown))
    deep, flat = table.filter(pl.col("layers") > 0), table.filter(pl.col("layers").is_null())
    if deep.is_empty():
        raise ValueError("column 'layers' must be a number in at least one row, got only nulls")
    methods = deep["method"].unique(maintain_order=True)
    baselines = flat["method"].unique(maintain_order=True)
    found = looks([*methods, *(name for name in baselines if name not in methods)])
    both = _by_source(deep)
    log = bool((both["value"] > 0).all()) and any(
        spans_more_than_a_decade([*_of(both, problem)["value"], floor]) for problem, floor in levels.items()
    )
    problems = deep["problem"].unique(maintain_order=True).to_list()
    figure, panels = grid(problems, columns=columns, title=title, x=LAYERS, y=loss)
    for problem, axes in panels.items():
        rows = dict(_of(flat, problem).select("method", "value").iter_rows())
        _draw_panel(axes, _of(both, problem), found, rows, levels[problem], log=log, small=True)
        layer_axis(axes, both["layers"], small=True)
    handles = [legend_line(found[name]) for name in methods]
    seen = [FLOOR] if not log or any(levels.values()) else []  # zero is said in words on a logarithmic axis
    last = [level_line(look) for look in [*(found[name] for name in baselines), *seen]]
    return finish(figure, panels, handles, [*_source_lines(both["source"]), *last])


def _by_source(deep: pl.DataFrame) -> pl.DataFrame:
    """Ours, and the published numbers as rows of their own."""
    names = ["problem", "method", "layers", "value", "standard_error"]
    ours = deep.select(*names, source=pl.lit("ours"))
    theirs = deep.filter(pl.col("published").is_not_null()).with_columns(
        value=pl.col("published").cast(pl.Float64), standard_error=pl.lit(None, dtype=pl.Float64)
    )
    return pl.concat([ours, theirs.select(*names, source=pl.lit("published"))])


def _of(table: pl.DataFrame, problem: str) -> pl.DataFrame:
    return table.filter(pl.col("problem") == problem)


def _draw_panel(
    axes: Axes,
    table: pl.DataFrame,
    found: dict[str, Look],
    levels: Mapping[str, float],
    floor: float | None,
    *,
    log: bool,
    small: bool = False,
) -> None:
    flat = [*levels.values(), *([] if floor is None else [floor])]
    loss_axis(axes, [*reach(table), *flat], log=log, floor=floor, small=small)
    layer_axis(axes, table["layers"], small=small)
    if floor is not None:
        draw_floor(axes, floor, small=small)
    for name, value in levels.items():
        if value > 0 or not log:
            look = found[name]
            axes.axhline(
                value, color=look.colour, linestyle=look.dash, linewidth=1.2, label=look.label, zorder=2.1
            )
    if small and log:
        zero = [found[name].label for name, value in levels.items() if value == 0]
        _say_zero(axes, [*zero, *([FLOOR.label] if floor == 0 else [])])
    draw_methods(axes, table, found, small=small)


def draw_methods(axes: Axes, table: pl.DataFrame, found: dict[str, Look], *, small: bool = False) -> None:
    """A line with error bars for each method and source."""
    for method, source in table.select("method", "source").unique(maintain_order=True).iter_rows():
        rows = table.filter(method=method, source=source).sort("layers")
        x, y = rows["layers"].to_numpy(), rows["value"].to_numpy()
        published = source == "published"
        look = found[method]
        draw_line(axes, x, y, look, label=f"{look.label}, {source}", hollow=published, small=small)
        draw_bars(axes, x, y, rows["standard_error"], look)


def _say_zero(axes: Axes, names: Sequence[str]) -> None:
    if names:
        text = ",\n".join([*names[:-1], f"{names[-1]}: 0 \N{DOWNWARDS ARROW}"])
        style = {"fontsize": 8, "color": "0.3", "transform": axes.transAxes, "linespacing": 1.05}
        axes.text(0.04, 0.03, text, va="bottom", **style)


def _source_lines(sources: pl.Series) -> list[Line2D]:
    """The legend's handles for ours and published; none if all is ours."""
    found = [source for source in SOURCES if source in sources]
    lines = [Line2D([], [], label=source, **strokes(_GREY, source == "published")) for source in found]
    return lines if "published" in found else []
