"""Lemmas 4.3 and 4.4 in NumPy: the implicit model's recursion, and gradient descent with momentum on the examples.

Arrays have a leading axis of sequences. `context` is `(sequences, n, D)`, `query` is `(sequences, dim)`; results are tokens
`(sequences, layers + 1, n + 1, D)`, the query last.
"""

from typing import NamedTuple

import numpy as np


class _State(NamedTuple):
    """The implicit model of every sequence: `(k, d, d)`, `(k, d)`, `(k, d)` and `(k,)`."""

    M: np.ndarray
    u: np.ndarray
    w: np.ndarray
    a: np.ndarray

    @classmethod
    def start(cls, sequences: int, dim: int) -> "_State":
        zero = np.zeros((sequences, dim))
        return cls(np.broadcast_to(np.eye(dim), (sequences, dim, dim)), zero, zero, np.ones(sequences))

    def tokens(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(M x + y u, a y - <w, x>) of `(k, m, d)` inputs and `(k, m)` labels."""
        moved = np.einsum("kij,kmj->kmi", self.M, x) + y[:, :, None] * self.u[:, None]
        residual = self.a[:, None] * y - np.einsum("ki,kmi->km", self.w, x)
        return np.concatenate([moved, residual[:, :, None]], axis=-1)


def recursion_tokens(P: np.ndarray, Q: np.ndarray, context: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Tokens after every layer by Lemma 4.3, from P and Q `(layers, heads, D, D)` and the context's statistics."""
    S = context.swapaxes(1, 2) @ context
    state = _State.start(len(context), query.shape[-1])
    x, y = _all_tokens(context, query)
    states = [state.tokens(x, y)]
    # A model that blows up overflows here as it does itself.
    with np.errstate(invalid="ignore", over="ignore"):
        for p, q in zip(P, Q, strict=True):
            state = _next_by_recursion(p, q, S, state)
            states.append(state.tokens(x, y))
    return np.stack(states, axis=1)


def _next_by_recursion(p: np.ndarray, q: np.ndarray, S: np.ndarray, state: _State) -> _State:
    M, u, w, a = state
    gram, alpha, lam = S[:, :-1, :-1], S[:, :-1, -1], S[:, -1, -1]
    seen = _apply(M, alpha)
    shrunk = _apply(gram, w)
    explained = _dot(alpha, w)
    gram_l = (
        M @ gram @ M.swapaxes(1, 2) + _outer(seen, u) + _outer(u, seen) + lam[:, None, None] * _outer(u, u)
    )
    alpha_l = _apply(M, a[:, None] * alpha - shrunk) + (a * lam - explained)[:, None] * u
    lam_l = a**2 * lam - 2 * a * explained + _dot(w, shrunk)
    moved = np.concatenate([gram_l, alpha_l[:, :, None]], axis=2)
    below = np.concatenate([alpha_l, lam_l[:, None]], axis=1)
    S_l = np.concatenate([moved, below[:, None]], axis=1)
    A = np.eye(S.shape[-1]) + sum(p_k @ S_l @ q_k for p_k, q_k in zip(p, q, strict=True))
    B, b, c, k = A[:, :-1, :-1], A[:, :-1, -1], A[:, -1, :-1], A[:, -1, -1]
    return _State(
        M=B @ M - _outer(b, w),
        u=_apply(B, u) + a[:, None] * b,
        w=k[:, None] * w - _apply(M.swapaxes(1, 2), c),
        a=k * a + _dot(c, u),
    )


def descent_tokens(flows: np.ndarray, context: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Moved inputs and residuals at every step of gradient descent with momentum (Lemma 4.4), flows `(layers, 2, 2)`."""
    state = _State.start(len(context), query.shape[-1])
    x, y = _all_tokens(context, query)
    states = [state.tokens(x, y)]
    with np.errstate(invalid="ignore", over="ignore"):
        for (w_xx, w_xy), (w_yx, w_yy) in flows:
            M, u, w, a = state
            moved, residual = states[-1][:, :-1, :-1], states[-1][:, :-1, -1]  # the query is not an example
            gradient = np.einsum("kn,kni->ki", residual, context[..., :-1])  # g
            along_labels = _dot(residual, context[..., -1])  # h
            direction = _apply(M, gradient) + along_labels[:, None] * u
            energy = _dot(residual, residual)  # 2 R
            state = _State(
                M=M
                + w_xx * np.einsum("kni,knj,kjl->kil", moved, moved, M, optimize=True)
                - w_xy * _outer(direction, w),
                u=u
                + w_xx * np.einsum("kni,knj,kj->ki", moved, moved, u, optimize=True)
                + w_xy * a[:, None] * direction,
                w=w - w_yx * _apply(M.swapaxes(1, 2), direction) + w_yy * energy[:, None] * w,
                a=a + w_yx * _dot(direction, u) + w_yy * energy * a,
            )
            states.append(state.tokens(x, y))
    return np.stack(states, axis=1)


def _all_tokens(context: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of the examples and the query, whose label is zero."""
    x = np.concatenate([context[..., :-1], query[:, None]], axis=1)
    return x, np.pad(context[..., -1], ((0, 0), (0, 1)))


def _apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.einsum("kij,kj->ki", matrix, vector)


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left[:, :, None] * right[:, None, :]


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ki,ki->k", left, right)
