"""The `DIAG` nearest to a `FULL` model: the four flows that best explain how each layer moves its tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.evaluation.losses import in_precision
from innerloop.models.linear import Blockwise, Diag, LinearTransformer
from innerloop.tasks import LinearRegression

_STREAM = 13
_SEQUENCES = 4096


def typical_moments(
    model: LinearTransformer, task: LinearRegression, *, sequences: int = _SEQUENCES, seed: int = 0
) -> Float[np.ndarray, "layers sequences D D"]:
    """S as every layer finds it, in float64; sequences on which the model is not finite are left out."""
    P, Q = _matrices(model)
    found = [_contexts(task, sequences, seed)]
    with np.errstate(over="ignore", invalid="ignore"):
        for p, q in zip(P[:-1], Q[:-1], strict=True):
            A = np.eye(model.dim + 1) + _increments(p, q, found[-1])
            found.append(A @ found[-1] @ A.swapaxes(1, 2))
    every = np.stack(found)
    return every[:, np.isfinite(every).all(axis=(0, 2, 3))]


def nearest_diag(
    model: LinearTransformer, task: LinearRegression, *, seed: int = 0
) -> tuple[Diag, Float[np.ndarray, "layers 2"]]:
    """The `DIAG` whose layers move tokens most nearly as the model's own do, and the share of the moves that it explains.

    A layer moves token e by B e with B = sum_k P_k S Q_k. Its x part is fitted by `w_xx Sigma x + w_xy y alpha` and its y
    part by `w_yx <alpha, x> + w_yy lam y`: least squares over the context's tokens, each sequence divided by its own sum of
    squared moves. What is left, averaged over sequences, is one minus the share. Every layer sees S as the model itself
    leaves it, so the errors of the layers do not add up in the fit; how they do when the `DIAG` runs, its loss says.

    Returns:
        The model, and the shares for x and for y, 1 for a `DIAG` in dense form.

    Raises:
        ValueError: the model is of another dimension than the task, or is not finite on any sequence.
    """
    if isinstance(model, Blockwise):
        with jax.enable_x64(True):
            return in_precision(model, "float64").freed(), np.ones((model.layers, 2))
    moments = typical_moments(model, task, seed=seed)
    if not moments.shape[1]:
        raise ValueError("the model is not finite on any sequence of the task, so it has no nearest DIAG")
    fits = [_fitted(p, q, S) for p, q, S in zip(*_matrices(model), moments, strict=True)]
    flows = np.array([[x.flows, y.flows] for x, y in fits])
    with jax.enable_x64(True):
        found = LinearTransformer.from_flows(flows, model.dim)
    return found, np.array([[x.explained, y.explained] for x, y in fits])


def _matrices(model: LinearTransformer) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64(True):
        P, Q = in_precision(model, "float64").matrices()
        return np.asarray(P), np.asarray(Q)


def _contexts(task: LinearRegression, sequences: int, seed: int) -> np.ndarray:
    with jax.enable_x64(True):
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        return np.asarray(_drawn(task, key, sequences))


@eqx.filter_jit
def _drawn(task: LinearRegression, key: PRNGKeyArray, sequences: int) -> Float[Array, "N D D"]:
    return task.sample_moments(key, sequences, dtype=jnp.float64).S


def _increments(p: np.ndarray, q: np.ndarray, S: np.ndarray) -> np.ndarray:
    """sum_k P_k S Q_k of every sequence, with P and Q `(heads, D, D)`."""
    return np.einsum("hij,kjl,hlm->kim", p, S, q, optimize=True)


class _Fit:
    """Least squares of the moves B e by F_1 e and F_2 e over the tokens e; matrices are `(sequences, rows, D)`."""

    def __init__(self, B: np.ndarray, F: tuple[np.ndarray, np.ndarray], S: np.ndarray):
        def inner(left, right):
            return np.einsum("kri,kij,krj->k", left, S, right, optimize=True)

        total = inner(B, B)
        moved = total > 0
        weight = np.where(moved, 1 / np.where(moved, total, 1), 0) / max(moved.sum(), 1)
        gram = np.array([[weight @ inner(one, other) for other in F] for one in F])
        product = np.array([weight @ inner(one, B) for one in F])
        self.flows = np.linalg.lstsq(gram, product, rcond=None)[0]
        self.explained = float(self.flows @ product) if moved.any() else 1.0


def _fitted(p: np.ndarray, q: np.ndarray, S: np.ndarray) -> tuple[_Fit, _Fit]:
    """The fits of one layer's x rows and of its y row, with P and Q `(heads, D, D)`."""
    B = _increments(p, q, S)
    of_x, of_y = np.zeros_like(S), np.zeros_like(S)
    of_x[:, :, :-1], of_y[:, :, -1] = S[:, :, :-1], S[:, :, -1]
    return (
        _Fit(B[:, :-1], (of_x[:, :-1], of_y[:, :-1]), S),
        _Fit(B[:, -1:], (of_x[:, -1:], of_y[:, -1:]), S),
    )
