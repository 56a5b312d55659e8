"""What the tables and figures of `goel2026` say of known losses."""

import numpy as np
import polars as pl
import pytest
from goel_frames import SEEDS, arm_rows, as_published, on_equal_terms

from innerloop.papers.goel2026 import drawn_matched, drawn_published
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.papers.goel2026.matched import Arm
from innerloop.papers.goel2026.study import BY_HEAD, BY_LAYER


def test_the_last_losses_are_means_over_seeds_and_shifts_a_share():
    table = drawn_published.curves(as_published(), False).table
    assert table.select("layers", "architecture").rows() == [
        (1, "linear"),
        (1, "softmax"),
        (3, "linear"),
        (3, "softmax"),
    ]
    ends = np.array([1 + seed / 1000 for seed in SEEDS]) * 0.5**10
    first = table.row(0, named=True)
    assert first["loss"] == pytest.approx(ends.mean(), rel=1e-6)
    assert first["standard_error"] == pytest.approx(ends.std(ddof=1) / 3**0.5, rel=1e-5)
    assert first["lost_by_shifted_weights"] == pytest.approx(0.1, rel=1e-5)
    assert "published" not in table.columns
    assert drawn_published.curves(as_published(), True).table["published"].to_list() == [
        None,
        None,
        None,
        0.0894,
    ]


def test_softmax_that_falls_half_as_fast_takes_twice_as_many_sequences():
    """To 90 %: 0.5^k <= 0.1 and the rest of the way, at the fourth evaluation and, as 0.5^(k/2), the seventh."""
    table = drawn_published.speed(as_published(), False).table
    assert table["layers"].to_list() == [1, 3]
    assert table["linear"].to_list() == [64 * 400] * 2 and table["softmax"].to_list() == [64 * 600] * 2
    assert table["ratio"].to_list() == table["95_%_from"].to_list() == [1.5, 1.5]


def test_arms_are_chosen_on_validation_and_compared_without_more_changes():
    best = drawn_matched._best_arms(on_equal_terms())
    assert set(best.select("method", "optimizer").unique().rows()) == {
        ("softmax", "adam"),
        ("linear", "muon"),
    }
    table = drawn_matched.shifts(on_equal_terms(), False).table
    assert set(table["shift"]) == {"test", "noise"}
    value = table.filter(method="softmax", shift="noise")["value"].item()
    assert value == pytest.approx(0.2 * 1.01, rel=1e-6)


def test_the_table_on_equal_terms_has_every_arm_once_best_first():
    table = drawn_matched.matched(on_equal_terms(), False).table
    assert table["test_loss"].to_list() == sorted(table["test_loss"].to_list()) and len(table) == 5
    assert set(table["learning_rate"]) == {0.01} and set(table["seeds"]) == {3}
    assert table.row(0, named=True)["final_layer_norm"] is False


def test_every_depth_and_optimiser_has_a_panel():
    more = pl.DataFrame(arm_rows(Arm("softmax", "muon", layers=6), 0.02, 0.02))
    picture = drawn_matched.matched(pl.concat([on_equal_terms(), more]), False).picture
    assert picture is not None
    titles = [axes.get_title(loc="left") for axes in picture[0].axes]
    assert titles == ["3 layers, Adam", "3 layers, Muon", "6 layers, Muon"]


def test_the_floor_by_position_is_that_of_least_squares():
    table = drawn_matched.positions(on_equal_terms(), False).table
    own = table.filter(method="linear")
    assert own["least_squares"].to_list() == [max(0.0, 1 - k / DIM) for k in range(POINTS)]


def test_loss_against_depth_shows_what_has_several_depths_and_tabulates_all():
    more = pl.DataFrame(arm_rows(Arm("softmax", "muon", layers=6), 0.02, 0.02))
    drawn = drawn_matched.depth(as_published(), pl.concat([on_equal_terms(), more]), True)
    rows = {(row["panel"], row["method"], row["layers"]): row for row in drawn.table.to_dicts()}
    assert len(rows) == len(drawn.table) == 4 + 5
    assert rows["on equal terms, Muon", "softmax", 6]["value"] == pytest.approx(0.02 * 1.01, rel=1e-6)
    assert rows["on equal terms, Adam", "softmax", 3]["value"] == pytest.approx(0.2 * 1.01, rel=1e-6)
    assert rows["as published", "softmax", 3]["published"] == 0.0894
    assert rows["as published", "linear", 3]["published"] is None
    assert drawn.picture is not None
    titles = [axes.get_title(loc="left") for axes in drawn.picture[0].axes]
    assert titles == ["as published", "on equal terms, Muon"]


def test_hybrids_are_named_in_words():
    table = drawn_matched.matched(
        pl.DataFrame([row for mixers in (BY_LAYER, BY_HEAD) for row in arm_rows(Arm(mixers), 0.5, 0.5)]),
        False,
    ).table
    assert set(table.select("method", "mixers").rows()) == {
        ("hybrid by layer", BY_LAYER),
        ("hybrid by head", BY_HEAD),
    }
