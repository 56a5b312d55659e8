"""FULL from DIAG: the same predictions at the start, never worse at the end, and the same again from any checkpoint."""

import jax
import numpy as np
import pytest

import innerloop as il
from innerloop.models import LinearTransformer
from innerloop.study import SpecError, parse_spec
from innerloop.tasks import LinearRegression
from innerloop.train import second_order
from innerloop.train.first_order import FirstOrder
from innerloop.train.from_diag import FromDiag
from innerloop.train.objectives import draw, draw_many
from innerloop.train.warm_chain import WarmChain

# Inputs that differ in variance, which DIAG cannot tell apart.
TASK = LinearRegression(3, 6, "uniform(0,2)", np.diag([2.0, 0.7, 0.3]))
SCALES = {"context": 6, "label_scale": 0.5}
pytestmark = pytest.mark.usefixtures("x64")


def make(seed: int, *, learning_rate: float = 1e-3, steps: int = 40) -> FromDiag:
    diag = LinearTransformer.diag(3, 2, key=jax.random.key(seed), **SCALES)
    chain = WarmChain(
        diag,
        TASK,
        seed=seed,
        sample=128,
        pool=512,
        judge=2048,
        steps=6,
        starts=1,
        scout=64,
        heats=(((1.0, 2),),) * 2,
        hard=16,
        polish=1,
    )
    full = LinearTransformer.full(3, 2, key=jax.random.key(seed), **SCALES)
    onwards = FirstOrder(
        full, TASK, optimizer="muon", steps=steps, batch=64, learning_rate=learning_rate, interval=10
    )
    return FromDiag(chain, onwards, judge=20_480)


def states_of(trainer: FromDiag) -> list:
    states = [trainer.start()]
    while not trainer.finished(states[-1]):
        states.append(trainer.advance(states[-1])[0])
    return states


@pytest.mark.parametrize("heads", [1, 2])
def test_diag_as_full_predicts_the_same(heads, seed):
    model = LinearTransformer.diag(3, 2, heads, key=jax.random.key(seed), **SCALES)
    full = model.as_full()
    assert (full.kind, full.heads, full.layers) == ("full", heads, 2)
    moments = draw(TASK, "bayes", jax.random.key(seed), 50).moments
    np.testing.assert_allclose(
        full.final_weights(moments), model.final_weights(moments), rtol=1e-9, atol=1e-12
    )
    for mine, theirs in zip(
        full.matrices(), model.matrices(), strict=True
    ):  # up to a factor a layer and head
        ratio = np.linalg.norm(mine, axis=(-2, -1)) / np.linalg.norm(theirs, axis=(-2, -1))
        np.testing.assert_allclose(mine, ratio[..., None, None] * theirs, rtol=1e-12)


def test_an_idle_layer_as_full_is_finite_and_does_nothing(seed):
    model = LinearTransformer.gd_plus_plus(3, 1, key=jax.random.key(seed), **SCALES)
    full = model.insert_idle_layer(0)[0].as_full()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(full))
    moments = draw(TASK, "bayes", jax.random.key(seed), 50).moments
    np.testing.assert_allclose(
        full.final_weights(moments), model.final_weights(moments), rtol=1e-9, atol=1e-12
    )


def test_what_makes_it_better_is_kept(seed):
    """One layer gains little by being FULL: found on this draw, for seeds 0 to 3, 0.9978 to 0.9984 of DIAG's loss."""
    trainer = make(seed, learning_rate=5e-3, steps=200)
    end = states_of(trainer)[-1]
    assert list(trainer.by_depth(end)) == [1, 2]
    fresh = draw_many(TASK, "bayes", jax.random.key(99), 20_480)
    kept, diag = (
        second_order.pool_losses(models[0], fresh).mean() for models in (end.kept, end.chain.solved)
    )
    assert kept < 0.9995 * diag


def test_what_makes_it_worse_is_not_kept(seed):
    end = states_of(make(seed, learning_rate=3.0))[-1]
    for kept, diag in zip(end.kept, end.chain.solved, strict=True):
        np.testing.assert_array_equal(second_order.flat(kept), second_order.flat(diag.as_full()))


def test_goes_on_from_a_checkpoint_bit_for_bit(seed):
    trainer = make(seed)
    states = states_of(trainer)
    last_of_chain = max(
        index for index, state in enumerate(states) if not state.kept and state.onwards is None
    )
    between = next(index for index, state in enumerate(states) if len(state.kept) == 1)
    for index in (
        last_of_chain // 2,
        last_of_chain,
        last_of_chain + 1,
        between,
        between + 1,
        len(states) - 1,
    ):
        again = make(seed).unpack(trainer.pack(states[index]))
        while not trainer.finished(again):
            again = trainer.advance(again)[0]
        for mine, theirs in zip(again.kept, states[-1].kept, strict=True):
            np.testing.assert_array_equal(second_order.flat(mine), second_order.flat(theirs))


def test_fit_and_spec_refuse_other_kinds():
    diag = LinearTransformer.diag(3, 1, key=jax.random.key(0), **SCALES)
    with pytest.raises(ValueError, match="start must be random for kind diag, got 'diag'"):
        il.fit(diag, TASK, optimizer="adam", start="diag")
    with pytest.raises(ValueError, match="start must be random for kind diag, got 'diag'"):
        il.fit(diag, TASK, start="diag")  # whose optimiser would be levenberg-marquardt
    with pytest.raises(ValueError, match="start must be random for levenberg-marquardt, got 'diag'"):
        il.fit(diag, TASK, optimizer="levenberg-marquardt", start="diag")
    with pytest.raises(SpecError, match=r"train\.start must be random for kind gd\+\+, got 'diag'"):
        parse_spec({"model": {"kind": "gd++"}, "train": {"optimizer": "adam", "start": "diag"}})


def test_fit_gives_every_depth(seed):
    full = LinearTransformer.full(3, 2, key=jax.random.key(seed), **SCALES)
    found = il.fit(full, TASK, start="diag", steps=5, sample=64, starts=1, learning_rate=1e-3, seed=seed)
    assert {depth: model.kind for depth, model in found.by_depth.items()} == {1: "full", 2: "full"}
    assert found.training.precision == "float64"
    assert found.model.layers == 2
    assert set(found.history["phase"]) >= {"scout", "solve", "polish", "muon"}
