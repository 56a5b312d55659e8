"""Which run holds an entry of Table 1 that several yield."""

from types import SimpleNamespace

import jax
import numpy as np
import polars as pl
import pytest

from innerloop.evaluation import evaluate
from innerloop.models import LinearTransformer
from innerloop.papers.vladymyrov2024 import chosen
from innerloop.papers.vladymyrov2024.measured import choice_of, parts_of, task_of
from innerloop.papers.vladymyrov2024.study import BUDGETS, Entry, candidates, plan_of
from innerloop.train.spectral import Spectral

ENTRY = Entry("uniform(0,3)", "gd++", 1, 0)
MODEL = LinearTransformer.gd_plus_plus(10, 1, key=jax.random.key(0), context=20)


@pytest.mark.parametrize(
    ("medians", "means", "beyond", "kept"),
    [
        (
            [1.0, 2.0],
            [9.0, 2.0],
            [9.0, 2.0],
            0,
        ),  # far better but for a pole, which draws of the paper's size do not show
        ([1.0, 1.009], [9.0, 1.1], [1.5, 1.5], 1),  # alike but for that
        ([1.0, 1.009], [1.0, 1.1], [9.0, 1.5], 1),  # or for one that no draw shows but a larger one
        ([1.0, 1.009], [1.0, 1.1], [2.9, 1.5], 0),  # which twice the least is not
        ([1.0, 1.021], [9.0, 1.1], [1.0, 1.0], 0),
        (
            [1.0, 1.021, 1.01],
            [1.0, 1.1, 1.05],
            [5.0, 1.0, 4.0],
            0,
        ),  # beyond the tail they compare with what is alike
        ([np.nan, 3.0], [np.nan, 3.0], [np.nan, 3.0], 1),
        ([1.0, 1.0], [1.0, 1.1], [np.nan, 3.0], 1),
        ([np.nan, np.nan], [np.nan, np.nan], [np.nan, np.nan], 0),
        ([np.inf, 3.0], [np.inf, 3.0], [np.inf, 3.0], 1),
        ([1.0, 1.0], [1.0, 1.0], [np.inf, np.inf], 0),
    ],
)
def test_of_medians_alike_and_without_a_pole_the_least_mean_is_kept(medians, means, beyond, kept):
    assert chosen.Judged(*map(np.array, (medians, means, beyond))).best == kept


def test_the_choice_is_on_disk_and_says_which_run_holds_the_entry(tmp_path, monkeypatch):
    """The second run's median is the least."""
    losses = chosen.Judged(np.array([3.0, 2.0, 3.0]), np.array([3.0, 3.1, 2.9]), np.array([4.0, 5.0, 6.0]))
    monkeypatch.setattr(chosen, "load_run", lambda run: SimpleNamespace(exact_by_depth={1: MODEL}))
    monkeypatch.setattr(chosen, "judged", lambda models, problem: losses)
    rivals = {ENTRY: ("one", "two", "three"), ENTRY._replace(layers=4): ("one",)}
    chosen.choose(choice_of(ENTRY), [tmp_path / name for name in rivals[ENTRY]], tmp_path)
    assert chosen.chosen(rivals, rivals, tmp_path) == {ENTRY: "two", ENTRY._replace(layers=4): "one"}
    (file,) = tmp_path.iterdir()
    frame = pl.read_parquet(file)
    for column, values in zip(("median", "mean", "beyond"), losses, strict=True):
        assert frame[column].to_list() == values.tolist()
    assert frame.select("problem", "method", "layers", "seed").unique().rows() == [ENTRY]


def test_a_real_model_is_judged_as_evaluation_judges_it(monkeypatch):
    """Against the posterior mean, as here, what is left of a loss is the regret; of other sequences than those of
    `evaluate`, so within five standard errors of the difference."""
    monkeypatch.setattr(chosen, "COUNT", 8192)
    chosen._draws.cache_clear()
    losses = chosen.judged([MODEL], ENTRY.problem)
    chosen._draws.cache_clear()
    regret = evaluate(MODEL, task_of(ENTRY.problem), sequences=24_576).regret
    assert losses.means[0] == pytest.approx(regret.value, abs=5 * 2**0.5 * regret.standard_error)
    assert losses.means[0] != losses.medians[0]  # of draws that are not all one


def test_a_pole_just_beyond_the_largest_eigenvalues_is_seen(monkeypatch):
    """GD++ of four layers without noise, solved but for the largest eigenvalues that one in 10 000 sequences has, or those
    that one in a hundred million has: on draws of 8192 sequences the first loses less, on the larger far more."""
    monkeypatch.setattr(chosen, "COUNT", 8192)
    chosen._draws.cache_clear()
    start = LinearTransformer.gd_plus_plus(10, 4, key=jax.random.key(0), context=20)
    task = task_of("fixed(0)")
    with jax.enable_x64(True):
        models = [
            (trainer := Spectral(start, task, warm=False, tail=tail)).advance(trainer.start())[0].solved[-1]
            for tail in (1e-4, 1e-8)
        ]
    losses = chosen.judged(models, "fixed(0)")
    chosen._draws.cache_clear()
    assert losses.medians[0] < losses.medians[1] and losses.beyond[0] > 10 * losses.beyond[1]


def test_seeds_and_what_a_method_contains_are_rivals_except_on_the_problem_whose_seeds_are_shown():
    found = candidates(plan_of("full").runs, BUDGETS["full"])
    chains = {
        kind: {f"{kind}-7l-d10-n20-uniform-0-2-seed{seed}" for seed in (0, 1)} for kind in ("gdpp", "diag")
    }
    entry = Entry("uniform(0,2)", "gd++", 4, 0)
    assert set(found[entry]) == chains["gdpp"]
    assert set(found[entry._replace(method="diag")]) == chains["diag"] | chains["gdpp"]
    full = found[entry._replace(method="full")]
    assert "full-7l-d10-n20-uniform-0-2-seed0" in full[:-4]
    assert set(full[-4:]) == chains["diag"] | chains["gdpp"]
    shown = {entry.seed: names for entry, names in found.items() if entry[:3] == ("uniform(0,5)", "diag", 3)}
    assert set(shown) == set(range(BUDGETS["full"].seeds))
    for seed, names in shown.items():
        assert set(names) - {"diag-8l-d10-n20-uniform-0-5-seed0"} == {
            f"diag-7l-d10-n20-uniform-0-5-seed{seed}"
        }
    assert {entry.seed for entry in found if entry.problem != "uniform(0,5)"} == {0}


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_entry_with_rivals_and_no_other_has_a_choice(budget):
    rivals = candidates(plan_of(budget).runs, BUDGETS[budget])
    choices = [part for part in parts_of(rivals, BUDGETS[budget]) if part.kind == "choice"]
    assert {entry for part in choices for entry in part.entries} == {
        entry for entry, names in rivals.items() if len(names) > 1
    }
    assert len({part.file("choice") for part in choices}) == len(choices)
    problems = [part.entries[0].problem for part in choices]
    assert problems == sorted(problems, key=BUDGETS[budget].problems.index)  # their sequences are drawn once
