"""Figures of many panels show the numbers they are given, each with the Bayes floor."""

import itertools

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.patches import Rectangle

from innerloop import figures
from innerloop.figures.style import METHODS
from innerloop.papers.vladymyrov2024 import printed_table_1
from panel_lines import level, lines, panels

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


def test_a_mean_that_one_sequence_carries_stretches_no_axis(figure1):
    """FULL of 3 layers at 1e6 with an error as large, on one problem: that panel's axis ends where it did."""
    table = results()
    pole = (pl.col("problem") == "uniform(0,5)") & (pl.col("method") == "full") & (pl.col("layers") == 3)
    assert len(table.filter(pole)) == 1
    carried = table.with_columns(
        pl.when(pole).then(1e6).otherwise(name).alias(name) for name in ("value", "standard_error")
    )
    broken = panels(figures.losses_against_depth(carried))["σ ~ U(0, 5)"]
    np.testing.assert_allclose(broken.get_ylim(), panels(figure1)["σ ~ U(0, 5)"].get_ylim())
    assert 1e6 in lines(broken)["FULL, ours"].get_ydata()


def test_nor_does_such_a_regret():
    table = regrets()
    pole = (pl.col("problem") == "uniform(0,1)") & (pl.col("method") == "full") & (pl.col("layers") == 2)
    assert len(table.filter(pole)) == 1
    carried = table.with_columns(
        pl.when(pole).then(1e6).otherwise(name).alias(name) for name in ("value", "standard_error")
    )
    whole, broken = (
        panels(figures.regrets_against_depth(each, panels="problem")) for each in (table, carried)
    )
    (place,) = (name for name in whole if "U(0, 1)" in name)
    np.testing.assert_allclose(broken[place].get_ylim(), whole[place].get_ylim())
    assert 1e6 in lines(broken[place])["FULL"].get_ydata()


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
