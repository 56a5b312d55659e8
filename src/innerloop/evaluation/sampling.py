"""What a loss that is measured by one sampled query a sequence is worth, as published ones are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.evaluation.losses import check_sequences, implicit_paths, in_precision
from innerloop.predictors import RidgeOracle
from innerloop.tasks import LinearRegression
from innerloop.types import Moments


def sampled_errors(
    predictors: dict, task: LinearRegression, *, sequences: int, draws: int = 16_384, seed: int = 0
) -> dict[str, float]:
    """The standard error of each predictor's adjusted loss, had it been measured on `sequences` sampled queries.

    That loss is the mean of `1/2 <w_hat - w, x>^2 - 1/2 <w_sigma - w, x>^2` over sequences with weights w, noise sigma
    and one query x each. Over the query its variance is known, so that only contexts and weights are drawn.

    Args:
        draws: contexts to estimate it from.

    Raises:
        ValueError: `sequences` or `draws` is no whole number >= 2.
    """
    check_sequences(sequences)
    check_sequences(draws)
    with jax.enable_x64(True):
        moments = task.sample_moments(jax.random.key(seed), draws)
        cast = tuple(in_precision(each, "float64") for each in predictors.values())
        found = _variances(cast, task, moments)
    return dict(zip(predictors, (np.sqrt(float(each) / sequences) for each in found), strict=True))


@eqx.filter_jit
def _variances(predictors: tuple, task: LinearRegression, moments: Moments) -> list[Float[Array, ""]]:
    """The variance of one sequence's sampled adjusted loss, of each predictor."""

    def given(one: Moments) -> list[Float[Array, "dim"]]:
        return [path[-1] for path in implicit_paths([*predictors, RidgeOracle(task)], one)]

    *weights, oracle = jax.lax.map(given, moments, batch_size=1024)
    return [_variance(task, each - moments.weights, oracle - moments.weights) for each in weights]


def _variance(
    task: LinearRegression, ours: Float[Array, "draws dim"], oracle: Float[Array, "draws dim"]
) -> Float[Array, ""]:
    """Of x^T M x / 2 with M = a a^T - b b^T: that of tr(M C) / 2 over contexts plus the mean of tr(M C M C) / 2."""
    a, b = task.half_square(ours), task.half_square(oracle)
    both = task.half_square(ours + oracle) - a - b  # a^T C b
    return jnp.maximum(
        0.0, jnp.var(a - b) + (2 * a**2 + 2 * b**2 - both**2).mean()
    )  # 0 but for rounding, if a = b
