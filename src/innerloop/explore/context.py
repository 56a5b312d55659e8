"""One context in NumPy: what least squares, ridge and Bayes say of it, and a model after every layer.

A page asks for this at every move of the mouse, with n and dim as the user likes them. Nothing here is compiled, so a new
size costs no more than the old one. Tests hold it against the library's own forms, `Posterior` and `implicit_weights`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from innerloop.tasks import LinearRegression
from innerloop.tasks.noise import NoiseLaw
from innerloop.tasks.posterior import nodes

Layer = Callable[[np.ndarray], np.ndarray]  # S -> A - I, the sum of P S Q over the heads


@dataclass(frozen=True)
class Drawn:
    """Labelled examples, x `(n, dim)` and y `(n,)`, and the weights `(dim,)` that made them."""

    x: Float[np.ndarray, "n dim"]
    y: Float[np.ndarray, "n"]
    weights: Float[np.ndarray, "dim"]


def draw(task: LinearRegression, n: int, dim: int, sigma: float, seed: int) -> Drawn:
    """A context of `n` examples in `dim` features, by the task's law of weights and inputs where the sizes agree.

    Weights, inputs and noise have streams of their own: another sigma or n leaves the rest as it was.
    """
    weights, x, noise = (np.random.default_rng([seed, stream]) for stream in range(3))
    input_root, weight_root = _roots(task, dim)
    w = weight_root @ weights.standard_normal(dim)
    inputs = x.standard_normal((n, dim)) @ input_root.T
    return Drawn(inputs, inputs @ w + sigma * noise.standard_normal(n), w)


def references(
    task: LinearRegression, x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "n"], sigma: float
) -> dict[str, Float[np.ndarray, "dim"]]:
    """The weights by least squares (`ols`), by ridge with the true `sigma` (`ridge`), and E[w | X, y] (`bayes`)."""
    _, root = _roots(task, x.shape[1])
    inputs = x @ root  # in terms of u with w = R u and u ~ N(0, I)
    lam, vectors = np.linalg.eigh(inputs.T @ inputs)
    n, dim = x.shape
    rounding = dim * np.finfo(float).eps * lam[-1]
    spanned = (np.arange(dim) >= dim - n) & (lam > rounding)
    lam, a = np.where(spanned, lam, 0), np.where(spanned, vectors.T @ (inputs.T @ y), 0)

    def ridge(variance: np.ndarray) -> np.ndarray:
        """Coefficients in the eigenbasis, one row a variance."""
        total = np.where(spanned, lam + variance[:, None], 1)
        return np.where(spanned, a / total, 0)

    levels, probability = _noise_levels(task, y, lam, a, n)
    ols, known = ridge(np.array([0.0, sigma**2]))
    found = {"ols": ols, "ridge": known, "bayes": probability @ ridge(levels**2)}
    return {name: root @ vectors @ coefficients for name, coefficients in found.items()}


def _noise_levels(task: LinearRegression, y, lam, a, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels of sigma and their probabilities given the data, as `Posterior.noise_levels` has them."""
    levels, weights = _nodes(task.noise, n)
    if len(levels) == 1:
        return levels, np.ones(1)
    spanned = lam > 0
    known = np.where(spanned, lam, 1)
    rss = max(y @ y - (a**2 / known).sum(), 0.0) if n > len(lam) else 0.0
    variance = np.maximum(levels**2, np.finfo(float).eps * (lam.mean() + 1))
    total = np.where(spanned, known + variance[:, None], 1)
    minus_two_log = (
        np.log(total).sum(-1)
        + (n - min(n, len(lam))) * np.log(variance)
        + rss / variance
        + (a**2 / (known * total)).sum(-1)
    )
    log = np.log(weights) - minus_two_log / 2
    probability = np.exp(log - log.max())
    return levels, probability / probability.sum()


@lru_cache(maxsize=256)
def _nodes(noise: NoiseLaw, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels of sigma and their weights; finding those of a continuous law takes longer than all the rest."""
    levels, weights = nodes(noise, n)
    return np.asarray(levels, float), np.asarray(weights, float)


def layers_of_flows(flows: Float[np.ndarray, "layers 2 2"]) -> list[Layer]:
    """The layers of a `DIAG`, for contexts of any dim: each scales the four blocks of S by its flows."""

    def layer(own: np.ndarray) -> Layer:
        def increment(S: np.ndarray) -> np.ndarray:
            block = (np.arange(len(S)) == len(S) - 1).astype(int)
            return own[block[:, None], block[None, :]] * S

        return increment

    return [layer(own) for own in flows]


def layers_of_matrices(
    P: Float[np.ndarray, "layers heads D D"], Q: Float[np.ndarray, "layers heads D D"]
) -> list[Layer]:
    """The layers of a model given by its matrices."""

    def layer(p: np.ndarray, q: np.ndarray) -> Layer:
        return lambda S: (p @ S @ q).sum(0)

    return [layer(p, q) for p, q in zip(P, Q, strict=True)]


def implicit_path(
    layers: Sequence[Layer], x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "depths dim"]:
    """The implicit weights after 0, 1, .. layers: S <- A S A^T, T <- A T, and w is minus the last row of T.

    A model whose numbers were moved far may leave the range of numbers; what it says then is not finite.
    """
    tokens = np.concatenate([x, y[:, None]], axis=1)
    S, T = tokens.T @ tokens, np.eye(tokens.shape[1])
    path = [T[-1, :-1]]
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in layers:
            A = np.eye(len(S)) + layer(S)
            S, T = A @ S @ A.T, A @ T
            path.append(-T[-1, :-1])
    return np.stack(path)


def distances(
    path: Float[np.ndarray, "depths dim"], weights: Float[np.ndarray, "dim"]
) -> Float[np.ndarray, "depths"]:
    """The Euclidean distance of the weights after every layer from `weights`."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.linalg.norm(path - weights, axis=1)


def _roots(task: LinearRegression, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of the covariances of inputs and of weights; a task that states them has one dim only."""
    given = (task.input_root, task.weight_root)
    return tuple(np.eye(dim) if root is None else np.asarray(root) for root in given)  # type: ignore[return-value]
