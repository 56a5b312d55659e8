"""Panels of decoders: losses while training, under shifts and by examples, attention, and distances after every layer."""

import itertools

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import FillBetweenPolyCollection

from innerloop import figures
from innerloop.figures.style import METHODS
from panel_lines import panels


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
