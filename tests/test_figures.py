"""Figures show the numbers they are given, readably, and are the same bytes every time."""

import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from scipy.optimize import minimize

from innerloop import figures
from innerloop.figures.axes import spread
from innerloop.figures.style import METHODS, looks, rc

PUBLISHED = Path(figures.__file__).parents[1] / "papers/published/vladymyrov2024_table1.csv"
# Okabe and Ito (2008), as printed; yellow is not used.
OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def depth_table(column: str = "uniform_5") -> pl.DataFrame:
    """The paper's column, and pretended numbers of ours, 2 % lower."""
    rows = pl.read_csv(PUBLISHED).filter(pl.col("layers") > 0)
    published = rows.select(
        "method",
        "layers",
        value=pl.col(column).cast(pl.Float64),
        standard_error=pl.lit(None, dtype=pl.Float64),
        source=pl.lit("published"),
    )
    ours = published.with_columns(
        value=0.98 * pl.col("value"), standard_error=0.01 * pl.col("value"), source=pl.lit("ours")
    )
    return pl.concat([published, ours])


def curve_table(x: str, methods: list[str], points: list) -> dict:
    """Plain columns: a curve for each method, decreasing from one method to the next."""
    rows = [(m, p, (1 + p) / 10 ** (i / 2 + 1)) for i, m in enumerate(methods) for p in points]
    names, places, values = zip(*rows, strict=True)
    return {
        "method": list(names),
        x: np.array(places),
        "value": np.array(values),
        "standard_error": 0.02 * np.array(values),
    }


def matrices(layers: int = 3, heads: int = 1, D: int = 11) -> tuple[np.ndarray, np.ndarray]:
    values = np.sin(np.arange(layers * heads * D * D, dtype=float)).reshape(layers, heads, D, D)
    return 2 * values, 0.03 * values


MAKERS = {
    "depth": lambda: figures.loss_against_depth(
        depth_table(),
        floor=0.0385,
        baselines={"constrr": 0.365, "adarr": 0.068, "tunedrr": 0.049},
        title="U(0, 5)",
    ),
    "regret": lambda: figures.regret_against_depth(
        curve_table("layers", ["full", "diag"], [1, 2, 3]), title="R"
    ),
    "sigma": lambda: figures.loss_against_sigma(
        curve_table("sigma", ["full", "diag", "bayes"], [0.0, 2.0, 4.0, 6.0]), in_distribution="uniform(0,5)"
    ),
    "layer": lambda: figures.loss_after_layer(curve_table("layer", ["full", "diag"], [0, 1, 2]), floor=0.02),
    "heat": lambda: figures.heat_maps(*matrices(), title="P and Q"),
}


def lines(figure) -> dict:
    return {line.get_label(): line for line in figure.axes[0].lines}


def tick_labels(figure) -> list[str]:
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [label.get_text() for tick, label in ticks if low <= tick <= high]


# What is drawn is what was given.


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


# Axes.


@pytest.mark.parametrize(("smallest", "scale"), [(0.11, "linear"), (0.1, "linear"), (0.09, "log")])
def test_depth_axis_is_logarithmic_beyond_a_decade(smallest, scale):
    table = {
        "method": ["full", "full"],
        "layers": [1, 2],
        "value": [1.0, smallest],
        "standard_error": [0.0, 0.0],
        "source": ["ours", "ours"],
    }
    assert figures.loss_against_depth(table).axes[0].get_yscale() == scale
    # Baselines and the floor count too.
    assert figures.loss_against_depth(table, baselines={"adarr": 0.05}).axes[0].get_yscale() == "log"
    assert figures.loss_against_depth(table, floor=0.05).axes[0].get_yscale() == "log"


@pytest.mark.parametrize("name", ["regret", "sigma", "layer"])
def test_other_axes_are_logarithmic(name):
    assert MAKERS[name]().axes[0].get_yscale() == "log"


def test_log_ticks_are_plain_numbers():
    assert tick_labels(MAKERS["depth"]()) == ["0.03", "0.05", "0.1", "0.2", "0.3", "0.5", "1"]
    table = curve_table("layers", ["full"], [1, 2, 3])
    for factor in [0.01, 0.1, 1.0]:
        labels = tick_labels(figures.regret_against_depth(table | {"value": factor * table["value"]}))
        assert len(labels) >= 3
        assert all(re.fullmatch(r"\d+(\.\d+)?", label) for label in labels)


