"""Figures show the numbers they are given, readably, and are the same bytes every time."""

import itertools

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from figure_tables import MAKERS, curve_table, depth_table, matrices
from innerloop import figures
from innerloop.figures.style import METHODS


def lines(figure) -> dict:
    return {line.get_label(): line for line in figure.axes[0].lines}


@pytest.mark.parametrize("column", ["uniform_5", "categorical_1_3", "uniform_0"])
def test_lines_against_depth_are_the_table(column):
    table = depth_table(column)
    drawn = lines(figures.loss_against_depth(table.sample(fraction=1, shuffle=True, seed=1)))
    for method, source in itertools.product(["full", "diag", "gd++"], ["ours", "published"]):
        rows = table.filter(method=method, source=source).sort("layers")
        line = drawn[f"{METHODS[method].label}, {source}"]
        np.testing.assert_array_equal(line.get_xdata(), rows["layers"])
        np.testing.assert_array_equal(line.get_ydata(), rows["value"])


@pytest.mark.parametrize(("name", "x"), [("regret", "layers"), ("sigma", "sigma"), ("layer", "layer")])
def test_lines_are_the_columns(name, x):
    points = [0, 1, 2, 3]
    table = curve_table(x, ["full", "diag", "bayes"], points)
    make = {
        "regret": figures.regret_against_depth,
        "sigma": lambda frame: figures.loss_against_sigma(frame, in_distribution="fixed(1)"),
        "layer": figures.loss_after_layer,
    }[name]
    drawn = {label.partition(", ours")[0]: line for label, line in lines(make(table)).items()}
    for place, method in enumerate(["full", "diag", "bayes"]):
        line = drawn[METHODS[method].label]
        np.testing.assert_array_equal(line.get_xdata(), points)
        np.testing.assert_array_equal(line.get_ydata(), table["value"][4 * place : 4 * place + 4])


def test_jax_arrays_are_columns_too():
    table = curve_table("layers", ["full"], [1, 2])
    jaxed = table | {name: jnp.asarray(table[name]) for name in ["layers", "value", "standard_error"]}
    line = lines(figures.regret_against_depth(jaxed))["FULL, ours"]
    np.testing.assert_array_equal(line.get_ydata(), np.asarray(jaxed["value"], dtype=float))


def test_error_bars_and_bands_are_two_standard_errors():
    table = curve_table("layers", ["full"], [1, 2])
    (bars,) = figures.regret_against_depth(table).axes[0].collections
    assert isinstance(bars, LineCollection)
    for segment, value, error in zip(
        bars.get_segments(), table["value"], table["standard_error"], strict=True
    ):
        np.testing.assert_allclose(segment[:, 1], [value - 2 * error, value + 2 * error], rtol=1e-12)
    table = curve_table("layer", ["full"], [1, 2])
    (band,) = figures.loss_after_layer(table).axes[0].collections
    edges = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert edges.min() == pytest.approx(min(0.96 * table["value"]), rel=1e-12)
    assert edges.max() == pytest.approx(max(1.04 * table["value"]), rel=1e-12)


def test_unknown_standard_errors_draw_no_bars():
    table = depth_table().filter(source="published")
    assert not figures.loss_against_depth(table).axes[0].collections


def test_published_is_dashed_and_hollow_in_the_colour_of_ours():
    drawn = lines(MAKERS["depth"]())
    for method in ["full", "diag", "gd++"]:
        ours, published = (drawn[f"{METHODS[method].label}, {source}"] for source in ["ours", "published"])
        assert ours.get_color() == published.get_color() == METHODS[method].colour
        assert ours.get_marker() == published.get_marker() == METHODS[method].marker
        assert (ours.get_linestyle(), published.get_linestyle()) == ("-", "--")
        assert ours.get_markerfacecolor() != "none"
        assert published.get_markerfacecolor() == "none"
        assert published.get_markersize() > ours.get_markersize()


def test_ground_is_shaded_from_the_floor_down():
    axes = MAKERS["depth"]().axes[0]
    (ground,) = axes.patches
    box = ground.get_extents().transformed(axes.transData.inverted())
    assert box.y1 == pytest.approx(0.0385, rel=1e-9)
    assert box.y0 == pytest.approx(axes.get_ylim()[0], rel=1e-9)
    assert axes.get_ylim()[0] < 0.0385 < axes.get_ylim()[1]


