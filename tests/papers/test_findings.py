"""What the findings say of frames whose answers are known, and what a session of the command leaves."""

import json

import numpy as np
import polars as pl
import pytest

from innerloop.papers.sessions import FILE, session, sessions
from innerloop.papers.vladymyrov2024.findings import findings, worse
from innerloop.papers.vladymyrov2024.measured import _differences
from innerloop.papers.vladymyrov2024.outputs import OUTPUTS

PROBLEM = "uniform(0,5)"
FLOOR = 0.04


def losses(values: dict[tuple[str, int | None], float]) -> pl.DataFrame:
    """Of every model its adjusted loss, with a standard error of 0.0001 and a worst share of a tenth of its depth."""
    rows = [
        {
            "problem": PROBLEM,
            "method": method,
            "layers": layers,
            "value": value,
            "standard_error": 1e-4,
            "regret": value - FLOOR,
            "regret_se": 1e-5,
            "worst_share": 0.1 * (layers or 0),
            "not_finite": 0,
            "sequences": 1000,
            "draws_median": value,
            "published_error": 0.002,
        }
        for (method, layers), value in values.items()
    ]
    rows.append({"problem": PROBLEM, "method": "floor", "value": FLOOR, "standard_error": 1e-4})
    return pl.DataFrame(rows, infer_schema_length=None)


def frames(
    values: dict[tuple[str, int | None], float], differences: list[tuple] = ()
) -> dict[str, pl.DataFrame]:
    columns = ["method", "other", "layers", "difference", "standard_error", "other_regret"]
    pairs = pl.DataFrame(differences or None, schema=columns, orient="row")
    seeds = pl.DataFrame(
        {
            "problem": PROBLEM,
            "method": "full",
            "layers": 2,
            "seed": [0, 1, 2],
            "layer": [2, 2, 2],
            "value": [0.05, 0.08, 0.06],
        }
    )
    return {
        "losses": losses(values),
        "differences": pairs.with_columns(problem=pl.lit(PROBLEM)),
        "layers": seeds,
        "choice": pl.DataFrame(),
        "tails": pl.DataFrame(schema=["problem", "layers", "tail", "value", "breaks"]),
        "checks": pl.DataFrame(
            {
                "theorem": ["Theorem 4.1", "Lemma 4.3"],
                "model": ["full", "diag"],
                "claim": ["it is linear", "it is a recursion"],
                "measured": [1e-8, 2.0],
                "bound": [1e-6, 1e-6],
                "holds": [True, False],
            }
        ),
    }


def asked(found: pl.DataFrame, word: str) -> pl.DataFrame:
    (group,) = [each for each in found["group"].unique() if word in each]
    return found.filter(group=group)


def test_entries_worse_than_published_are_listed_and_all_are_counted():
    """Published: GD++ 0.344, DIAG 0.047 and FULL 0.047 at seven layers, TunedRR 0.049."""
    found = findings(
        frames(
            {("diag", 7): 0.043, ("full", 7): 0.06, ("tunedrr", None): 0.0492, ("full two heads", 7): 0.9}
        ).get
    )
    table = asked(found, "Does Table 1")
    assert table["answer"][0].startswith(
        "Of 3 entries, baselines included, 1 are better than published, 1 tie"
    )
    assert table["what"].to_list() == ["uniform(0,5): FULL, 7 layers"]
    assert table["measured"].to_list() == [0.06]
    assert "6.5 of both together" in table["note"][0]  # 0.013 / hypot(0.002, 0.0001)
    assert "1 are worse by more than 2 of both errors" in table["answer"][0]
    every = asked(found, "Every entry")
    assert every.filter(pl.col("note") == "not in the paper")["measured"].to_list() == [0.9, FLOOR]


def test_what_no_gd_plus_plus_can_reach_is_said_of_what_is_published_below_it():
    """Published: 0.366 at two layers, 0.344 at seven; ridge with E sigma^2 = 25 / 3 loses 0.3616 in Table 1, whose million
    sequences have an error of 0.0004: 0.0175 and so 8.7 errors of 0.002 more."""
    held = frames({("gd++", 2): 0.39, ("gd++", 7): 0.37, ("diag", 7): 0.9})
    table = asked(findings(held.get), "the least that GD++")
    assert table.select("what", "standard_error").rows() == [(PROBLEM, None)]
    assert table["measured"].item() == pytest.approx(0.3616, abs=0.001)
    assert table["note"][0] == (
        "7 layers end at 0.37; published below it: 7 layers, by up to 8.7 of the published one's own standard error"
    )
    assert (
        "Of the 2 entries of GD++ that are worse than published, 1 were published below it"
        in table["answer"][0]
    )