def test_many_decades_are_powers_of_ten():
    labels = tick_labels(figures.loss_against_depth(depth_table("uniform_0")))
    assert len(labels) >= 5
    assert all(re.fullmatch(r"\$10\^\{-?\d+\}\$", label) for label in labels)


def test_layers_have_whole_ticks():
    for name in ["depth", "regret", "layer"]:
        axes = MAKERS[name]().axes[0]
        low, high = axes.get_xlim()
        inside = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert inside == list(range(int(np.ceil(low)), int(high) + 1))


def test_labels_say_quantity_and_convention():
    assert MAKERS["depth"]().axes[0].get_ylabel() == "adjusted loss (half squared error)"
    assert MAKERS["sigma"]().axes[0].get_xlabel() == "noise level σ (standard deviation)"
    assert "half squared error" in MAKERS["regret"]().axes[0].get_ylabel()


@pytest.mark.parametrize("column", ["uniform_5", "uniform_2", "uniform_0"])
def test_no_texts_overlap(column):
    """Levels as close as those of Table 1, at sigma = 0 all of them 0."""
    levels = {
        "uniform_5": (0.365, 0.068, 0.049),
        "uniform_2": (0.066, 0.0101, 0.010),
        "uniform_0": (0.0, 0.0, 0.0),
    }
    baselines = dict(zip(["constrr", "adarr", "tunedrr"], levels[column], strict=True))
    floor = 0.98 * baselines["tunedrr"]
    figure = figures.loss_against_depth(depth_table(column), floor=floor, baselines=baselines)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [
        *axes.texts,
        *axes.get_yticklabels(),
        *axes.get_xticklabels(),
        axes.xaxis.label,
        axes.yaxis.label,
    ]
    texts += [text for text in figure.legends[0].get_texts() if text.get_text().strip()]
    canvas = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    # Locators put ticks outside the limits too; these are not drawn.
    boxes = [(name, box) for name, box in boxes if canvas.x0 <= box.x0 and box.x1 <= canvas.x1 and box.height]
    assert sum("RR" in name or "Bayes" in name for name, _ in boxes) == 4
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        shared = min(a.x1, b.x1) > max(a.x0, b.x0) and min(a.y1, b.y1) > max(a.y0, b.y0)
        assert not shared, f"{one!r} overlaps {other!r}"


@pytest.mark.parametrize("name", MAKERS)
def test_size_suits_a_page_and_text_is_readable(name):
    figure = MAKERS[name]()
    assert 5 <= figure.get_figwidth() <= 6.5
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert {text.get_fontsize() for text in texts} <= {8, 8.5, 9}


# Labels pushed apart: against a general solver.


@pytest.mark.parametrize(
    "places", [[0.1, 0.12, 0.13, 0.7], [0.0, 0.0, 0.0], [0.5, 0.96, 0.99], [0.2, 0.5, 0.9], [0.4]]
)
def test_spread_is_the_nearest_allowed(places):
    gap, count = 0.07, len(places)
    found = spread(places, gap)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-12
    assert (np.diff(found) >= gap - 1e-12).all()
    constraint = {"type": "ineq", "fun": lambda p: np.diff(p) - gap} if count > 1 else ()
    start = np.linspace(0, 1, count)
    best = minimize(
        lambda p: ((p - places) ** 2).sum(),
        start,
        bounds=[(0, 1)] * count,
        constraints=constraint,
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(found, best.x, atol=1e-5)  # the solver's accuracy


# Looks.


def test_every_method_has_its_own_colour_and_marker():
    assert len({look.colour for look in METHODS.values()}) == len(METHODS)
    assert len({look.marker for look in METHODS.values()}) == len(METHODS)
    models = ["full", "diag", "diag free", "gd++", "adarr", "tunedrr", "bayes"]
    assert {METHODS[name].colour for name in models} == OKABE_ITO - {"#F0E442"}


@pytest.mark.parametrize(
    "names",
    [
        list(METHODS),
        [*(f"diag, {k} layers" for k in range(1, 9)), "bayes", "gd++"],
        [f"{kind}, {k} layers" for kind in ["full", "diag", "diag free", "gd++"] for k in [2, 4, 7]],
        ["mine", "yours", "full", "bayes floor"],
    ],
)
def test_no_two_methods_of_a_figure_share_a_colour(names):
    found = looks(names)
    assert list(found) == names
    assert len({to_hex(look.colour) for look in found.values()}) == len(names)


def test_a_method_keeps_its_look_however_it_is_spelt():
    for name, key in {
        "FULL": "full",
        "DIAG (two heads)": "diag free",
        "Bayes-optimal": "bayes",
        "GD++": "gd++",
    }.items():
        assert looks([name])[name] == METHODS[key]
    one = looks(["diag, 7 layers", "full, 7 layers"])["full, 7 layers"]
    assert (one.colour, one.marker, one.label) == (
        METHODS["full"].colour,
        METHODS["full"].marker,
        "FULL, 7 layers",
    )


def test_two_names_for_one_method_are_refused():
    with pytest.raises(ValueError, match="'diag', 'DIAG .one head.' for the same"):
        looks(["diag", "full", "DIAG (one head)"])


def test_direct_labels_can_be_read():
    """WCAG 2's contrast of large text, 3 : 1 on white."""
    for look in METHODS.values():
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(look.ink)]
        assert 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05) >= 3


