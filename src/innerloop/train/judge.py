"""Which of several models is better, on sequences that no training draws."""

from collections.abc import Sequence

import jax
import numpy as np

from innerloop.models.linear import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import second_order
from innerloop.train.objectives import Examples, Objective, draw_many

_NO_STEP = 2**31 - 1  # training folds its steps into the seed's key
_STREAM = 11


def draw_fresh(
    task: LinearRegression, objective: Objective, seed: int, count: int, *, draw: int = 0
) -> Examples:
    """Sequences that no training with this seed draws; another `draw` has others."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _NO_STEP), _STREAM)
    return draw_many(task, objective, jax.random.fold_in(key, draw) if draw else key, count)


def least(
    models: Sequence[LinearTransformer], task: LinearRegression, objective: Objective, seed: int, count: int
) -> int:
    """Which model has the least mean loss on `count` fresh sequences, the first of equals; one whose loss is not a number
    is the worst."""
    fresh = draw_fresh(task, objective, seed, count)
    return least_of([second_order.mean_loss(model, fresh) for model in models])


def least_of(losses: Sequence[float] | np.ndarray) -> int:
    """The place of the least loss, the first of equals; what is not a number is the greatest."""
    return int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
