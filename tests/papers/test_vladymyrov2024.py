"""Table 1 as data: every entry of the file, under the law that its column stands for; and draws as large as the paper's."""

import csv
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from innerloop.evaluation.losses import draw_losses
from innerloop.models import LinearTransformer
from innerloop.papers.vladymyrov2024 import draws, measured, published, table_1
from innerloop.papers.vladymyrov2024.draws import error_of_one, further_draws, tail
from innerloop.papers.vladymyrov2024.study import BUDGETS
from innerloop.tasks import Categorical, Fixed, LinearRegression, Uniform

LAWS = {
    "uniform_0": "fixed(0)",
    "categorical_1_3": "categorical(1,3)",
    "categorical_1_3_5": "categorical(1,3,5)",
}
LAWS |= {f"uniform_{top}": f"uniform(0,{top})" for top in range(1, 8)}


def test_every_entry_of_the_file_and_nothing_else():
    text = (files("innerloop.papers") / "published" / "vladymyrov2024_table1.csv").read_text()
    expected = {
        (row["method"], int(row["layers"]) if row["layers"] else None, LAWS[column]): float(row[column])
        for row in csv.DictReader(text.splitlines())
        for column in LAWS
    }
    table = table_1()
    assert table.columns == ["method", "layers", "noise", "value"]
    assert len(table) == len(expected) == 24 * 10
    assert {row[:3]: row[3] for row in table.iter_rows()} == expected


@pytest.mark.parametrize(
    ("method", "noise", "layers", "value"),
    [
        ("diag", "uniform(0,5)", 7, 0.047),
        ("full", Categorical(1, 3), 4, 0.032),
        ("gd++", Uniform(0, 1), 1, 1.639),
        ("diag", Fixed(0), 7, 2.5e-12),
        ("tunedrr", Uniform(0, 5), None, 0.049),
        ("constrr", "fixed(0)", None, 0.0),
    ],
)
def test_single_entries_as_printed(method, noise, layers, value):
    assert published(method, noise, layers) == value


@pytest.mark.parametrize(
    ("method", "noise", "layers"),
    [
        ("diag", "uniform(0,5)", None),
        ("diag", "uniform(0,5)", 8),
        ("tunedrr", "uniform(0,5)", 1),
        ("diag", "uniform(0,8)", 1),
        ("diag", Uniform(1, 5), 1),
        ("ols", "uniform(0,5)", None),
    ],
)
def test_what_the_paper_does_not_say_is_none(method, noise, layers):
    assert published(method, noise, layers) is None


def test_further_draws_are_of_sequences_beyond_the_tables_own(monkeypatch):
    """Of the zero predictor without noise, were they of 20 000 sequences: E y^2 / 2 = 5, with a standard error of 0.016."""
    monkeypatch.setattr(draws, "PUBLISHED_DRAW", 20_000)
    budget = replace(BUDGETS["smoke"], sequences=20_000, further_draws=2)
    task = LinearRegression(10, 20, "fixed(0)")
    nothing = LinearTransformer.from_flows(np.zeros((1, 2, 2)), 10)
    means = further_draws({"nothing": nothing}, task, budget)["nothing"]
    own = draw_losses({"nothing": nothing}, task, range(2), per_layer=False).regret["nothing"][:, -1]
    assert len(set(means)) == 2
    np.testing.assert_allclose([*means, own.mean()], 5, atol=0.08)
    found = tail(own[:20_000], means)
    assert (found["draws"], found["sequences"]) == (3, 60_000)
    assert found["value"] == pytest.approx((own[:20_000].mean() + means.sum()) / 3)
    assert found["draws_least"] <= found["draws_median"] <= found["draws_greatest"]


def test_rarer_poles_cost_more(monkeypatch):
    """Of GD++ of three layers, that loses more than predicting zero where about one in 10^4 or in 10^6 sequences is."""
    monkeypatch.setattr(measured, "_SAFE_LAYERS", (3,))
    monkeypatch.setattr(measured, "_SAFE_TAILS", (1e-4, 1e-7))
    part = measured.Part("tails", "fixed(0)", ())
    frames = measured._tails(part, {}, BUDGETS["smoke"])
    assert tuple(frames) == part.frames
    common, rare = frames["tails"].rows(named=True)
    assert [(row["problem"], row["layers"], row["tail"]) for row in (common, rare)] == [
        ("fixed(0)", 3, 1e-4),
        ("fixed(0)", 3, 1e-7),
    ]
    assert common["value"] < 0.9 * rare["value"] and 10 * rare["breaks"] < common["breaks"] < 1e-3


def test_the_error_of_a_draw_is_the_standard_deviation_of_normal_ones(rng):
    """Of 20 000 draws, whose quantile of 0.0228 has a standard error of 0.02 standard deviations."""
    assert error_of_one(rng.normal(3.0, 0.5, size=20_000)) == pytest.approx(0.5, abs=5 * 0.02 * 0.5)


def test_the_error_of_a_draw_is_of_the_low_side_alone(rng):
    """Exponential draws: from the median ln 2 down to -ln(1 - 0.0228) it is far less than their standard deviation of 1."""
    assert error_of_one(rng.exponential(size=20_000)) == pytest.approx((np.log(2) - 0.02306) / 2, abs=0.02)