# Wrong data.


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


# Files.


@pytest.mark.parametrize("name", MAKERS)
def test_files_are_the_same_bytes_every_time(name, tmp_path):
    """The same figure saved again, and another made under a user's odd settings."""
    figure = MAKERS[name]()
    first = [path.read_bytes() for path in figures.save(figure, tmp_path / "new" / "folder", "a")]
    assert first == [path.read_bytes() for path in figures.save(figure, tmp_path, "b")]
    with matplotlib.rc_context(
        {"font.size": 20, "lines.linewidth": 7, "svg.hashsalt": "x", "axes.grid": False}
    ):
        assert first == [path.read_bytes() for path in figures.save(MAKERS[name](), tmp_path, "c")]
    assert first[0][:4] == b"\x89PNG"
    assert first[1][:5] == b"%PDF-"
    assert b"<svg" in first[2]
    assert not any(b"CreationDate" in content or b"<dc:date>" in content for content in first)


def test_files_are_the_same_in_another_process(tmp_path):
    """With other string hashes; and pyplot, with its global state, is never imported."""
    table = {"method": ["full", "diag"], "layer": [0, 0], "value": [1, 2], "standard_error": [0, 0]}
    code = (
        "import sys; from innerloop import figures\n"
        f"figures.save(figures.loss_after_layer({table}), sys.argv[1], 'there')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    package = str(Path(figures.__file__).parents[2])
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": package}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, timeout=120)
    here = figures.save(figures.loss_after_layer(table), tmp_path, "here")
    for path in here:
        assert path.read_bytes() == path.with_stem("there").read_bytes()


def test_settings_are_left_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    for make in MAKERS.values():
        figures.svg(make())
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.rcParams["svg.hashsalt"] != rc["svg.hashsalt"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "../a"])
def test_a_name_with_a_folder_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="name must be a file name"):
        figures.save(MAKERS["heat"](), tmp_path, name)


def test_svg_ids_are_unique_in_a_page():
    pieces = [figures.svg(make()) for make in MAKERS.values()]
    pieces.append(figures.svg(MAKERS["heat"](), prefix="again"))
    for piece in pieces:
        assert piece.startswith("<svg ")
        assert piece.endswith("</svg>")
    page = f"<html>{''.join(pieces)}</html>"
    assert "<?xml" not in page
    assert "<!DOCTYPE" not in page
    elements = list(ElementTree.fromstring(page).iter())  # well-formed, too
    ids = [element.get("id") for element in elements if element.get("id")]
    assert len(ids) > 500
    assert len(set(ids)) == len(ids)


def test_svg_references_stay_inside():
    for make in MAKERS.values():
        text = figures.svg(make())
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
        assert references
        assert {a or b for a, b in references} <= ids
        (sheet,) = re.findall(r"<style[^>]*>(.*?)</style>", text)
        (root,) = re.findall(r'^<svg id="([^"]+)"', text)
        assert re.fullmatch(
            rf"#{root} \*\{{[^{{}}]*\}}", sheet
        )  # no rule that would touch the rest of the page


def test_svg_is_named_by_the_title_and_safe():
    table = curve_table("layers", ["full"], [1, 2])
    figure = figures.regret_against_depth(table, title='a < b & "c"')
    assert ElementTree.fromstring(figures.svg(figure)).get("aria-label") == 'a < b & "c"'
    assert figures.svg(figure) == figures.svg(figure)
    with pytest.raises(ValueError, match="prefix must be"):
        figures.svg(figure, prefix='"><script>')
