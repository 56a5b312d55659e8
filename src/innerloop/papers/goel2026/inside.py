"""Inside a trained arm: what its heads attend to, and how far each layer is from classical predictions."""

from collections.abc import Sequence
from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float
from scipy.optimize import minimize_scalar

from innerloop.models.decoder import CausalDecoder, Kind, Mixer, shares
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.predictors import OLS, GradientDescent, WeightPredictor
from innerloop.probe import attention_weights, layer_distances
from innerloop.tasks import LinearRegression

CONTEXTS = (3, POINTS - 1)  # examples after which layers are read: fewer than dim, and all
LEAST_SQUARES = "least squares"


def descent(steps: int) -> str:
    """The name of so many steps of gradient descent among the targets."""
    return f"gradient descent, {steps} step{'s' * (steps > 1)}"


def attended(
    model: CausalDecoder, xs: Float[Array, "blocks block points dim"], ys: Float[Array, "blocks block points"]
) -> pl.DataFrame:
    """The weights of tokens in every layer, averaged over the heads of a kind and over sequences.

    Returns:
        Columns layer (1 for the first), kind ("softmax" or "linear"), token, attended (the token that is looked at, not
        after `token`), weight, and standard_error over sequences.
    """
    rows = np.asarray(_by_kind(model, xs, ys), np.float64)
    means, errors = rows.mean((0, 2)), rows.std((0, 2)) / np.sqrt(xs.shape[0] * xs.shape[1] - 1)
    token, earlier = np.tril_indices(rows.shape[-1])
    names = [(layer, kind) for layer, mixer in enumerate(model.mixers, start=1) for kind in _heads(mixer)]
    tables = [
        pl.DataFrame(
            {
                "token": token,
                "attended": earlier,
                "weight": mean[token, earlier],
                "standard_error": error[token, earlier],
            }
        ).select(pl.lit(layer).alias("layer"), pl.lit(kind).alias("kind"), pl.all())
        for (layer, kind), mean, error in zip(names, means, errors, strict=True)
    ]
    return pl.concat(tables)


@eqx.filter_jit
def _by_kind(
    model: CausalDecoder, xs: Float[Array, "blocks block points dim"], ys: Float[Array, "blocks block points"]
) -> Float[Array, "blocks rows block tokens tokens"]:
    """Weights averaged over heads; a row a layer and a kind of its heads."""

    def of_block(part):
        weights = attention_weights(model, *part)
        return jnp.stack(
            [
                weights[layer][:, heads].mean(1)
                for layer, mixer in enumerate(model.mixers)
                for heads in _heads(mixer).values()
            ]
        )

    return jax.lax.map(of_block, (xs, ys))


def _heads(mixer: Mixer) -> dict[Kind, np.ndarray]:
    """Which heads of a layer are of each kind."""
    found: dict[Kind, list[int]] = {}
    for kind, heads in shares(mixer):
        found.setdefault(kind, []).extend(range(heads.start, heads.stop))
    return {kind: np.array(heads) for kind, heads in found.items()}


def distances(
    trained: CausalDecoder, untrained: CausalDecoder, *, steps: Sequence[int], sequences: int
) -> pl.DataFrame:
    """How far every layer is from gradient descent of tuned step size, from least squares and from the label.

    Args:
        untrained: the same shape, as the control of the probes.
        steps: of gradient descent, a target each.
        sequences: as for `innerloop.probe.layer_distances`.

    Returns:
        Columns examples, model ("trained" or "untrained"), and those of `layer_distances`.
    """
    tables = []
    for context in CONTEXTS:
        targets = _targets(context, tuple(steps))
        for name, model in (("trained", trained), ("untrained", untrained)):
            found = layer_distances(model, _task(context), targets, sequences=sequences)
            tables.append(
                found.select(pl.lit(context).alias("examples"), pl.lit(name).alias("model"), pl.all())
            )
    return pl.concat(tables)


@lru_cache(maxsize=4)
def _targets(context: int, steps: tuple[int, ...]) -> dict[str, WeightPredictor]:
    """By name."""
    task = _task(context)
    found: dict[str, WeightPredictor] = {
        descent(count): GradientDescent(task, count, best_step(context, count)) for count in steps
    }
    return found | {LEAST_SQUARES: OLS(task)}


def best_step(context: int, steps: int) -> float:
    """The step size with which so many steps of gradient descent lose least after so many examples.

    Without noise the weights are off by `(I - step Sigma / n)^steps w` with w ~ N(0, I), so what is least is the convex
    function `E tr (I - step Sigma / n)^(2 steps)`. What `GradientDescent` does for any task takes longer to compile than
    all else here.
    """
    x = np.random.default_rng(0).standard_normal((20_000, context, DIM))
    eigenvalues = np.linalg.eigvalsh(np.einsum("sni,snj->sij", x, x) / context)
    found = minimize_scalar(
        lambda step: np.mean((1 - step * eigenvalues) ** (2 * steps)), bounds=(0, 2), method="bounded"
    )
    return float(found.x)


def _task(context: int) -> LinearRegression:
    return LinearRegression(DIM, context, "fixed(0)")