def test_training_range_is_shaded_and_levels_are_dotted():
    table = curve_table("sigma", ["full", "bayes"], [0.0, 3.0, 6.0])
    (span,) = figures.loss_against_sigma(table, in_distribution="uniform(1,5)").axes[0].patches
    assert isinstance(span, Rectangle)
    assert (span.get_x(), span.get_x() + span.get_width()) == (1.0, 5.0)
    axes = figures.loss_against_sigma(table, in_distribution="categorical(5,1,3)").axes[0]
    assert not axes.patches
    dotted = [np.asarray(line.get_xdata())[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert dotted == [1.0, 3.0, 5.0]
    assert axes.get_xlim() == (0.0, 6.0)


def test_heat_maps_hold_the_matrices_on_one_centred_scale_a_row():
    P, Q = matrices(layers=3, heads=2, D=5)
    pictures = [axes.images[0] for axes in figures.heat_maps(P, Q).axes if axes.images]
    rows = [P[:, 0], P[:, 1], Q[:, 0], Q[:, 1]]
    assert len(pictures) == 12
    for row, stack in enumerate(rows):
        for picture, matrix in zip(pictures[3 * row : 3 * row + 3], stack, strict=True):
            np.testing.assert_array_equal(picture.get_array(), matrix)
            assert picture.get_clim() == (-np.abs(stack).max(), np.abs(stack).max())


@pytest.mark.parametrize(("D", "layers"), [(2, 1), (11, 4), (21, 7)])
def test_heat_maps_name_their_coordinates(D, layers):
    axes = figures.heat_maps(*matrices(layers=layers, D=D)).axes[0]
    names = {
        tick: label.get_text() for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    assert names.pop(D - 1) == "$y$"
    assert names
    assert all(name == f"$x_{{{tick + 1}}}$" for tick, name in names.items())


@pytest.mark.parametrize("column", ["method", "layers", "value", "standard_error", "source"])
def test_a_missing_column_is_named(column):
    with pytest.raises(ValueError, match=f"column '{column}' is missing"):
        figures.loss_against_depth(depth_table().drop(column))


def test_an_extra_column_is_named():
    with pytest.raises(ValueError, match="column 'seed' is not expected"):
        figures.loss_against_depth(depth_table().with_columns(seed=1))


@pytest.mark.parametrize("column", ["layers", "value", "standard_error"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named(column, bad):
    table = depth_table().with_row_index("row").with_columns(pl.col(column).cast(pl.Float64))
    table = table.with_columns(pl.when(pl.col("row") == 3).then(bad).otherwise(pl.col(column)).alias(column))
    with pytest.raises(ValueError, match=f"column '{column}' must be finite, got {bad} in row 3"):
        figures.loss_against_depth(table.drop("row"))


@pytest.mark.parametrize(
    ("column", "values", "match"),
    [
        ("value", [1.0, None], "column 'value' must be finite, got None in row 1"),
        ("value", ["1", "2"], "column 'value' must hold numbers, got String"),
        ("value", [1.0, 0.0], "column 'value' must be positive .its axis is logarithmic., got 0.0 in row 1"),
        ("method", [1, 2], "column 'method' must hold text"),
        ("method", ["full", None], "column 'method' must not be null"),
        ("layers", [1, 1.5], "column 'layers' must hold whole numbers, got 1.5 in row 1"),
        ("layers", [1, -1], "column 'layers' must be >= 0, got -1.0 in row 1"),
        ("layers", [2, 2], "column 'layers' must differ between the rows of one method"),
        ("layers", [1, 2, 3], "columns of one length"),
        ("standard_error", [0.1, -0.1], "column 'standard_error' must be >= 0"),
    ],
)
def test_wrong_columns(column, values, match):
    table = {"method": ["full", "full"], "layers": [1, 2], "value": [2, 0.5], "standard_error": [0.1, None]}
    figures.regret_against_depth(table)
    with pytest.raises(ValueError, match=match):
        figures.regret_against_depth(table | {column: values})


def test_other_wrong_arguments():
    table = depth_table()
    with pytest.raises(ValueError, match="at least one row"):
        figures.loss_against_depth(table.clear())
    with pytest.raises(ValueError, match="column 'source' must be one of ours, published, got 'theirs'"):
        figures.loss_against_depth(table.with_columns(source=pl.lit("theirs")))
    with pytest.raises(ValueError, match="floor must be finite and >= 0, got nan"):
        figures.loss_against_depth(table, floor=float("nan"))
    with pytest.raises(ValueError, match="baseline 'adarr' must be finite and >= 0, got -1.0"):
        figures.loss_against_depth(table, baselines={"adarr": -1.0})
    with pytest.raises(ValueError, match="noise must be"):
        figures.loss_against_sigma(curve_table("sigma", ["full"], [1.0]), in_distribution="normal(0,1)")
    P, Q = matrices()
    with pytest.raises(ValueError, match="one shape"):
        figures.heat_maps(P, Q[:1])
    with pytest.raises(ValueError, match="Q must be finite"):
        figures.heat_maps(P, np.nan * Q)
    with pytest.raises(ValueError, match="P must have shape"):
        figures.heat_maps(P[0], Q[0])
