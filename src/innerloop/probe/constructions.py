"""Theorems 5.1 and 5.2 of Vladymyrov et al. (2024): two models written down by hand, and how well they do."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float

from innerloop.evaluation.losses import Estimate, in_precision
from innerloop.models.linear import Diag, LinearTransformer
from innerloop.predictors.base import finite_number, whole_number
from innerloop.probe.check import Check, worst
from innerloop.tasks import Categorical, LinearRegression
from innerloop.types import Moments

_STREAM = 11
_RESOLUTION = 1e-14  # of an error, per unit of the condition number, after the layers' rounding in float64
CONDITIONS = (10.0, 1e2, 1e3, 1e4, 1e5, 1e6)
ERRORS = (1e-1, 1e-2, 1e-4, 1e-8)
CONTEXTS = (100, 1000, 10_000, 100_000, 1_000_000)
RATE = -0.9  # of a claimed -1: room for the next order and for sampling error


def gd_plus_plus_solver(dim: int, layers: int, *, largest: float = 1.0) -> Diag:
    """The model of Theorem 5.1: `layers - 1` layers of GD++ that flatten Sigma's spectrum, then one gradient step.

    Each layer has `w_xx = -1 / (3 nu)`, nu the largest eigenvalue of its Sigma, which it makes `4 nu / 9`; the last has
    `w_yx = -1 / nu`. Solves `Sigma w = alpha` (see `check_linear_solver`).

    Args:
        dim, layers: sizes, >= 1.
        largest: the largest eigenvalue of Sigma, or a bound on it; > 0.

    Raises:
        ValueError: a value is out of range.
    """
    flows = np.zeros((whole_number("layers", layers, at_least=1), 2, 2))
    nu = finite_number("largest", largest, above=0)
    for layer in range(layers - 1):
        flows[layer, 0, 0] = -1 / (3 * nu)
        nu *= 4 / 9
    flows[-1, 1, 0] = -1 / nu
    return LinearTransformer.from_flows(flows, dim)


def layers_to_solve(condition: float, error: float) -> int:
    """The layers that suffice by Theorem 5.1 with its constants, the final gradient step included.

    `ceil(log(condition / 2) / log(25/16)) + ceil(log2 log2 (1 / error)) + 1`, each part >= 0: see `check_linear_solver`.

    Raises:
        ValueError: the condition number is less than 1, or the error is not in (0, 1).
    """
    finite_number("condition", condition, at_least=1)
    finite_number("error", error, above=0, below=1)
    grow = max(0, math.ceil(math.log(condition / 2) / math.log(25 / 16)))
    square = max(0, math.ceil(math.log2(max(1.0, math.log2(1 / error)))))
    return grow + square + 1


def check_linear_solver(
    *,
    build: Callable[[int, int], LinearTransformer] = gd_plus_plus_solver,
    dim: int = 10,
    conditions: Sequence[float] = CONDITIONS,
    errors: Sequence[float] = ERRORS,
    seed: int = 0,
) -> Check:
    """Theorem 5.1: GD++ solves `Sigma w = alpha` to relative error eps in O(log kappa + log log 1/eps) layers.

    A layer with w_xx = -1 / (3 nu), nu the largest eigenvalue of Sigma, moves every eigenvalue `nu t` to
    `nu t (1 - t/3)^2`, and the largest to 4 nu / 9: relative to the largest,

        t' = t (3 - t)^2 / 4        (with x^2 = t the Newton-Schulz iteration x' = x (3 - x^2) / 2)

    which rises on [0, 1] and so keeps order. While t <= 1/2 it grows by at least 25/16 a layer (by 9/4 where t is small);
    with t = 1 - delta, `delta' = (3 delta^2 + delta^3) / 4 <= delta^2`. From t = 1 / kappa this takes
    log(kappa / 2) / log(25/16) layers to delta <= 1/2, and log2 log2 (1 / eps) more to delta <= eps. A step
    w_yx = -1 / nu then gives `w_hat = M^T M alpha / nu = (Sigma_l / nu) Sigma^{-1} alpha`, whose relative error in an
    eigendirection is its delta. This proves the theorem with the constants of `layers_to_solve`.

    Measured in float64: the first depth at which `|w_hat - w| <= eps |w|` for every w, on matrices with eigenvalues spread
    evenly on a logarithmic scale between 1 / kappa and 1 in a random basis, as a share of `layers_to_solve`.

    Args:
        build: from dim and layers to the model for matrices of largest eigenvalue 1.
        conditions, errors: kappa >= 1 and eps in (0, 1) to try, eps at least 1e-14 kappa, which rounding hides.

    Returns:
        Data with columns condition, error, layers (infinite if more than `sufficient`), sufficient, reached: the error at
        that depth, or at the last.

    Raises:
        ValueError: a value is out of range.
    """
    _check_grid(conditions, errors)
    dim = whole_number("dim", dim, at_least=2)
    deepest = max(layers_to_solve(kappa, eps) for kappa in conditions for eps in errors)
    with jax.enable_x64(True):
        models = [_padded(build(dim, layers), deepest) for layers in range(1, deepest + 1)]
        reached = np.stack([_relative_errors(models, _problems(dim, kappa, seed)) for kappa in conditions])
    rows = []
    for kappa, path in zip(conditions, reached, strict=True):
        for eps in errors:
            sufficient = layers_to_solve(kappa, eps)
            enough = np.flatnonzero(path[:sufficient] <= eps)
            layers = int(enough[0]) + 1 if len(enough) else sufficient
            rows.append(
                {
                    "condition": float(kappa),
                    "error": float(eps),
                    "layers": float(layers) if len(enough) else math.inf,
                    "sufficient": sufficient,
                    "reached": float(path[layers - 1]),
                }
            )
    data = pl.DataFrame(rows)
    return Check(
        name="Theorem 5.1",
        claim="the layers needed are at most those that the theorem says suffice (largest ratio)",
        measured=worst(data["layers"] / data["sufficient"]),
        bound=1.0,
        data=data,
    )


def _check_grid(conditions: Sequence[float], errors: Sequence[float]) -> None:
    for kappa in conditions:
        finite_number("a condition", kappa, at_least=1)
    for eps in errors:
        finite_number("an error", eps, above=0, below=1)
    if not len(conditions) or not len(errors):
        raise ValueError("conditions and errors must not be empty")
    if min(errors) < _RESOLUTION * max(conditions):
        raise ValueError(
            f"errors must be at least {_RESOLUTION:g} times the condition number, which float64 resolves, "
            f"got error {min(errors):g} with condition {max(conditions):g}"
        )


def _problems(dim: int, condition: float, seed: int) -> Moments:
    """Noise-free moments of one Sigma and `dim` weights, the unit vectors: `(dim, D, D)`."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
    gram = (basis * np.geomspace(1 / condition, 1, dim)) @ basis.T
    S = np.zeros((dim, dim + 1, dim + 1))
    S[:, :-1, :-1] = gram
    S[:, :-1, -1] = S[:, -1, :-1] = gram  # alpha of the k-th weights is the k-th column
    S[:, -1, -1] = np.diag(gram)
    return Moments(S=jnp.asarray(S), n=dim)