def test_what_safety_costs_is_beside_what_was_published():
    tails = pl.DataFrame(
        {"problem": ["fixed(0)"], "layers": [4], "tail": [1e-6], "value": [1.12e-4], "breaks": [9.8e-7]}
    )
    table = asked(findings((frames({("full", 7): 0.05}) | {"tails": tails}).get), "pay for rarer poles")
    assert table.select("what", "bar", "measured", "note").rows() == [
        (
            "fixed(0): GD++, 4 layers, 1e-06 out of sight",
            "9.91e-05",
            1.12e-4,
            "loses more than predicting zero in 1e-06 of all sequences",
        )
    ]


def test_training_curves_are_of_the_entries_that_errors_do_not_explain(tmp_path):
    """Published at two layers: DIAG 0.242, FULL 0.245, with errors of 0.002."""
    table = losses({("diag", 2): 0.2435, ("full", 2): 0.3, ("constrr", None): 0.9})
    assert [(entry.method, entry.layers, entry.resists) for entry in worse(table)] == [
        ("diag", 2, False),
        ("full", 2, True),
        ("constrr", None, True),
    ]
    (_, full, _) = worse(table)
    assert full.distance == pytest.approx((0.3 - 0.245) / np.hypot(0.002, 1e-4))
    told = [("without layer 1", 9.0), ("muon", 0.5), ("muon", np.inf), ("muon", 0.26)]
    rows = [(PROBLEM, name, 2, n + 1, *report) for name in ("diag", "full") for n, report in enumerate(told)]
    names = ["problem", "method", "layers", "report", "phase", "regret"]
    held = {"losses": table, "curves": pl.DataFrame(rows, schema=names, orient="row")}
    drawn = OUTPUTS["curves"].draw(held.__getitem__, tmp_path)
    (row,) = drawn.grids[0].rows
    assert row == ("\u03c3 ~ U(0, 5): FULL, 2 layers", "0.30000", "0.245", "27.5")
    ((figure, _),) = drawn.pictures.values()
    (axes,) = figure.axes
    line, mark = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), [(1, 0.5), (3, 0.26)])
    assert tuple(np.asarray(mark.get_xydata())[0]) == pytest.approx((3, 0.245 - FLOOR))
    kept = pl.read_csv(tmp_path / "curves.csv")
    assert kept["regret"].to_list() == [0.5, 0.26] and set(kept["phase"]) == {"Muon"}


def test_where_none_resists_no_curve_is_drawn(tmp_path):
    held = {"losses": losses({("full", 2): 0.2}), "curves": pl.DataFrame()}
    drawn = OUTPUTS["curves"].draw(held.__getitem__, tmp_path)
    assert (
        not drawn.pictures and drawn.grids[0].rows == (("none", "", "", ""),) and not list(tmp_path.iterdir())
    )


def test_with_nothing_worse_the_table_says_so():
    table = asked(findings(frames({("diag", 7): 0.043}).get), "Does Table 1")
    assert table["measured"].to_list() == [0.0] and "0 are worse." in table["answer"][0]


def test_the_gap_is_the_least_regret_of_the_greatest_depth_over_the_floor():
    values = {("diag", 7): 0.05, ("full", 7): 0.041, ("full", 2): 0.0401}
    table = asked(findings(frames(values).get), "How close to Bayes")
    assert table["what"].to_list() == ["uniform(0,5): FULL, 7 layers"]
    assert table["measured"].item() == pytest.approx(0.001 / FLOOR)
    assert table["standard_error"].item() == pytest.approx(1e-5 / FLOOR)
    assert "1 of 1 bars are met" in table["answer"][0]


def test_differences_are_counted_beyond_two_standard_errors():
    pairs = [
        ("full", "diag", n, difference, 1e-3, 0.01) for n, difference in ((1, -0.01), (2, 0.0019), (3, 0.003))
    ]
    table = asked(findings(frames({("diag", 1): 0.1}, pairs).get), "DIAG with one head")
    assert "lower in 1 of 3 problems and depths, higher in 1" in table["answer"][0]
    assert table["note"][0] == "-100.0% of the other's regret"


