"""The paper's two fixed sets of sequences, bit for bit: noise-free linear regression in 5 dimensions, 10 points each."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

DIM, POINTS = 5, 10
POOL, TRAIN = 20_000, 16_000  # sequences, and how many of the first are for training
ANISOTROPIC = 1000
_SEED = 42
VARIANCES = (0.5, 1.0, 1.5, 1.0, 1.75)  # of the weights' coordinates in the anisotropic set


class Sequences(NamedTuple):
    """Regression sequences.

    Attributes:
        X: inputs, `(sequences, points, dim)`.
        y: labels <beta, x>, `(sequences, points)`.
        beta: weights, `(sequences, dim)`.
    """

    X: Float64[np.ndarray, "sequences points dim"]
    y: Float64[np.ndarray, "sequences points"]
    beta: Float64[np.ndarray, "sequences dim"]

    def split(self) -> tuple["Sequences", "Sequences"]:
        """The first 16 000 sequences, for training, and the rest, for testing."""
        return Sequences(*(a[:TRAIN] for a in self)), Sequences(*(a[TRAIN:] for a in self))


def pool() -> Sequences:
    """The 20 000 sequences of training and test, with inputs and weights from N(0, I)."""
    return _draw(POOL, np.ones(DIM))


def anisotropic() -> Sequences:
    """The 1000 sequences of the shifted test set: weights from N(0, diag(0.5, 1, 1.5, 1, 1.75)).

    Its recipe starts from the pool's seed, so its inputs are those of the pool's first 1000 sequences, which are trained
    on: the shift is one of the weights.
    """
    return _draw(ANISOTROPIC, np.sqrt(VARIANCES))


def _draw(sequences: int, scale: np.ndarray) -> Sequences:
    # The legacy generator: its stream is frozen, so the recipe gives these bits under every version of NumPy.
    random = np.random.RandomState(_SEED)
    X = random.standard_normal((sequences, POINTS, DIM))
    beta = random.standard_normal((sequences, DIM)) * scale
    # This form of the product does not call a BLAS, whose bits differ from one to the next.
    return Sequences(X, np.einsum("spd,sd->sp", X, beta), beta)
