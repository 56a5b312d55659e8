"""Runs that train as one compiled program, against the same runs one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import Fitting, Training, fit_together
from innerloop.train.fit import _all_losses
from innerloop.train.objectives import draw_many
from innerloop.train.second_order import pool_losses

_DIM, _CONTEXT = 3, 6


def make_fitting(index: int, kind: str = "diag", **options) -> Fitting:
    """Differs from the others in parameters, label scale, data stream, learning rate and noise."""
    noise = f"uniform(0,{1 + index})"
    sizes = {"key": jax.random.key(index), "context": _CONTEXT, "label_scale": 0.5 - 0.1 * index}
    make = {"diag": LinearTransformer.diag, "full": LinearTransformer.full}[kind]
    model = make(_DIM, 2, 1, **sizes)
    training = Training(
        optimizer="muon" if kind == "full" else "adam",
        batch=16,
        learning_rate=0.01 * (1 + index),
        seed=index,
        precision="float64",
        **options,
    )
    return Fitting(model, LinearRegression(_DIM, _CONTEXT, noise), training)


def flat(model) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(model)])


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_each_is_as_it_would_be_alone(kind):
    """In float64 to 1e-8 after 500 steps; and the runs do differ."""
    fittings = [make_fitting(index, kind, steps=500) for index in range(2)]
    together = [flat(result.exact[2]) for result in fit_together(fittings)]
    for index in range(2):
        [alone] = fit_together([fittings[index]])
        np.testing.assert_allclose(together[index], flat(alone.exact[2]), rtol=1e-8, atol=1e-10)
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize("noise", ["fixed(1)", "categorical(1,3)"])
def test_laws_of_other_kinds_share_a_program_too(noise):
    """100 steps alone and beside a run of the same kind of law with other numbers."""
    task = LinearRegression(_DIM, _CONTEXT, noise)
    other = LinearRegression(_DIM, _CONTEXT, noise.replace("1", "2"))
    fittings = [
        Fitting(make_fitting(0).model, each, make_fitting(0, steps=100).training) for each in (task, other)
    ]
    together = fit_together(fittings)
    [alone] = fit_together(fittings[:1])
    np.testing.assert_allclose(flat(together[0].exact[2]), flat(alone.exact[2]), rtol=1e-8, atol=1e-10)
    assert np.abs(flat(together[0].exact[2]) - flat(together[1].exact[2])).max() > 1e-4


def test_a_run_that_diverges_leaves_the_others_bit_for_bit():
    """Parameters of 1e30 give no finite update at all."""
    fittings = [make_fitting(index, steps=60) for index in range(3)]
    good = [flat(result.exact[2]) for result in fit_together(fittings)]
    with jax.enable_x64(True):
        broken = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e30), fittings[1].model)
    fittings[1] = Fitting(broken, fittings[1].task, fittings[1].training)
    results = fit_together(fittings)
    for index in (0, 2):
        np.testing.assert_array_equal(flat(results[index].exact[2]), good[index])
    assert results[1].history["skipped"][-1] == 60
    assert results[0].history["skipped"][-1] == 0


@pytest.mark.parametrize("change", [{"steps": 70}, {"batch": 8}, {"objective": "oracle"}, {"temper": None}])
def test_runs_of_several_shapes_are_refused(change):
    first = make_fitting(0, steps=60)
    other = Fitting(first.model, first.task, first.training.model_copy(update=change))
    with pytest.raises(ValueError, match="may differ in numbers only"):
        fit_together([first, other])
    lm = first.training.model_copy(update={"optimizer": "levenberg-marquardt", "learning_rate": None})
    with pytest.raises(ValueError, match="may differ in numbers only"):
        fit_together([Fitting(first.model, first.task, lm), Fitting(first.model, first.task, lm)])


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_models_are_judged_together_as_one_by_one(kind):
    """What an accelerator runs, here on the CPU: models, label scales and problems differ, to 1e-5 in float32."""
    fittings = [make_fitting(index, kind) for index in range(3)]
    models = [jax.tree.map(lambda leaf: leaf.astype(jnp.float32), each.model) for each in fittings]
    examples = [draw_many(each.task, "bayes", jax.random.key(1), 2000) for each in fittings]
    alone = [pool_losses(*pair) for pair in zip(models, examples, strict=True)]
    together = _all_losses(models, jax.tree.map(jnp.asarray, examples))
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.mean(together, axis=1), np.mean(alone, axis=1), rtol=1e-5)
    assert len(set(np.round(np.mean(alone, axis=1), 3))) == 3
