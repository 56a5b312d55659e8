"""A linear transformer by its definition: layer by layer, every token attends to every context token."""

import numpy as np


def tokens_after_layers(P: np.ndarray, Q: np.ndarray, context: np.ndarray, others: np.ndarray) -> np.ndarray:
    """All tokens after 0, 1, .. layers, `(layers + 1, n + m, D)`, in the paper's convention.

    Args:
        P, Q: `(layers, heads, D, D)`.
        context: the tokens (x_i, y_i) that are attended to, `(n, D)`.
        others: tokens that attend but are not attended to, `(m, D)`: queries, or a basis.
    """
    n = len(context)
    tokens = np.concatenate([context, others])
    states = [tokens]
    for layer in range(len(P)):
        attended = tokens[:n]
        moved = []
        for token in tokens:
            update = np.zeros_like(token)
            for p, q in zip(P[layer], Q[layer], strict=True):
                scores = attended @ (q @ token)  # <e_j, Q e_i>, one a context token
                update = update + p @ (scores @ attended)  # P sum_j e_j <e_j, Q e_i>
            moved.append(token + update)
        tokens = np.stack(moved)
        states.append(tokens)
    return np.stack(states)


def implicit_weights(P: np.ndarray, Q: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Minus the y coordinate of the unit queries after 0, 1, .. layers, `(layers + 1, dim)`."""
    n, size = context.shape
    return -tokens_after_layers(P, Q, context, np.eye(size)[:-1])[:, n:, -1]
