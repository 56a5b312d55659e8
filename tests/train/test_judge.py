"""Judging models on fresh sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import judge, second_order

TASK = LinearRegression(3, 6, "uniform(0,2)")
pytestmark = pytest.mark.usefixtures("x64")


def scaled(model: LinearTransformer, factor: float) -> LinearTransformer:
    return second_order.unflat(model, second_order.flat(model) * factor)


def test_the_least_is_the_first_of_the_best_and_never_what_is_not_a_number(key):
    model = LinearTransformer.gd_plus_plus(3, 1, key=key, context=6, label_scale=0.5)
    idle = scaled(model, 0)  # it predicts 0
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), model)
    fresh = judge.draw_fresh(TASK, "bayes", 5, 4096)
    better = idle if second_order.mean_loss(idle, fresh) < second_order.mean_loss(model, fresh) else model
    order = [broken, idle, model, better]
    assert order[judge.least(order, TASK, "bayes", 5, 4096)] is better
    assert judge.least([broken, idle, idle], TASK, "bayes", 5, 4096) == 1
    assert judge.least_of([np.nan, np.inf, 3.0, 3.0]) == 2


def test_draws_differ_from_each_other_and_from_those_of_another_seed():
    first, again, second, other = (
        judge.draw_fresh(TASK, "bayes", seed, 64, draw=draw).target
        for seed, draw in [(5, 0), (5, 0), (5, 1), (6, 0)]
    )
    np.testing.assert_array_equal(first, again)
    assert not np.isin(first, second).any() and not np.isin(first, other).any()
