"""FULL from a deeper one: depth after depth the layer that it misses least goes, and the same from any checkpoint."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

import innerloop as il
from innerloop.models import LinearTransformer
from innerloop.study import SpecError, parse_spec
from innerloop.study.plan import shape
from innerloop.tasks import LinearRegression
from innerloop.train import second_order
from innerloop.train.first_order import FirstOrder
from innerloop.train.from_deeper import FromDeeper, FromDeeperState
from innerloop.train.objectives import draw, draw_many

TASK = LinearRegression(3, 6, "uniform(0,2)")
SCALES = {"context": 6, "label_scale": 0.5}
pytestmark = pytest.mark.usefixtures("x64")


def make(seed: int, *, learning_rate: float = 0.02, steps: int = 40) -> FromDeeper:
    deeper = LinearTransformer.full(3, 3, key=jax.random.key(seed), **SCALES)
    onwards = FirstOrder(
        deeper, TASK, optimizer="muon", steps=steps, batch=64, learning_rate=learning_rate, interval=5
    )
    return FromDeeper(onwards, seed=seed, judge=20_480)


def states_of(trainer: FromDeeper) -> list:
    states = [trainer.start()]
    while not trainer.finished(states[-1]):
        states.append(trainer.advance(states[-1])[0])
    return states


def loss_of(model: LinearTransformer) -> float:
    return second_order.pool_losses(model, draw_many(TASK, "bayes", jax.random.key(99), 20_480)).mean()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_without_a_layer_the_others_predict_as_if_it_were_idle(position, seed):
    model = LinearTransformer.full(3, 2, key=jax.random.key(seed), **SCALES)
    idle = model.insert_idle_layer(position)[0]
    fewer = idle.without_layer(position)
    moments = draw(TASK, "bayes", jax.random.key(seed), 50).moments
    np.testing.assert_array_equal(fewer.final_weights(moments), model.final_weights(moments))
    with pytest.raises(ValueError, match="position must be from 0 to 1, got 2"):
        fewer.without_layer(2)
    with pytest.raises(ValueError, match="layers must be at least 2"):
        fewer.without_layer(0).without_layer(0)


def test_at_every_depth_trials_lose_one_layer_each_and_the_best_goes_on(seed):
    trainer = make(seed, steps=200)
    states = states_of(trainer)
    assert list(trainer.by_depth(states[-1])) == [1, 2]  # the first has three
    for before in range(1, 3):
        deeper = states[-1].solved[before - 1]
        there = [state for state in states if len(state.solved) == before]
        begun = {len(state.trials): state for state in there if state.best is None}
        assert sorted(begun) == list(range(deeper.layers))
        for index in range(deeper.layers):
            started = trainer._trainer(begun[index]).model
            np.testing.assert_array_equal(started.P, np.delete(np.asarray(deeper.P), index, axis=0))
        chosen, trials = there[-1].best, there[-1].trials
        assert any(chosen is trial for trial in trials)
        # Two draws: what differs by more than their errors is ordered alike.
        assert loss_of(chosen) < 1.02 * min(loss_of(trial) for trial in trials)
        assert loss_of(states[-1].solved[before]) < 1.02 * loss_of(chosen)


def test_what_makes_it_worse_is_not_kept(seed):
    """At this rate training on ruins the model."""
    trainer = make(seed)
    before = next(state for state in states_of(trainer) if state.best is not None)
    wild = make(seed, learning_rate=3.0)
    states = [before]
    while len(states[-1].solved) == 1:
        states.append(wild.advance(states[-1])[0])
    assert loss_of(wild.current(states[-2])) > loss_of(before.best)
    np.testing.assert_array_equal(second_order.flat(states[-1].solved[-1]), second_order.flat(before.best))


def test_goes_on_from_every_checkpoint_bit_for_bit(seed):
    """One interval from the unpacked state gives the next state, whatever is under way there."""
    trainer = make(seed)
    states = states_of(trainer)
    assert any(state.trials and state.under_way for state in states)
    progress = [trainer.progress(state) for state in states]
    assert progress == sorted(progress) and progress[-1] == pytest.approx(1.0)
    for before, after in itertools.pairwise(states):
        again, _ = make(seed).advance(make(seed).unpack(trainer.pack(before)))
        mine, theirs = trainer.pack(again), trainer.pack(after)
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])
    assert make(seed).finished(make(seed).unpack(trainer.pack(states[-1])))


def test_a_spec_yields_every_depth_and_trains_with_no_other():
    spec = parse_spec({"model": {"kind": "full", "layers": 3}, "train": {"start": "deeper"}})
    assert spec.depths() == range(1, 4) and shape(spec) is None
    with pytest.raises(SpecError, match="init_scale must be 1 where train.start is not random, got 2"):
        parse_spec({"model": {"kind": "full", "init_scale": 2.0}, "train": {"start": "deeper"}})


def test_stages_have_the_steps_batches_and_sequences_that_the_settings_say(seed):
    whole = replace(make(seed, steps=200).gradients, batch=96, devices=2)
    trainer = FromDeeper(whole, seed=seed)
    first = LinearTransformer.full(3, 3, key=jax.random.key(seed), **SCALES)
    trials = [
        trainer._trainer(FromDeeperState((first,), (first.without_layer(0),) * done)) for done in range(3)
    ]
    onward = trainer._trainer(FromDeeperState((first,), best=first.without_layer(0)))
    assert trainer._trainer(FromDeeperState()) is whole
    assert {(trial.steps, trial.batch) for trial in trials} == {(50, 12)}  # 6 of 48 on each device
    assert (onward.steps, onward.batch) == (100, 96)
    deeper = FromDeeperState((first, first.without_layer(0)))
    streams = [whole.data_seed, trials[0].data_seed, onward.data_seed, trainer._trainer(deeper).data_seed]
    assert len({trial.data_seed for trial in trials}) == 1 and len(set(streams)) == 4
    tiny = FromDeeper(replace(whole, steps=3, batch=2), seed=seed)
    trial = tiny._trainer(FromDeeperState((first,)))
    assert (trial.steps, trial.batch) == (1, 2)


def test_fit_gives_every_depth_and_reports_the_deeper_one(seed):
    full = LinearTransformer.full(3, 2, key=jax.random.key(seed), **SCALES)
    found = il.fit(full, TASK, seed=seed, optimizer="muon", start="deeper", steps=16, batch=32)
    assert {depth: model.layers for depth, model in found.by_depth.items()} == {1: 1, 2: 2}
    assert found.model is found.by_depth[2]
    phases = found.history.group_by("layers", maintain_order=True).agg("phase")
    assert {row[0]: set(row[1]) for row in phases.iter_rows()} == {
        3: {"deeper"},
        2: {"without layer 1", "without layer 2", "without layer 3", "muon"},
        1: {"without layer 1", "without layer 2", "muon"},
    }


def test_fit_and_spec_refuse_other_kinds():
    diag = LinearTransformer.diag(3, 1, key=jax.random.key(0), **SCALES)
    with pytest.raises(ValueError, match="start must be random for kind diag, got 'deeper'"):
        il.fit(diag, TASK, seed=0, optimizer="muon", start="deeper")
    with pytest.raises(SpecError, match="train.start must be random for kind gd\\+\\+, got 'deeper'"):
        parse_spec({"model": {"kind": "gd++"}, "train": {"optimizer": "adam", "start": "deeper"}})