def test_spread_is_over_seeds_and_broken_theorems_are_said_to_fail():
    found = findings(frames({("diag", 7): 0.05, ("diag", 3): 0.05}).get)
    assert asked(found, "seeds")["measured"].item() == pytest.approx(0.03)
    theorems = asked(found, "theorems")
    assert theorems["note"].to_list() == ["holds", "fails"] and "1 of 2 checks hold" in theorems["answer"][0]
    assert asked(found, "one sequence")["measured"].item() == pytest.approx(0.7)


def test_the_run_that_is_kept_is_held_against_the_best_of_its_rivals():
    """Better by a sixth at five layers; at four and three alike but for a pole of the other; at two alike."""
    runs = {
        5: [
            ("deeper", 0.06, 0.06, 0.1, False),
            ("random", 0.05, 0.05, 0.1, True),
            ("diag", 0.0625, 0.0625, 0.1, False),
        ],
        4: [
            ("deeper", 0.0502, 0.0502, 0.1, True),
            ("random", 0.0501, 0.05, 40.0, False),
            ("diag", 0.05, 0.06, 0.1, False),
        ],
        3: [("deeper", 0.0502, 0.0502, 0.1, True), ("random", 0.05, 0.25, 0.1, False)],
        2: [("deeper", 0.05, 0.05, 0.1, True), ("random", 0.0501, 0.0501, 0.19, False)],
    }
    rows = [(PROBLEM, "full", layers, 0, *run) for layers, some in runs.items() for run in some]
    columns = ["problem", "method", "layers", "seed", "run", "median", "mean", "beyond", "kept"]
    choice = pl.DataFrame(rows, schema=columns, orient="row")
    table = asked(findings((frames({("full", 5): 0.05}) | {"choice": choice}).get), "Which run is kept")
    assert table["what"].to_list() == [f"uniform(0,5): FULL, {layers} layers" for layers in (5, 4, 3)]
    assert table["measured"].to_list() == pytest.approx([0.05 / 0.06, 0.0502 / 0.0501, 0.0502 / 0.05])
    assert table["note"].to_list() == [
        "random, not deeper; of the means over all draws 0.833, beyond the tail 1",
        "deeper, not random; of the means over all draws 1, beyond the tail 0.0025",
        "deeper, not random; of the means over all draws 0.201, beyond the tail 1",
    ]
    assert "Of 4 entries that several runs yield, 3 have" in table["answer"][0]
    nothing = findings(frames({("full", 5): 0.05}).get)
    assert not nothing["group"].str.contains("Which run is kept").any()


def test_differences_are_paired(rng):
    """Two models whose losses differ by a constant: the error of the difference is 0, that of either is not."""
    theirs = rng.exponential(size=500)
    of = {"a": ("full", 3), "b": ("diag", 3), "c": ("full", 2)}
    found = _differences(of, {"a": theirs - 0.25, "b": theirs, "c": theirs})
    assert found.select("method", "other", "layers").rows() == [("full", "diag", 3)]
    assert found["difference"].item() == pytest.approx(-0.25, rel=1e-12)
    assert found["standard_error"].item() == pytest.approx(0, abs=1e-12)
    assert found["other_regret"].item() == pytest.approx(np.mean(theirs))


def test_every_session_is_a_line_even_one_that_fails(tmp_path):
    with session(tmp_path, outputs=["table1"], workers=2):
        pass
    with pytest.raises(RuntimeError), session(tmp_path, outputs=["figure1", "figure2"], workers=1):
        raise RuntimeError
    ran = sessions(tmp_path)
    assert ran["outputs"].to_list() == [["table1"], ["figure1", "figure2"]] and ran["workers"].to_list() == [
        2,
        1,
    ]
    assert (ran["seconds"] >= 0).all() and (ran["cpu_seconds"] >= 0).all()
    assert all("git_revision" in json.loads(line) for line in (tmp_path / FILE).read_text().splitlines())


def test_a_folder_that_was_never_made_is_not_made(tmp_path):
    with session(tmp_path / "none", outputs=[], workers=1):
        pass
    assert not (tmp_path / "none").exists() and len(sessions(tmp_path / "none")) == 0
