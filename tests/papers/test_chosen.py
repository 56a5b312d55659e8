"""Which run holds an entry of Table 1 that several yield."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from innerloop.evaluation import evaluate
from innerloop.evaluation.losses import in_precision
from innerloop.models import LinearTransformer
from innerloop.papers.vladymyrov2024 import chosen
from innerloop.papers.vladymyrov2024.measured import choice_of, parts_of, task_of
from innerloop.papers.vladymyrov2024.study import BUDGETS, Entry, candidates, plan_of
from innerloop.train import second_order

NOISY, DEEP = Entry("uniform(0,3)", "full", 5, 0), Entry("fixed(0)", "full", 5, 0)
WITH_POLE = LinearTransformer.gd_plus_plus(10, 1, key=jax.random.key(0), context=20)
SOUND = jax.tree.map(jnp.zeros_like, WITH_POLE)


@pytest.fixture
def known(monkeypatch):
    """The two models' losses: of three draws without noise, and of two usual sequences and an extreme one."""
    draws = {"draw 0": (1.2, 1.0), "draw 1": (1.2, 1.0), "draw 2": (1.2, 1.3)}
    pool = SimpleNamespace(examples="stratified", weights=np.array([0.6, 0.3, 0.1]))
    sequences = {"stratified": (np.array([1.2, 1.2, 1.2]), np.array([1.0, 1.0, 50.0]))}

    def known_to(table):
        return lambda model, examples: table[examples][int(second_order.flat(model).any())]

    monkeypatch.setattr(chosen, "_draws", lambda problem: tuple(draws))
    monkeypatch.setattr(chosen, "_stratified", lambda problem: pool)
    monkeypatch.setattr(chosen, "mean_loss", known_to(draws))
    monkeypatch.setattr(chosen, "pool_losses", known_to(sequences))


def test_the_mean_tells_a_pole_and_the_median_where_any_mean_is_carried_by_single_sequences(known):
    assert chosen.judged([SOUND, WITH_POLE], NOISY) == pytest.approx([1.2, 5.9], rel=1e-12)
    assert chosen.judged([SOUND, WITH_POLE], DEEP) == pytest.approx([1.2, 1.0], rel=1e-12)
    assert chosen.judged([SOUND, WITH_POLE], DEEP._replace(layers=3)) == pytest.approx([1.2, 5.9], rel=1e-12)


@pytest.mark.parametrize(("entry", "best"), [(NOISY, "sound"), (DEEP, "pole")])
def test_the_choice_is_on_disk_and_says_which_run_holds_the_entry(known, tmp_path, monkeypatch, entry, best):
    models = {"sound": SOUND, "pole": WITH_POLE}
    monkeypatch.setattr(chosen, "load_run", lambda run: SimpleNamespace(exact_by_depth={5: models[run.name]}))
    rivals = {entry: ("sound", "pole"), Entry("uniform(0,3)", "full", 4, 0): ("sound",)}
    chosen.choose(choice_of(entry), [tmp_path / name for name in rivals[entry]], tmp_path)
    runs = chosen.chosen(rivals, rivals, tmp_path)
    assert list(runs.values()) == [best, "sound"]
    (file,) = tmp_path.iterdir()
    frame = pl.read_parquet(file)
    assert frame["loss"].to_list() == chosen.judged([SOUND, WITH_POLE], entry)
    assert frame["problem"].unique().to_list() == [entry.problem]


def test_a_real_model_is_judged_as_evaluation_judges_it(monkeypatch):
    """Against the posterior mean, as here, what is left of a loss is the regret. The usual sequences are those of one draw
    of five, so within four of its standard errors: that of all draws, and that of other sequences."""
    monkeypatch.setattr(chosen, "_COUNT", 8192)
    monkeypatch.setattr(chosen, "_EXTREME", 512)
    chosen._stratified.cache_clear()
    (loss,) = chosen.judged([WITH_POLE], NOISY._replace(method="gd++", layers=1))
    regret = evaluate(WITH_POLE, task_of(NOISY.problem), sequences=40_960).regret
    error = 5**0.5 * regret.standard_error
    assert loss == pytest.approx(regret.value, abs=4 * error)
    with jax.enable_x64(True):
        losses = [
            second_order.mean_loss(in_precision(WITH_POLE, "float64"), draw)
            for draw in chosen._draws(NOISY.problem)
        ]
    assert loss == pytest.approx(np.mean(losses), abs=4 * error)
    chosen._stratified.cache_clear()
    chosen._draws.cache_clear()


def test_seeds_and_what_a_method_contains_are_rivals_except_on_the_problem_whose_seeds_are_shown():
    found = candidates(plan_of("full").runs, BUDGETS["full"])
    chains = {
        kind: {f"{kind}-7l-d10-n20-categorical-1-3-seed{seed}" for seed in (0, 1)}
        for kind in ("gdpp", "diag")
    }
    entry = Entry("categorical(1,3)", "gd++", 4, 0)
    assert set(found[entry]) == chains["gdpp"]
    assert set(found[entry._replace(method="diag")]) == chains["diag"] | chains["gdpp"]
    full = found[entry._replace(method="full")]
    assert "full-7l-d10-n20-categorical-1-3-seed0" in full[:-4]
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