def _padded(model: LinearTransformer, layers: int) -> LinearTransformer:
    """The same function with idle layers after it, so that models of all depths run as one program."""

    def pad(leaf):
        leaf = np.asarray(leaf, np.float64)
        return np.concatenate([leaf, np.zeros((layers - len(leaf), *leaf.shape[1:]))])

    return jax.tree.map(pad, model)


def _relative_errors(models: list[LinearTransformer], problems: Moments) -> np.ndarray:
    """The largest `|w_hat - w| / |w|` over all w, for every model: the norm of w -> w_hat - w."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    solved = np.asarray(_solutions(stacked, problems))  # (models, problems, dim)
    off = solved - np.eye(solved.shape[-1])
    finite = np.isfinite(off).all(axis=(1, 2), keepdims=True)
    norms = np.linalg.norm(np.where(finite, off, 0), 2, axis=(1, 2))
    return np.where(finite.ravel(), norms, np.inf)


@eqx.filter_jit
def _solutions(models, problems: Moments) -> Float[Array, "models problems dim"]:
    return jax.lax.map(lambda model: model.final_weights(problems), models)


def two_level_ridge(dim: int, context: int, low: float, high: float) -> Diag:
    """The model of Theorem 5.2: two layers that tell two noise levels apart and shrink as ridge does.

    For `x ~ N(0, I/n)`: `w_yx = -(1 + s + t) / ((1 + s) (1 + t))` in the first layer, `w_yy = -1 / (n (1 + s + t))` in
    the second, nothing else, with variances s = low^2 and t = high^2 (see `check_two_levels`).

    Raises:
        ValueError: a size is not a whole number >= 1, or not 0 <= low < high.
    """
    n = whole_number("context", context, at_least=1)
    s = finite_number("low", low, at_least=0) ** 2
    t = finite_number("high", high, above=low) ** 2
    flows = np.zeros((2, 2, 2))
    flows[0, 1, 0] = -(1 + s + t) / ((1 + s) * (1 + t))
    flows[1, 1, 1] = -1 / (n * (1 + s + t))
    return LinearTransformer.from_flows(flows, dim)


def two_level_limit(dim: int, low: float, high: float) -> float:
    """n times the loss of `two_level_ridge` for n to infinity: see `check_two_levels`."""
    s, t = low**2, high**2
    loss = [
        dim * (1 + v) / 2 * ((dim + 1) / (1 + v) ** 4 + 2 * v**2 / ((1 + s) * (1 + t)) ** 2) for v in (s, t)
    ]
    return sum(loss) / 2


def check_two_levels(
    *,
    build: Callable[[int, int, float, float], LinearTransformer] = two_level_ridge,
    dim: int = 10,
    low: float = 1.0,
    high: float = 3.0,
    contexts: Sequence[int] = CONTEXTS,
    sequences: int = 4096,
    seed: int = 0,
) -> Check:
    """Theorem 5.2: for x ~ N(0, I/n) and sigma in {low, high}, two layers reach ridge with the true sigma as n grows.

    Here Sigma = I + E with E of order 1 / sqrt(n), so with v = sigma^2 ridge tends to `alpha / (1 + v)`. The first layer's
    w_yx = -eta gives w = eta alpha and leaves residuals of energy `lam_1 = n v + O(sqrt(n))`: the second layer reads the
    noise level off them. Its w_yy = c / n gives

        w_hat = (1 + c lam_1 / n) eta alpha -> (1 + c v) eta alpha

    which must be alpha / (1 + v) at both levels. A straight line through two points: with s = low^2 and t = high^2,
    eta c = -1 / ((1 + s)(1 + t)) and eta = (1 + s + t) / ((1 + s)(1 + t)). No other flow is needed; w_yy depends on n, and
    a third level would not lie on the line. To the next order

        w_hat - w_sigma = E alpha / (1 + v)^2 + eta c v sqrt(2/n) zeta alpha

    with zeta standard normal, `E[E^2] = (dim + 1) I / n` and `E |alpha|^2 = dim (1 + v)`, so

        1/2 E |w_hat - w_sigma|^2 -> 1/n * dim (1 + v) / 2 * [ (dim + 1) / (1 + v)^4 + 2 v^2 (eta c)^2 ]

    averaged over both v (`two_level_limit`). The loss is in weights: with queries as small as these inputs every bounded
    predictor's squared error vanishes like 1 / n, and the claim would be empty.

    Measured: the slope of the loss over the last two contexts, both axes logarithmic; -1 is expected.

    Args:
        build: from dim, context, low and high to the model.
        contexts: at least two context lengths, rising.
        sequences: how many at each length.

    Returns:
        Data with columns context, value, standard_error, limit (`two_level_limit / n`), ratio, rate (from the context
        before).

    Raises:
        ValueError: a value is out of range.
    """
    contexts = [whole_number("a context", n, at_least=1) for n in contexts]
    if len(contexts) < 2 or sorted(set(contexts)) != contexts:
        raise ValueError(f"contexts must be at least two whole numbers, rising, got {contexts}")
    whole_number("sequences", sequences, at_least=2)
    finite_number("high", high, above=finite_number("low", low, at_least=0))
    limit = two_level_limit(whole_number("dim", dim, at_least=1), low, high)
    noise = Categorical(low, high)
    rows: list[dict] = []
    with jax.enable_x64(True):
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        for n in contexts:
            task = LinearRegression(dim, n, noise, input_covariance=np.eye(dim) / n)
            moments = task.sample_moments(key, sequences, dtype=jnp.float64)
            losses = _distances_to_ridge(in_precision(build(dim, n, low, high), "float64"), moments)
            found, expected = Estimate.of(losses), limit / n
            rate = _slope(rows[-1], n, found.value) if rows else None
            rows.append(
                {
                    "context": n,
                    "value": found.value,
                    "standard_error": found.standard_error,
                    "limit": expected,
                    "ratio": found.value / expected,
                    "rate": rate,
                }
            )
    return Check(
        name="Theorem 5.2",
        claim="the loss against ridge with the true noise level falls like 1 / n (slope on logarithmic axes)",
        measured=rows[-1]["rate"],
        bound=RATE,
        data=pl.DataFrame(rows),
    )


def _slope(before: dict, n: int, value: float) -> float:
    """d log(value) / d log(n) from the row before; not finite where a model blows up."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.log(value / before["value"]) / np.log(n / before["context"]))


def _distances_to_ridge(model: LinearTransformer, moments: Moments) -> np.ndarray:
    """`1/2 |w_hat - w_sigma|^2` of every sequence."""
    assert moments.sigma is not None  # the sampler says it
    gram, alpha = np.asarray(moments.gram), np.asarray(moments.correlation)
    penalty = np.asarray(moments.sigma)[:, None, None] ** 2 * np.eye(moments.dim)
    ridge = np.linalg.solve(gram + penalty, alpha[:, :, None])[:, :, 0]
    return 0.5 * ((np.asarray(model.final_weights(moments)) - ridge) ** 2).sum(-1)
