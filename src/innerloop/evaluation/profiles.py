"""How a predictor's loss depends on the noise level, inside and outside of what it was trained on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float, Key

from innerloop.evaluation.losses import (
    Precision,
    check_precision,
    check_predictor,
    check_sequences,
    implicit_paths,
    in_precision,
)
from innerloop.tasks import LinearRegression
from innerloop.tasks.regression import check_task
from innerloop.types import Moments

_BLOCK = 512
_STREAM = 8


def loss_by_sigma(
    predictor,
    task: LinearRegression,
    *,
    sigmas: np.ndarray | None = None,
    sequences: int = 4096,
    seed: int = 0,
    precision: Precision = "float64",
) -> pl.DataFrame:
    """Adjusted loss `1/2 E ||w_hat - w_sigma||^2` at each noise level, after every layer (Figures 2, 3 and 7); and the
    unadjusted loss, with `1/2 E ||w - w_sigma||^2` on top (Figure 6).

    Args:
        sigmas: standard deviations of the label noise; by default 29 from 0 to one above the law's maximum.
        sequences: how many at each level; the levels share weights, inputs and noise directions.

    Returns:
        Columns sigma, layer, value, standard_error, unadjusted, unadjusted_se; a predictor without layers has layer 0
        only.
    """
    profiles = losses_by_sigma(
        {"": predictor}, task, sigmas=sigmas, sequences=sequences, seed=seed, precision=precision
    )
    return profiles.drop("method")


def losses_by_sigma(
    predictors: dict,
    task: LinearRegression,
    *,
    sigmas: np.ndarray | None = None,
    sequences: int = 4096,
    seed: int = 0,
    precision: Precision = "float64",
) -> pl.DataFrame:
    """As `loss_by_sigma` for several predictors, on one draw of the sequences; with their names in a column method."""
    check_sequences(sequences)
    check_task(task)
    for predictor in predictors.values():
        check_predictor(predictor)
    if sigmas is None:
        sigmas = np.linspace(0, task.noise.maximum + 1, 29)
    with jax.enable_x64(check_precision(precision) == "float64"):
        levels = jnp.asarray(sigmas, jnp.dtype(precision))
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        keys = jax.random.split(key, -(-sequences // _BLOCK))
        predictors = {name: in_precision(predictor, precision) for name, predictor in predictors.items()}
        sums = _sums(predictors, task.apart()[0], keys, levels)
    count = len(keys) * _BLOCK
    return pl.concat([_profile(name, sigmas, sums[name], count) for name in predictors])


def _profile(name: str, sigmas: np.ndarray, sums: tuple, count: int) -> pl.DataFrame:
    """The rows of one predictor, of the sums of its losses and of their squares over `count` sequences, both kinds."""
    value, square, unadjusted, unadjusted_square = (
        np.asarray(each, np.float64) / count for each in sums
    )  # (levels, layers + 1)
    errors = [
        np.sqrt(np.maximum(squares - mean**2, 0) / count)
        for mean, squares in ((value, square), (unadjusted, unadjusted_square))
    ]
    sigma, layer = np.meshgrid(np.asarray(sigmas, np.float64), np.arange(value.shape[1]), indexing="ij")
    return pl.DataFrame(
        {
            "method": [name] * value.size,
            "sigma": sigma.ravel(),
            "layer": layer.ravel(),
            "value": value.ravel(),
            "standard_error": errors[0].ravel(),
            "unadjusted": unadjusted.ravel(),
            "unadjusted_se": errors[1].ravel(),
        }
    )


@eqx.filter_jit
def _sums(predictors: dict, task: LinearRegression, keys: Key[Array, "blocks"], levels: Float[Array, "m"]):
    """For every predictor, sums over sequences of the losses and of their squares, for every level and layer.

    Levels are given, so the task's law is not asked.
    """

    def one(moments: Moments) -> dict[str, tuple[Float[Array, "depths"], Float[Array, "depths"]]]:
        assert moments.sigma is not None  # the sampler says it
        posterior = task.posterior(moments)
        ridge, oracle = posterior.ridge(moments.sigma), posterior.oracle_loss(moments.sigma)
        paths = implicit_paths(predictors.values(), moments)
        adjusted = [task.half_square(path - ridge[None]) for path in paths]
        return {name: (each, each + oracle) for name, each in zip(predictors, adjusted, strict=True)}

    def block(key, level):
        moments = task.sample_moments(key, _BLOCK, sigma=jnp.full(_BLOCK, level), dtype=levels.dtype)
        losses = jax.vmap(one)(moments)
        return {
            name: tuple(sums for each in both for sums in (each.sum(0), (each**2).sum(0)))
            for name, both in losses.items()
        }

    def at(level):
        per_block = jax.lax.map(lambda key: block(key, level), keys)
        return jax.tree.map(lambda leaf: leaf.sum(0), per_block)

    return jax.lax.map(at, levels)
