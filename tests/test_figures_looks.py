"""How figures look: scales, ticks and labels, sizes, and each method's colour and marker."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from scipy.optimize import minimize

from figure_tables import MAKERS, curve_table, depth_table
from innerloop import figures
from innerloop.figures.axes import spread
from innerloop.figures.style import METHODS, looks

# Okabe and Ito (2008), as printed; yellow is not used.
OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def tick_labels(figure) -> list[str]:
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [label.get_text() for tick, label in ticks if low <= tick <= high]


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
