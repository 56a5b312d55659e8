"""How far each layer of a causal decoder is from what classical algorithms predict, by linear probes.

A linear probe reads a number off a layer: ridge regression from the token inside at the query's x, fitted on one half of
fresh sequences and judged on the other by

    1 - R^2 = E (probe - target)^2 / Var(target),

0 where the target is a linear function of the layer, 1 where it is no help. A probe is fitted, so it finds what a layer
holds and not what it uses, and something even in a model that has learned nothing: lay the same table of an untrained
model of the same shape beside it. Beside the probe stands the model's own read-out of each layer, which nothing is fitted
for, as if its prediction were due there ("logit lens", nostalgebraist 2020). Probes of this use: Akyürek et al. (2023,
arXiv 2211.15661).
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float

from innerloop.evaluation.losses import Estimate
from innerloop.models.decoder import CausalDecoder
from innerloop.predictors import WeightPredictor
from innerloop.predictors.base import finite_number, whole_number
from innerloop.probe.decoders import residual_stream
from innerloop.tasks import LinearRegression
from innerloop.types import Prompt

LABEL = "label"
_STREAM = 14
_BLOCK = 512
_RIDGE = 1e-6


def layer_distances(
    model: CausalDecoder,
    task: LinearRegression,
    predictors: Mapping[str, WeightPredictor],
    *,
    sequences: int = 4096,
    seed: int = 0,
) -> pl.DataFrame:
    """How far every layer is from the predictions of `predictors`, and from the noise-free label, after a task's context.

    Args:
        model: a decoder of prompts of at least `task.context + 1` points.
        task: where sequences are drawn from; layers are read at the x of the point after its context.
        predictors: the targets by name.
        sequences: in each half, that of fitting and that of judging.
        seed: of the sequences.

    Returns:
        Columns layer (0: before the first), target (a name, or "label"), probe (1 - R^2 of the linear probe), probe_se,
        read_out (the same ratio for the model's own read-out of that layer), read_out_se. Standard errors are over the
        sequences of the judging half.

    Raises:
        ValueError: dimensions differ, the context is too long, `sequences` is not a whole number >= 2, `seed` not one
            >= 0, or a predictor is named "label".
    """
    if task.dim != model.dim or task.context >= model.points:
        raise ValueError(
            f"the task must have dim {model.dim} and a context shorter than {model.points} as the model's prompts have, "
            f"got dim {task.dim}, context {task.context}"
        )
    if LABEL in predictors:
        raise ValueError(f"no predictor may be named {LABEL!r}, the noise-free label")
    whole_number("sequences", sequences, at_least=2)
    key = jax.random.fold_in(jax.random.key(whole_number("seed", seed, at_least=0)), _STREAM)
    prompts = task.sample_prompts(key, 2 * sequences)
    stream, read = (np.asarray(each, np.float64) for each in _run(model, prompts))
    targets = {name: _predictions(each, prompts) for name, each in predictors.items()} | {
        LABEL: prompts.label
    }
    table = np.stack([np.asarray(each, np.float64) for each in targets.values()], axis=1)
    fitted, judged = np.s_[:sequences], np.s_[sequences:]
    rows = []
    for layer, (tokens, prediction) in enumerate(zip(stream, read, strict=True)):
        probes = probe_shares(tokens[fitted], table[fitted], tokens[judged], table[judged])
        read_outs = _shares(prediction[judged, None], table[judged])
        rows += [
            {
                "layer": layer,
                "target": name,
                "probe": probe.value,
                "probe_se": probe.standard_error,
                "read_out": read_out.value,
                "read_out_se": read_out.standard_error,
            }
            for name, probe, read_out in zip(targets, probes, read_outs, strict=True)
        ]
    return pl.DataFrame(rows)


def probe_shares(
    features: Float[np.ndarray, "fitted width"],
    targets: Float[np.ndarray, "fitted targets"],
    judged_features: Float[np.ndarray, "judged width"],
    judged_targets: Float[np.ndarray, "judged targets"],
    *,
    ridge: float = _RIDGE,
) -> list[Estimate]:
    """1 - R^2 of a linear probe for each target: fitted on the first two arrays, judged on the others.

    The probe is ridge regression with an intercept: with centred features X `(n, width)` and targets t its weights are
    `(X^T X + ridge tr(X^T X) / width I)^{-1} X^T t`.

    Args:
        ridge: the penalty in units of the mean eigenvalue of X^T X, > 0. The default, 1e-6, keeps out directions of
            nothing but single precision's rounding.

    Returns:
        Estimates with standard errors over the judged sequences.

    Raises:
        ValueError: ridge is not finite and positive.
    """
    finite_number("ridge", ridge, above=0)
    means, centre = features.mean(0), targets.mean(0)
    X = features - means
    gram = X.T @ X
    penalty = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram + penalty, X.T @ (targets - centre))
    return _shares((judged_features - means) @ weights + centre, judged_targets)


def _shares(
    predictions: Float[np.ndarray, "judged any"], targets: Float[np.ndarray, "judged targets"]
) -> list[Estimate]:
    """E (prediction - target)^2 / Var(target) for each target; the standard error is that of a ratio of means."""
    errors, spreads = (predictions - targets) ** 2, (targets - targets.mean(0)) ** 2
    shares = errors.mean(0) / spreads.mean(0)
    # To first order a ratio of means is off by the mean of these.
    off = (errors - shares * spreads) / spreads.mean(0)
    return [
        Estimate(float(share), Estimate.of(each).standard_error)
        for share, each in zip(shares, off.T, strict=True)
    ]


@eqx.filter_jit
def _run(
    model: CausalDecoder, prompts: Prompt
) -> tuple[Float[Array, "depths sequences width"], Float[Array, "depths sequences"]]:
    """The tokens inside at the queries, and what the model reads there."""

    def one(prompt: Prompt):
        xs = jnp.concatenate([prompt.x, prompt.query[None]])
        stream = residual_stream(model, xs, jnp.append(prompt.y, jnp.zeros_like(prompt.y[:1])))
        return stream[:, -2], model.read(stream)[:, -1]

    stream, read = jax.lax.map(one, prompts, batch_size=_BLOCK)
    return jnp.moveaxis(stream, 1, 0), read.T


@eqx.filter_jit
def _predictions(predictor: WeightPredictor, prompts: Prompt) -> Float[Array, "sequences"]:
    return predictor.predict(prompts)
