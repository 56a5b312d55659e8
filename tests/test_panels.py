"""Figures of many panels show the numbers they are given, each with the Bayes floor; so do theorems and mechanisms."""

import itertools

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.patches import Rectangle

from innerloop import figures
from innerloop.figures.style import METHODS
from innerloop.papers.vladymyrov2024 import printed_table_1

FLOORS = {"fixed(0)": 0.0, "uniform(0,1)": 0.0018, "uniform(0,5)": 0.0385, "categorical(1,3)": 0.0072}
NAMES = {
    "fixed(0)": "σ = 0",
    "uniform(0,1)": "σ ~ U(0, 1)",
    "uniform(0,5)": "σ ~ U(0, 5)",
    "categorical(1,3)": "σ ∈ {1, 3}",
}


def results(problems=tuple(FLOORS)) -> pl.DataFrame:
    """The paper's table, and pretended numbers of ours, 2 % higher; with the floors."""
    table = printed_table_1().filter(pl.col("problem").is_in(problems))
    value = 1.02 * pl.col("published").cast(pl.Float64)
    ours = table.with_columns(value=value, standard_error=0.01 * value)
    floor = pl.DataFrame({"problem": problems, "value": [FLOORS[problem] for problem in problems]})
    floor = floor.with_columns(method=pl.lit("floor"), standard_error=pl.lit(0.0))
    columns = ["problem", "method", "layers", "value", "standard_error", "published"]
    return pl.concat([ours, floor], how="diagonal").select(columns)


