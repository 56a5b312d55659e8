"""How a trained model uses its flows: what it loses without one, and how it answers the noise in its context.

Vladymyrov et al. (2024, section 5) read two mechanisms off trained `DIAG` weights: w_yy < 0 shrinks the output by the noise
level, w_xy adapts the step size to it. Here both are measured on sequences, against the residual variance rss / (n - dim)
of least squares, the unbiased estimate of sigma^2 that the context allows.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float, Key

from innerloop.evaluation.losses import (
    CHUNK,
    Estimate,
    Precision,
    check_precision,
    check_sequences,
    draw_losses,
    implicit_paths,
    in_precision,
)
from innerloop.models.linear import Blockwise, Diag, LinearTransformer
from innerloop.predictors.base import whole_number
from innerloop.tasks import LinearRegression
from innerloop.types import Moments

FLOWS = {"w_xx": (0, 0), "w_xy": (0, 1), "w_yx": (1, 0), "w_yy": (1, 1)}
_STREAM = 12
_BLOCK = 256


def ablate(model: Blockwise, flows: str | Sequence[str], *, layers: Sequence[int] | None = None) -> Diag:
    """The model without some of its flows, as a `DIAG` with two heads; nothing else changes, and nothing is retrained.

    Args:
        model: of kind diag or gd++.
        flows: one or more of "w_xx", "w_xy", "w_yx", "w_yy".
        layers: indices of the layers to ablate in, from 0; all if None.

    Raises:
        ValueError: the model has no flows, a flow is unknown, or there is no such layer.
    """
    if not isinstance(model, Blockwise):
        kind = getattr(model, "kind", type(model).__name__)
        raise ValueError(f"model must be of kind diag or gd++, whose layers have four flows, got {kind}")
    names = [flows] if isinstance(flows, str) else list(flows)
    for name in names:
        if name not in FLOWS:
            raise ValueError(f"flows must be among {', '.join(FLOWS)}, got {name!r}")
    chosen = list(range(model.layers)) if layers is None else list(layers)
    for layer in chosen:
        if (
            isinstance(layer, bool)
            or not isinstance(layer, int | np.integer)
            or not 0 <= layer < model.layers
        ):
            raise ValueError(f"layers must be whole numbers from 0 to {model.layers - 1}, got {layer!r}")
    keep = np.ones((model.layers, 2, 2), bool)
    for name in names:
        keep[chosen, *FLOWS[name]] = False
    free = model.freed()  # its q is (1, 0) and (0, 1), so p holds the flows, source first
    return eqx.tree_at(lambda free: free.p, free, jnp.where(keep.swapaxes(1, 2), free.p, 0))


def ablations(
    model: Blockwise,
    task: LinearRegression,
    *,
    flows: Sequence[str] = ("w_yy", "w_xy", "w_xx"),
    sequences: int = 100_000,
    seed: int = 0,
    precision: Precision = "float64",
) -> pl.DataFrame:
    """What the model loses without each of the flows and each combination of them, on the same sequences.

    Without w_xy and w_yy a model computes `w_hat = f(Sigma) alpha`, whatever its other parameters are. Among those ridge
    with the constant level E sigma^2 is the best for isotropic problems, so its regret is a bound. A flow that is missed
    says how the model works; that no other model does without it, it does not say. Signs need not agree between layers.

    Returns:
        Columns without ("" for the whole model, "w_yy", "w_yy+w_xy", ..), those of `Evaluation.summary`, and
        difference, difference_se: the mean of the paired differences to the whole model with its standard error, and
        difference_median, which a few sequences that blow up do not move.

    Raises:
        ValueError: as for `ablate` and `evaluate`.
    """
    check_sequences(sequences)
    chosen = list(dict.fromkeys(flows))
    models = {"": ablate(model, [])}
    for count in range(1, len(chosen) + 1):
        models |= {"+".join(names): ablate(model, names) for names in combinations(chosen, count)}
    chunks = range(-(-sequences // CHUNK))
    drawn = draw_losses(models, task, chunks, seed=seed, precision=precision, per_layer=False)
    rows = []
    for name, judged in drawn.evaluations(sequences).items():
        with np.errstate(invalid="ignore"):
            lost = (drawn.regret[name] - drawn.regret[""])[:sequences, -1]
        difference = Estimate.of(lost)
        rows.append(
            {
                "without": name,
                **judged.summary(),
                "difference": difference.value,
                "difference_se": difference.standard_error,
                "difference_median": float(np.median(lost)),
            }
        )
    return pl.DataFrame(rows)


def output_scales(
    predictors: dict,
    task: LinearRegression,
    *,
    bins: int = 16,
    sequences: int = 16_384,
    seed: int = 0,
    precision: Precision = "float64",
) -> pl.DataFrame:
    """How far predictors shrink their answers, against the residual variance of the sequence.

    The output scale of weights w_hat is the slope of the fitted labels `X w_hat` on those of least squares:

        scale = <X w_hat, X w_ols> / |X w_ols|^2 = <w_hat, alpha> / <w_ols, alpha>

    1 for least squares and 0 for no answer; for ridge with eigenvalues lam_k and projections a_k it is the mean of
    lam_k / (lam_k + sigma^2) with weights a_k^2 / lam_k. Sequences are put in bins of equal counts by rss / (n - dim).

    Args:
        predictors: by name; models, or anything with `implicit_weights`.

    Returns:
        Columns method, bin, residual_variance (the bin's mean), value, standard_error, count.

    Raises:
        ValueError: the context is not longer than dim, which leaves no residual; a number is out of range; or dimensions
            differ.
    """
    _check_sizes(task, bins, sequences)
    variance, scales = _collect(_scales, predictors, task, sequences, seed, precision)
    tables = [
        _binned(variance, each, bins).select(pl.lit(name).alias("method"), pl.all())
        for name, each in scales.items()
    ]
    return pl.concat(tables)


def step_sizes(
    models: dict,
    task: LinearRegression,
    *,
    bins: int = 16,
    sequences: int = 16_384,
    seed: int = 0,
    precision: Precision = "float64",
) -> pl.DataFrame:
    """How far each layer goes along the gradient, against the residual variance of the sequence.

    With the implicit weights w before and w' after a layer, and `g = alpha - Sigma w`, minus the squared error's gradient,

        step = n <w' - w, g> / <g, g>,    along = <w' - w, g>^2 / (|w' - w|^2 |g|^2)

    the step being in units of Sigma / n, whose eigenvalues are about one, and `along` the share of the layer's squared
    move that is along the gradient. Plain gradient descent has a constant step and along = 1. A negative step is
    shrinkage that outweighs descent.

    Args:
        models: linear transformers, by name.

    Returns:
        Columns method, layer (1 for the first), bin, residual_variance, value, standard_error, along, along_se, count.

    Raises:
        ValueError: as for `output_scales`, or one of the models is none.
    """
    _check_sizes(task, bins, sequences)
    for name, model in models.items():
        if not isinstance(model, LinearTransformer):
            raise ValueError(f"models must be linear transformers, got {type(model).__name__} for {name!r}")
    variance, moves = _collect(_steps, models, task, sequences, seed, precision)
    tables = []
    for name, each in moves.items():
        for layer in range(each.shape[1]):
            step = _binned(variance, each[:, layer, 0], bins)
            along = _binned(variance, each[:, layer, 1], bins)
            tables.append(
                step.select(
                    pl.lit(name).alias("method"),
                    pl.lit(layer + 1).alias("layer"),
                    pl.all().exclude("count"),
                    along["value"].alias("along"),
                    along["standard_error"].alias("along_se"),
                    pl.col("count"),
                )
            )
    return pl.concat(tables)


def _check_sizes(task: LinearRegression, bins: int, sequences: int) -> None:
    if task.context <= task.dim:
        raise ValueError(
            f"the residual variance needs context > dim, got context={task.context}, dim={task.dim}"
        )
    check_sequences(sequences)
    if whole_number("bins", bins, at_least=1) * 2 > sequences:
        raise ValueError(
            f"bins must be at most half of sequences, got {bins} for {sequences}: a standard error takes two"
        )


def _scales(path: Float[Array, "depths dim"], moments: Moments, ols: Float[Array, "dim"]):
    return (path[-1] @ moments.correlation) / (ols @ moments.correlation)


def _steps(path: Float[Array, "depths dim"], moments: Moments, ols: Float[Array, "dim"]):
    moves = jnp.diff(path, axis=0)
    gradients = moments.correlation[None] - path[:-1] @ moments.gram
    product, length, square = (moves * gradients).sum(-1), (gradients**2).sum(-1), (moves**2).sum(-1)
    along = jnp.where(square > 0, product**2 / jnp.where(square > 0, square * length, 1), 0)
    return jnp.stack([moments.n * product / length, along], axis=-1)


def _collect(
    measure: Callable,
    predictors: dict,
    task: LinearRegression,
    sequences: int,
    seed: int,
    precision: Precision,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The residual variance of every sequence and what `measure` gives for every predictor."""

    def flat(found: Array) -> np.ndarray:
        return np.asarray(found, np.float64).reshape(-1, *found.shape[2:])[:sequences]

    with jax.enable_x64(check_precision(precision) == "float64"):
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        keys = jax.random.split(key, -(-sequences // _BLOCK))
        moments, ols, variance = _drawn(task, keys, precision)
        ready = {name: in_precision(each, precision) for name, each in predictors.items()}
        values = {name: flat(_measured(measure, each, moments, ols)) for name, each in ready.items()}
        return flat(variance), values


@eqx.filter_jit
def _drawn(task: LinearRegression, keys: Key[Array, "blocks"], precision: Precision):
    """Moments, the weights of least squares and rss / (n - dim) of a block of sequences for each key."""

    def one(moments: Moments):
        posterior = task.posterior(moments)
        ols = posterior.ridge(jnp.zeros_like(posterior.rss))
        return moments, ols, posterior.rss / (moments.n - moments.dim)

    def block(key):
        return jax.vmap(one)(task.sample_moments(key, _BLOCK, dtype=jnp.dtype(precision)))

    return jax.lax.map(block, keys)


@eqx.filter_jit
def _measured(measure: Callable, predictor, moments: Moments, ols: Float[Array, "blocks block dim"]):
    def one(moments, ols):
        return measure(implicit_paths([predictor], moments)[0], moments, ols)

    return jax.lax.map(lambda block: jax.vmap(one)(*block), (moments, ols))


def _binned(variance: np.ndarray, values: np.ndarray, bins: int) -> pl.DataFrame:
    """Means and standard errors of values in bins of equal counts by residual variance."""
    parts = np.array_split(np.argsort(variance, kind="stable"), bins)
    estimates = [Estimate.of(values[part]) for part in parts]
    return pl.DataFrame(
        {
            "bin": np.arange(bins),
            "residual_variance": [float(variance[part].mean()) for part in parts],
            "value": [each.value for each in estimates],
            "standard_error": [each.standard_error for each in estimates],
            "count": [len(part) for part in parts],
        }
    )
