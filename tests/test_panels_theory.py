"""Panels of theorems, mechanisms and matrices: heat maps, growth with a guide, output scales and ablations."""

import itertools

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import LineCollection

from innerloop import figures
from innerloop.figures.style import METHODS
from panel_lines import level, lines


def test_shared_heat_maps_have_one_bar_and_show_the_same_model(rng):
    P, Q = rng.normal(size=(2, 3, 2, 5, 5))
    P, Q = 100 * P, 0.01 * Q
    P[1, 1] = 0  # an idle head stays as it is
    axes = figures.heat_maps(P, Q, shared=True).axes
    maps = [each.images[0] for each in axes if each.images]
    assert (len(maps), len(axes)) == (12, 13)
    assert len({image.get_clim() for image in maps}) == 1
    shown = np.stack([np.asarray(image.get_array()) for image in maps]).reshape(2, 2, 3, 5, 5).swapaxes(1, 2)
    for layer, head in itertools.product(range(3), range(2)):
        p, q = shown[:, layer, head]
        np.testing.assert_allclose(
            np.einsum("ij,kl->ijkl", p, q),
            np.einsum("ij,kl->ijkl", P[layer, head], Q[layer, head]),
            rtol=1e-12,
        )
        if (layer, head) != (1, 1):
            np.testing.assert_allclose(np.abs(p).max(), np.abs(q).max(), rtol=1e-12)
    np.testing.assert_array_equal(shown[1, 1, 1], Q[1, 1])
    assert maps[0].get_clim()[1] == np.abs(shown).max()


def test_layers_that_grow_with_the_logarithm_are_a_straight_line():
    conditions = [1.0, 10.0, 100.0, 1000.0]
    table = {
        "method": ["error 1e-6"] * 4,
        "condition": conditions,
        "value": [4, 7, 10, 13],
        "standard_error": [None] * 4,
    }
    axes = figures.layers_against_condition(table).axes[0]
    line = axes.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), conditions)
    pixels = axes.transData.transform(np.column_stack(line.get_data()))
    slopes = np.diff(pixels[:, 1]) / np.diff(pixels[:, 0])
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-9)
    assert axes.get_ylim()[0] == 0
    with pytest.raises(ValueError, match="column 'condition' must be >= 1, got 0.5 in row 0"):
        figures.layers_against_condition(table | {"condition": [0.5, 2.0, 3.0, 4.0]})


def test_the_guide_goes_through_the_first_point_with_the_given_slope():
    n = np.array([100, 1000, 10_000])
    table = {
        "method": ["full"] * 3,
        "context": n,
        "value": 5 / n**0.5,
        "standard_error": 0.1 / n,
    }
    axes = figures.error_against_context(table, rate=-0.5).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(
        lines(axes)["guide"].get_ydata(), 5 / np.array([100, 10_000]) ** 0.5, rtol=1e-12
    )
    np.testing.assert_array_equal(lines(axes)["FULL"].get_ydata(), table["value"])
    assert "guide" not in lines(figures.error_against_context(table, rate=None).axes[0])
    with pytest.raises(ValueError, match="column 'context' must be >= 1, got 0.0 in row 0"):
        figures.error_against_context(table | {"context": [0, 1, 2]})


def test_bins_hold_equally_many_and_give_their_means(rng):
    x = rng.permutation(np.arange(12.0))
    table = {"method": ["full"] * 12, "r": x, "value": x**2}
    found = figures.binned(table, x="r", bins=3)
    squares = np.arange(12.0).reshape(3, 4) ** 2
    np.testing.assert_allclose(found["r"], [1.5, 5.5, 9.5], rtol=1e-12)
    np.testing.assert_allclose(found["value"], squares.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found["standard_error"], squares.std(1, ddof=1) / 2, rtol=1e-12)
    two = {"method": ["gd++"] * 3 + ["full"] * 5, "r": np.arange(8.0), "value": np.ones(8)}
    assert figures.binned(two, x="r", bins=2)["method"].to_list() == ["gd++", "gd++", "full", "full"]
    with pytest.raises(ValueError, match="bins must be from 1 to 3, the fewest rows of a method, got 4"):
        figures.binned(two, x="r", bins=4)


def test_output_scales_are_drawn_with_least_squares_and_bayes():
    table = pl.DataFrame(
        {
            "method": ["diag", "diag", "bayes", "bayes"],
            "residual_variance": [1.0, 9.0, 1.0, 9.0],
            "value": [0.9, 0.6, 0.92, 0.5],
            "standard_error": [0.01] * 4,
        }
    )
    axes = figures.output_scale(table).axes[0]
    np.testing.assert_array_equal(lines(axes)["Bayes-optimal"].get_ydata(), [0.92, 0.5])
    assert level(axes, "least squares") == 1
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 1
    with pytest.raises(ValueError, match="one method must be 'bayes', got diag"):
        figures.output_scale(table.filter(method="diag"))


def test_ablations_are_dots_beside_the_floor():
    parts = ["none", "$w_{yy}$ = 0", "$w_{xy}$ = 0"]
    rows = [
        (method, part, (1 + a) * 0.05 * 10.0**b, 0.002)
        for (a, method), (b, part) in itertools.product(enumerate(["diag", "full"]), enumerate(parts))
    ]
    table = pl.DataFrame(rows, schema=["method", "ablation", "value", "standard_error"], orient="row")
    axes = figures.ablations(table, floor=0.04).axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == parts
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row on top
    for method in ["diag", "full"]:
        line = lines(axes)[METHODS[method].label]
        np.testing.assert_array_equal(line.get_xdata(), table.filter(method=method)["value"])
        np.testing.assert_array_equal(np.round(line.get_ydata()), [0, 1, 2])
    assert set(lines(axes)["Bayes floor"].get_xdata()) == {0.04}
    bars = [c for c in axes.collections if isinstance(c, LineCollection)][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 0], [0.046, 0.054], rtol=1e-12)
    doubled = pl.concat([table, table[:1]])
    with pytest.raises(ValueError, match="column 'ablation' must differ between the rows of one method"):
        figures.ablations(doubled, floor=0.04)