def profiles(panels=("uniform(0,5)", "categorical(1,3)"), methods=("full", "gd++", "bayes")) -> pl.DataFrame:
    """Curves that differ between panels and methods; Bayes vanishes at sigma = 0."""
    rows = [
        (panel, method, sigma, (0.1 + a) * (0.01 * (method != "bayes") + sigma**2) / (1 + b), 0.001)
        for (a, panel), (b, method), sigma in itertools.product(
            enumerate(panels), enumerate(methods), [0.0, 1.0, 2.0, 4.0, 6.0]
        )
    ]
    columns = ["panel", "method", "sigma", "value", "standard_error"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def by_seed() -> pl.DataFrame:
    rows = [
        (panel, f"{depth} layers", seed, layer, (1 + seed) * 0.5**layer + 0.1 * depth)
        for panel, depth, seed in itertools.product(["full", "gd++"], [2, 3], [0, 1, 4])
        for layer in range(depth + 1)
    ]
    return pl.DataFrame(rows, schema=["panel", "method", "seed", "layer", "value"], orient="row")


def regrets() -> pl.DataFrame:
    rows = [
        (problem, method, layers, 0.3**layers, 0.01 if layers < 3 else 0.3**layers)
        for problem, method, layers in itertools.product(
            ["uniform(0,1)", "uniform(0,5)"], ["full", "gd++", "diag"], [1, 2, 3]
        )
    ]
    columns = ["problem", "method", "layers", "value", "standard_error"]
    return pl.DataFrame(rows, schema=columns, orient="row")


@pytest.fixture(scope="module")
def figure1():
    return figures.losses_against_depth(results())


@pytest.fixture(scope="module")
def figure2():
    return figures.losses_against_sigma(profiles())


@pytest.fixture(scope="module")
def figure5():
    return figures.losses_after_layer(by_seed(), floor={"full": 0.05, "gd++": 0.08})


def panels(figure) -> dict:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def lines(axes) -> dict:
    """By label; the caps of error bars have none."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def level(axes, label: str) -> float:
    (height,) = {float(y) for y in lines(axes)[label].get_ydata()}
    return height


# What is drawn is what was given.


def test_a_panel_a_problem_with_our_and_the_published_lines(figure1):
    table = results()
    assert list(panels(figure1)) == list(NAMES.values())
    for problem, name in NAMES.items():
        drawn = lines(panels(figure1)[name])
        for method in ["gd++", "diag", "full"]:
            rows = table.filter(problem=problem, method=method).sort("layers")
            ours, theirs = (drawn[f"{METHODS[method].label}, {source}"] for source in ["ours", "published"])
            np.testing.assert_array_equal(ours.get_xdata(), range(1, 8))
            np.testing.assert_array_equal(ours.get_ydata(), rows["value"])
            np.testing.assert_array_equal(theirs.get_ydata(), rows["published"].cast(pl.Float64))
            assert ours.get_color() == theirs.get_color() == METHODS[method].colour


def test_baselines_are_levels_in_their_panels(figure1):
    for problem in ["uniform(0,1)", "uniform(0,5)", "categorical(1,3)"]:
        for method in ["constrr", "adarr", "tunedrr"]:
            (value,) = results().filter(problem=problem, method=method)["value"]
            assert level(panels(figure1)[NAMES[problem]], METHODS[method].label) == value


def test_every_panel_has_its_floor(figure1, figure5):
    for problem, floor in FLOORS.items():
        if floor > 0:
            assert level(panels(figure1)[NAMES[problem]], "Bayes floor") == floor
    assert level(panels(figure5)["FULL"], "Bayes floor") == 0.05
    assert level(panels(figure5)["GD++"], "Bayes floor") == 0.08


def test_levels_of_zero_are_said_where_a_logarithm_cannot_show_them(figure1):
    (text,) = panels(figure1)["σ = 0"].texts
    assert text.get_text() == "ConstRR,\nAdaRR,\nTunedRR,\nBayes floor: 0 ↓"
    assert "Bayes floor" not in lines(panels(figure1)["σ = 0"])
    assert not panels(figure1)["σ ~ U(0, 5)"].texts


def test_the_optimal_predictor_is_not_drawn_beside_its_floor():
    table = results()
    row = table.filter(method="floor").with_columns(method=pl.lit("bayes"))
    figure = figures.losses_against_depth(pl.concat([table, row]))
    assert "Bayes-optimal" not in lines(panels(figure)["σ ~ U(0, 5)"])


def test_profiles_are_the_table(figure2):
    for panel, method in itertools.product(["uniform(0,5)", "categorical(1,3)"], ["full", "gd++", "bayes"]):
        line = lines(panels(figure2)[NAMES[panel]])[METHODS[method].label]
        rows = profiles().filter(panel=panel, method=method)
        np.testing.assert_array_equal(line.get_xdata(), rows["sigma"])
        np.testing.assert_array_equal(line.get_ydata(), rows["value"])
        assert line.get_color() == METHODS[method].colour


def test_each_panel_marks_its_own_law(figure2):
    (span,) = panels(figure2)["σ ~ U(0, 5)"].patches
    assert isinstance(span, Rectangle)
    assert (span.get_x(), span.get_x() + span.get_width()) == (0.0, 5.0)
    axes = panels(figure2)["σ ∈ {1, 3}"]
    assert not axes.patches
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [1.0, 3.0]


def test_a_law_can_be_given_for_all_panels_or_for_one():
    table = profiles(panels=("2 layers", "uniform(0,1)"))
    figure = figures.losses_against_sigma(table, in_distribution={"2 layers": "uniform(0,5)"})
    assert [axes.patches[0].get_width() for axes in figure.axes] == [5.0, 1.0]
    figure = figures.losses_against_sigma(table, in_distribution="uniform(0,3)")
    assert [axes.patches[0].get_width() for axes in figure.axes] == [3.0, 3.0]
    with pytest.raises(ValueError, match="noise must be .*got '2 layers'"):
        figures.losses_against_sigma(table)
    with pytest.raises(ValueError, match="in_distribution must be given for panels .*got 'GD'"):
        figures.losses_against_sigma(table, in_distribution={"GD": "uniform(0,5)"})


def test_over_seeds_the_line_is_the_median_and_the_band_the_extremes(figure5):
    axes = panels(figure5)["FULL"]
    line = lines(axes)["3 layers"]
    middle = 2 * 0.5 ** np.arange(4) + 0.3
    np.testing.assert_allclose(line.get_ydata(), middle, rtol=1e-12)
    bands = [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]
    (band,) = [c for c in bands if len(c.get_paths()[0].vertices) == 2 * 4 + 3]
    heights = {round(float(y), 12) for y in np.asarray(band.get_paths()[0].vertices)[:, 1]}
    least, greatest = 0.5 ** np.arange(4) + 0.3, 5 * 0.5 ** np.arange(4) + 0.3
    assert heights == {round(float(y), 12) for y in [*least, *greatest]}


@pytest.mark.parametrize(("by", "count"), [("method", 3), ("problem", 2)])
def test_regrets_not_told_from_zero_are_hollow(by, count):
    figure = figures.regrets_against_depth(regrets(), panels=by)
    assert len(figure.axes) == count
    for axes in figure.axes:
        for label, line in lines(axes).items():
            if label.endswith("not told from 0"):
                assert list(line.get_xdata()) == [3.0]
                assert line.get_markerfacecolor() == "white"
            elif label.endswith("positive"):
                assert list(line.get_xdata()) == [1.0, 2.0]
                assert line.get_markerfacecolor() == line.get_markeredgecolor()
            else:
                np.testing.assert_allclose(line.get_ydata(), [0.3, 0.09, 0.027], rtol=1e-12)
    assert "regret < 2 s.e." in [text.get_text() for text in figure.legends[0].get_texts()]


def test_an_estimate_below_zero_is_drawn_at_the_end_of_its_error_bar():
    table = regrets().filter(pl.col("problem") == "uniform(0,1)", pl.col("method") == "full")
    table = table.with_columns(
        value=pl.Series([0.3, 0.09, -0.001]), standard_error=pl.Series([0.01, 0.01, 0.004])
    )
    (axes,) = figures.regrets_against_depth(table).axes
    np.testing.assert_allclose(lines(axes)["σ ~ U(0, 1), not told from 0"].get_ydata(), [0.007], rtol=1e-12)
    with pytest.raises(ValueError, match="column 'value' must be positive, or its error bar reach above 0"):
        figures.regrets_against_depth(table.with_columns(standard_error=0.0))


# Axes.


def test_axes_hold_the_data(figure1, figure2, figure5):
    for figure, bound in [(figure1, ()), (figure2, ("Bayes-optimal",)), (figure5, ())]:
        for axes in figure.axes:
            low, high = axes.get_ylim()
            for label, line in lines(axes).items():
                if label in bound or line.get_linestyle() == ":":
                    continue
                heights = np.asarray(line.get_ydata(), float)
                assert heights.min() >= low * (1 - 1e-12)
                assert heights.max() <= high * (1 + 1e-12)


def test_bayes_leaves_a_panel_at_the_bottom_rather_than_stretch_it(figure2):
    """It is 0 at sigma = 0, where FULL is 0.001 and more: the axis is about the models."""
    low, _ = panels(figure2)["σ ~ U(0, 5)"].get_ylim()
    assert 1e-4 < low < 0.1 * 0.01 / 2


def test_one_scale_for_all_panels_on_request():
    limits = [axes.get_ylim() for axes in figures.losses_against_sigma(profiles(), share=True).axes]
    assert limits[0] == limits[1]
    limits = [axes.get_ylim() for axes in figures.losses_against_sigma(profiles(), share=False).axes]
    assert limits[0] != limits[1]
    limits = [axes.get_ylim() for axes in figures.losses_after_layer(by_seed(), floor=0.05).axes]
    assert limits[0] == limits[1]


@pytest.mark.parametrize(("smallest", "scale"), [(0.11, "linear"), (0.09, "log")])
def test_all_panels_are_logarithmic_as_soon_as_one_spans_a_decade(smallest, scale):
    rows = [
        ("uniform(0,1)", "full", 1, 1.0, None, None),
        ("uniform(0,1)", "full", 2, smallest, None, None),
        ("uniform(0,1)", "floor", None, smallest, None, None),
        ("uniform(0,5)", "full", 1, 1.0, None, None),
        ("uniform(0,5)", "floor", None, 0.9, None, None),
    ]
    figure = figures.losses_against_depth(pl.DataFrame(rows, schema=results().schema, orient="row"))
    assert [axes.get_yscale() for axes in figure.axes] == [scale, scale]


@pytest.mark.parametrize("columns", [2, 3])
def test_texts_do_not_overlap(columns):
    """Labels, titles and the legend: in the blank cells of the last row, of which 2 columns leave none, or below."""
    figure = figures.losses_against_depth(results(), columns=columns)
    figure.draw_without_rendering()
    texts = [figure.texts[0], *figure.legends[0].get_texts()]
    suptitles = [figure._supxlabel, figure._supylabel]
    texts += [text for text in suptitles if text is not None and text not in texts]
    for axes in figure.axes:
        texts += [axes._left_title, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            texts += [label for tick, label in ticks if low <= tick <= high]  # others are not drawn
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text().strip()]
    boxes = [(name, box) for name, box in boxes if box.width and box.height]
    assert len(boxes) > 40
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        shared = min(a.x1, b.x1) > max(a.x0, b.x0) and min(a.y1, b.y1) > max(a.y0, b.y0)
        assert not shared, f"{one!r} overlaps {other!r}"
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for _, box in boxes)
    assert figure.get_figwidth() <= 7
    legend, last = figure.legends[0].get_window_extent(), figure.axes[-1].get_window_extent()
    assert (legend.x0 > last.x1, legend.y1 < last.y0) == (columns == 3, columns == 2)


def test_the_legend_names_everything_once(figure1, figure2):
    models, baselines = ["GD++", "DIAG (one head)", "FULL"], ["ConstRR", "AdaRR", "TunedRR"]
    shown = [text.get_text() for text in figure1.legends[0].get_texts() if text.get_text().strip()]
    assert shown == [*models, "ours", "published", *baselines, "Bayes floor"]
    shown = [text.get_text() for text in figure2.legends[0].get_texts() if text.get_text().strip()]
    assert sorted(shown) == ["Bayes-optimal", "FULL", "GD++", "levels trained on", "σ trained on"]


# Matrices on one scale.


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


# Theorems and mechanisms.


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


# Wrong data.


@pytest.mark.parametrize("column", results().columns)
def test_a_missing_column_is_named(column):
    with pytest.raises(ValueError, match=f"column '{column}' is missing"):
        figures.losses_against_depth(results().drop(column))


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("published", 0.04, "column 'published' must hold numbers as they are printed"),
        ("published", "about 2", "column 'published' must hold numbers >= 0, got 'about 2' in row 0"),
        ("published", "nan", "column 'published' must hold numbers >= 0, got 'nan' in row 0"),
        ("value", -1.0, "column 'value' must be >= 0, got -1.0 in row 0"),
        ("value", float("inf"), "column 'value' must be finite, got inf in row 0"),
        ("layers", 0, "column 'layers' must be >= 1, got 0.0 in row 0"),
        ("layers", 1.5, "column 'layers' must hold whole numbers, got 1.5 in row 0"),
        ("standard_error", -1.0, "column 'standard_error' must be >= 0"),
        ("problem", 5, "column 'problem' must hold text"),
        ("method", None, "column 'method' must"),
    ],
)
def test_wrong_results(column, value, match):
    with pytest.raises(ValueError, match=match):
        figures.losses_against_depth(results().with_columns(pl.lit(value).alias(column)))


def test_results_need_one_floor_a_problem_and_each_row_once():
    table = results()
    with pytest.raises(ValueError, match="one row whose method is 'floor', got 0 for 'uniform.0,5.'"):
        figures.losses_against_depth(
            table.filter((pl.col("method") != "floor") | (pl.col("problem") != "uniform(0,5)"))
        )
    again = table.filter(method="floor").with_columns(method=pl.lit("Bayes floor"))
    with pytest.raises(ValueError, match="one row whose method is 'floor', got 2 for 'fixed.0.'"):
        figures.losses_against_depth(pl.concat([table, again]))
    with pytest.raises(
        ValueError, match="column 'layers' must differ between the rows of one problem and method"
    ):
        figures.losses_against_depth(pl.concat([table, table[:1]]))
    with pytest.raises(ValueError, match="column 'layers' must be a number in at least one row"):
        figures.losses_against_depth(table.filter(pl.col("layers").is_null()))


def test_panels_without_bayes_or_floor_are_refused():
    table = profiles()
    lacking = table.filter((pl.col("method") != "bayes") | (pl.col("panel") != "categorical(1,3)"))
    with pytest.raises(
        ValueError, match="every panel needs the method 'bayes', got none for 'categorical.1,3.'"
    ):
        figures.losses_against_sigma(lacking)
    with pytest.raises(ValueError, match="column 'value' must be positive somewhere in every panel"):
        figures.losses_against_sigma(table.with_columns(value=0.0))
    with pytest.raises(ValueError, match="column 'value' must be >= 0, got -1.0"):
        figures.losses_against_sigma(table.with_columns(value=-1.0))
    with pytest.raises(ValueError, match="every panel needs a floor, got none for 'gd..'"):
        figures.losses_after_layer(by_seed(), floor={"full": 0.05})
    with pytest.raises(ValueError, match="floor must be finite and >= 0, got -1"):
        figures.losses_after_layer(by_seed(), floor=-1)
    with pytest.raises(ValueError, match="columns must be >= 1, got 0"):
        figures.losses_after_layer(by_seed(), floor=0.05, columns=0)
    with pytest.raises(ValueError, match="column 'layer' must differ between .* panel and method and seed"):
        figures.losses_after_layer(pl.concat([by_seed(), by_seed()]), floor=0.05)


def test_panels_of_another_kind_are_refused(unchecked):
    with pytest.raises(ValueError, match="panels must be 'method' or 'problem', got 'seed'"):
        figures.regrets_against_depth(regrets(), panels="seed")


def test_many_panels_are_the_same_drawing_every_time():
    table = regrets().filter(pl.col("method") != "diag")
    assert figures.svg(figures.regrets_against_depth(table)) == figures.svg(
        figures.regrets_against_depth(table)
    )


def trained() -> pl.DataFrame:
    """Three seeds of two methods at two depths; the loss falls as 1 / sequences."""
    rows = [
        (f"{depth} layers", method, seed, seen, factor * (1 + seed) / depth / seen)
        for depth, (method, factor), seed, seen in itertools.product(
            [1, 3], [("softmax", 100.0), ("linear", 200.0)], [0, 1, 5], [64, 640, 6400]
        )
    ]
    return pl.DataFrame(rows, schema=["panel", "method", "seed", "sequences", "value"], orient="row")


def test_losses_while_training_are_medians_between_all_seeds():
    figure = figures.losses_while_training(
        trained(), loss="test loss", published={("3 layers", "linear"): 0.02}
    )
    assert list(panels(figure)) == ["1 layers", "3 layers"]
    for depth, axes in zip([1, 3], panels(figure).values(), strict=True):
        drawn = [line for line in axes.lines if len(line.get_xdata()) == 3]
        bands = [band for band in axes.collections if isinstance(band, FillBetweenPolyCollection)]
        for line, band, factor in zip(drawn, bands, [100, 200], strict=True):
            seen = np.array([64, 640, 6400])
            np.testing.assert_array_equal(line.get_xdata(), seen)
            np.testing.assert_allclose(line.get_ydata(), factor * 2 / depth / seen)  # of seeds 0, 1, 5
            edges = np.asarray(band.get_paths()[0].vertices)[:, 1]
            np.testing.assert_allclose(
                [edges.min(), edges.max()], [factor / depth / 6400, factor * 6 / depth / 64]
            )
    (mark,) = [line for line in panels(figure)["3 layers"].lines if len(line.get_xdata()) == 1]
    assert (*mark.get_xdata(), *mark.get_ydata()) == (6400, 0.02)
    assert mark.get_markeredgecolor() == METHODS["linear"].colour


def test_losses_while_training_may_have_axes_of_their_own():
    """One panel has a single report: its axis has room on both sides, and the published number is held by its own only."""
    rows = [("a", 1, 1e-9), ("a", 30, 1e-12), ("b", 1, 0.3)]
    frame = pl.DataFrame(
        [(name, "muon", 0, count, value) for name, count, value in rows],
        schema=trained().columns,
        orient="row",
    )
    figure = figures.losses_while_training(
        frame, loss="regret", published={("b", "muon"): 0.2}, seen="updates", share=False
    )
    one, other = panels(figure).values()
    assert one.get_xlim() == (1, 30) and other.get_xlim() == (0.8, 1.25)
    assert one.get_ylim()[0] < 1e-12 and 1e-9 < one.get_ylim()[1] < 1e-8
    assert 0.15 < other.get_ylim()[0] < 0.2 and 0.3 < other.get_ylim()[1] < 0.4
    assert figure.get_supxlabel() == "updates"


@pytest.mark.parametrize("ends", [(800, 19_200), (8000, 72_000), (12_800, 256_000), (16_000, 960_000)])
def test_sequences_in_three_panels_have_labels_that_do_not_overlap(ends):
    rows = [
        {"panel": panel, "method": "linear", "seed": 0, "sequences": sequences, "value": 1.0}
        for panel in ("1 layer", "3 layers", "6 layers")
        for sequences in ends
    ]
    figure = figures.losses_while_training(pl.DataFrame(rows), loss="loss")
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        boxes = [label.get_window_extent() for tick, label in ticks if low <= tick <= high]
        assert len(boxes) >= 2
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_losses_while_training_refuse_what_has_no_place():
    with pytest.raises(ValueError, match="'sequences' must be positive"):
        figures.losses_while_training(trained().with_columns(pl.col("sequences") - 64), loss="loss")
    with pytest.raises(
        ValueError, match=r"published must be given for lines of the frame, got \('6 layers', 'linear'\)"
    ):
        figures.losses_while_training(trained(), loss="loss", published={("6 layers", "linear"): 0.1})


def shifted() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "method": ["softmax", "softmax", "linear", "linear"],
            "shift": ["test", "noise", "test", "noise"],
            "value": [0.02, 0.3, 0.03, 0.5],
            "standard_error": [0.001, 0.02, None, 0.01],
        }
    )


def test_losses_under_shifts_are_dots_in_rows():
    figure = figures.losses_under_shifts(shifted(), loss="squared error / 5")
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["test", "noise"]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "squared error / 5"
    drawn = {line.get_label(): line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) == 2}
    assert drawn["softmax attention"] == [0.02, 0.3] and drawn["linear attention"] == [0.03, 0.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "softmax attention",
        "linear attention",
    ]
    with pytest.raises(ValueError, match="column 'shift' must differ between the rows of one method"):
        figures.losses_under_shifts(pl.concat([shifted(), shifted()]), loss="loss")


def test_losses_by_examples_have_the_floor_where_it_is_not_zero():
    table = pl.DataFrame(
        {
            "method": ["softmax"] * 3 + ["linear"] * 3,
            "examples": [0, 1, 2] * 2,
            "value": [1.0, 0.6, 0.1, 1.0, 0.7, 0.2],
            "standard_error": [0.01] * 6,
        }
    )
    figure = figures.losses_by_examples(table, loss="loss", floor={0: 1.0, 1: 0.5, 2: 0.0})
    [axes] = figure.axes
    black, *lines = axes.lines
    assert (list(black.get_xdata()), list(black.get_ydata())) == ([0, 1], [1.0, 0.5])
    assert [list(line.get_ydata()) for line in lines] == [[1.0, 0.6, 0.1], [1.0, 0.7, 0.2]]
    assert axes.get_yscale() == "log"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["softmax attention", "linear attention", "Bayes floor"]
    with pytest.raises(ValueError, match="floor must be finite and >= 0, got -1"):
        figures.losses_by_examples(table, loss="loss", floor={0: -1.0})


def attended(tokens: int = 4) -> pl.DataFrame:
    """Even attention of two layers of one model, and one of another that looks at itself."""
    rows = [
        (method, layer, token, earlier, float(token == earlier) if method == "linear" else 1 / (token + 1))
        for method, layer in [("softmax", 1), ("softmax", 2), ("linear", 1)]
        for token in range(tokens)
        for earlier in range(token + 1)
    ]
    return pl.DataFrame(rows, schema=["method", "layer", "token", "attended", "weight"], orient="row")


def test_attention_maps_share_a_scale_and_name_both_kinds_of_tokens():
    figure = figures.attention_maps(attended(), title="Attention")
    *maps, bar = figure.axes
    assert [axes.get_title() for axes in maps] == ["layer 1", "layer 2", "", ""]
    assert [len(axes.images) for axes in maps] == [1, 1, 1, 0] and bar.get_ylabel() == "weight"
    assert maps[0].get_ylabel() == "softmax attention" and maps[2].get_ylabel() == "linear attention"
    even, itself = (np.ma.asarray(maps[place].images[0].get_array()) for place in (0, 2))
    np.testing.assert_allclose(even[3], 0.25)
    np.testing.assert_array_equal(itself.filled(0), np.eye(4))
    assert even.mask.tolist() == (np.triu(np.ones((4, 4)), 1) > 0).tolist()
    assert {axes.images[0].get_clim() for axes in maps[:3]} == {(0, 1)}
    assert [tick.get_text() for tick in maps[2].get_xticklabels()] == [
        "$x_{0}$",
        "$y_{0}$",
        "$x_{1}$",
        "$y_{1}$",
    ]
    long = figures.attention_maps(attended(20)).axes[2]
    assert [tick.get_text() for tick in long.get_xticklabels()][:3] == ["$x_{0}$", "$y_{1}$", "$x_{3}$"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit(-0.1).alias("weight"), "column 'weight' must be >= 0, got -0.1"),
        (pl.lit(9).alias("attended"), "column 'attended' must not be after token"),
        (pl.lit(0.5).alias("layer"), "column 'layer' must hold whole numbers"),
        (
            pl.lit(0).alias("attended"),
            "column 'attended' must differ between the rows of one method, layer and token",
        ),
    ],
)
def test_attention_maps_refuse_what_is_no_causal_attention(change, message):
    with pytest.raises(ValueError, match=message):
        figures.attention_maps(attended().with_columns(change))


def test_distances_after_layer_have_a_line_a_target_and_a_band_for_the_untrained():
    rows = [
        (
            f"softmax, {examples} examples",
            target,
            model,
            layer,
            value * (0.5**layer if model == "trained" else 1),
            0.01,
        )
        for examples, (target, value), model, layer in itertools.product(
            [3, 9],
            [("gradient descent, 1 step", 0.8), ("least squares", 0.9)],
            ["trained", "untrained"],
            range(3),
        )
    ]
    columns = ["panel", "method", "model", "layer", "value", "standard_error"]
    table = pl.DataFrame(rows, schema=columns, orient="row")
    figure = figures.distances_after_layer(table, distance="1 - R²")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["softmax attention\n3 examples", "softmax attention\n9 examples"]
    for axes in figure.axes:
        lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        assert lines == {"gradient descent, 1 step": [0.8, 0.4, 0.2], "least squares": [0.9, 0.45, 0.225]}
        band = next(each for each in axes.collections if isinstance(each, FillBetweenPolyCollection))
        heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
        assert (heights.min(), heights.max()) == (0.8, 0.9)
    names = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert [name for name in names if name] == [
        "gradient descent, 1 step",
        "least squares",
        "untrained, all targets",
    ]
    with pytest.raises(ValueError, match="column 'model' must be trained or untrained, got 'old'"):
        figures.distances_after_layer(
            table.with_columns(pl.col("model").replace("trained", "old")), distance="d"
        )
