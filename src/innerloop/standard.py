"""Data in anyone's units as a problem like those that a model was trained on, from first and second moments alone.

A model knows contexts of `n` examples with inputs N(0, I) and labels of mean square `energy`. Data of any units, number of
rows and correlations are brought there in four steps, none of which needs the rows:

1. inputs and labels are centred, which takes one of the rows: `m = rows - 1` remain;
2. inputs are scaled to unit variance and whitened by an estimate C of their population's correlation, as the model expects
   of a population. With few rows C is near I and nothing is whitened; with many it is the sample's own correlation. The
   share of I is that of Chen et al.'s oracle approximating shrinkage (2010), which needs second moments only;
3. labels are scaled to the mean square `energy`, whatever they explain: the size of labels in a model is always that of
   training, so its polynomials of the label energy stay where they were fitted;
4. if `m > n`, the m rows are replaced by n with the same least squares and the same noise variance of its weights. For
   weights w and noise sigma the m rows have the posterior mean (Sigma + sigma^2 I)^-1 alpha, and so do n rows with
   Sigma n / m, alpha n / m and sigma^2 n / m. Their residual sum of squares is what sigma^2 n / m leaves of n rows:
   rss / (m - r) * n / m * (n - r), r the rank. With m <= n the moments stay as they are: a shorter prompt.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np

_ROWS = 8192  # of a chunk: in cache, and the only copy
_DEPENDENT = 1e-10  # eigenvalues of the correlation below this share of the largest are rounding


@dataclass(frozen=True)
class Running:
    """Mean and scatter of the rows seen so far, in float64; two merge without loss (Chan, Golub and LeVeque 1983).

    These are the plain sums of products of (1, x, y), with the part that cancels left out.

    Attributes:
        count: how many rows.
        mean: `(k,)`; scatter: sum of products of deviations from it, `(k, k)`.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @staticmethod
    def of(X: np.ndarray, Y: np.ndarray) -> "Running":
        """Of the rows (x, y), X `(rows, d)` and Y `(rows, outputs)`, at least one."""
        starts = range(0, len(X), _ROWS)
        parts = (_of_chunk(X[first : first + _ROWS], Y[first : first + _ROWS]) for first in starts)
        return reduce(Running.__add__, parts)

    def __add__(self, other: "Running") -> "Running":
        count = self.count + other.count
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(gap, gap * (self.count * other.count / count))
        return Running(count, self.mean + gap * (other.count / count), scatter)

    @property
    def variance(self) -> np.ndarray:
        """Unbiased, `(k,)`; exactly zero where all that varies is rounding."""
        variance = self.scatter.diagonal() / max(self.count - 1, 1)
        rounding = self.count * np.finfo(float).eps
        return np.where(variance > (rounding * self.mean) ** 2, variance, 0.0)


@dataclass(frozen=True)
class Standard:
    """The problem as a model sees it, and the way back.

    Attributes:
        S: its moments, `(outputs, d + 1, d + 1)`.
        whiten: x becomes `(x - mean) @ whiten`, `(d, d)`.
        label_scale: y becomes `label_scale * (y - mean)`, `(outputs,)`; zero for constant labels.
        noise_ratio: variance of the noise in the data over that in `S`, in the units of `S`.
    """

    S: np.ndarray
    whiten: np.ndarray
    label_scale: np.ndarray
    noise_ratio: float

    @staticmethod
    def of(running: Running, dim: int, *, context: int, energy: float, edge: float) -> "Standard":
        """What `running`, whose first `dim` columns are the inputs, is to a model.

        Args:
            context: examples of a prompt in training, n.
            energy: mean square of labels in training.
            edge: the largest eigenvalue of S / context on inputs that the model is used to.
        """
        rows = running.count - 1
        variance = running.variance
        whiten = _whitening(running, dim)
        gram = whiten.T @ running.scatter[:dim, :dim] @ whiten
        largest = np.linalg.eigvalsh(gram)[-1] / max(rows, context)
        shrink = min(1.0, np.sqrt(edge / largest)) if largest > 0 else 1.0
        whiten, gram = whiten * shrink, gram * shrink**2
        spread = variance[dim:]
        scale = np.where(spread > 0, np.sqrt(energy / np.where(spread > 0, spread, 1.0)), 0.0)
        alpha = whiten.T @ running.scatter[:dim, dim:] * scale
        S = np.empty((len(scale), dim + 1, dim + 1))
        S[:, :dim, :dim] = gram
        S[:, :dim, dim] = S[:, dim, :dim] = alpha.T
        S[:, dim, dim] = running.scatter.diagonal()[dim:] * scale**2
        if rows > context:
            S = np.stack([_fewer(one, rows, context) for one in S])
        return Standard(S, whiten, scale, max(rows / context, 1.0))

    def weights(self, inner: np.ndarray) -> np.ndarray:
        """Weights `(.., outputs, d)` of the model's problem in the units of the data."""
        scale = self.label_scale[:, None]
        return np.where(scale > 0, inner @ self.whiten.T / np.where(scale > 0, scale, 1.0), 0.0)

    def noise(self, inner: np.ndarray) -> np.ndarray:
        """The sigma, in the units of y, whose ridge solution is nearest to the model's weights, `(outputs, d)`."""
        levels = [nearest_ridge(S, weights) for S, weights in zip(self.S, inner, strict=True)]
        scale = np.where(self.label_scale > 0, self.label_scale, np.inf)
        return np.sqrt(np.array(levels) * self.noise_ratio) / scale


def nearest_ridge(S: np.ndarray, weights: np.ndarray) -> float:
    """The penalty whose ridge solution `(Sigma + penalty I)^-1 alpha` is nearest to `weights`.

    From zero to 10^6 times the largest eigenvalue. The distance can have several minima: the best of a grid is refined.
    """
    values, vectors = np.linalg.eigh(S[:-1, :-1])
    if values[-1] <= 0:
        return 0.0
    along, wanted = vectors.T @ S[:-1, -1], vectors.T @ weights
    values = np.maximum(values, np.finfo(float).eps * values[-1])

    def distance(penalty: np.ndarray) -> np.ndarray:
        return ((along / (values + penalty[:, None]) - wanted) ** 2).sum(-1)

    grid = np.concatenate([[0.0], values[-1] * np.geomspace(1e-6, 1e6, 241)])
    for _ in range(6):
        best = int(np.argmin(distance(grid)))
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 33)
    return float(grid[np.argmin(distance(grid))])


def _of_chunk(X: np.ndarray, Y: np.ndarray) -> Running:
    rows = np.concatenate([X, Y], axis=1, dtype=float)
    mean = rows.mean(0)
    rows -= mean
    return Running(len(rows), mean, rows.T @ rows)


def _whitening(running: Running, dim: int) -> np.ndarray:
    """`(d, d)`: to unit variance, and whitened; columns of directions that do not vary are zero."""
    deviation = np.sqrt(running.variance[:dim])
    unit = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1.0), 0.0)
    rows = running.count - 1
    correlation = running.scatter[:dim, :dim] * np.outer(unit, unit) / max(rows, 1)
    share = _shrinkage(correlation, rows)
    values, vectors = np.linalg.eigh((1 - share) * correlation + share * np.eye(dim))
    spanned = values > _DEPENDENT * values[-1]
    roots = np.where(spanned, 1 / np.sqrt(np.where(spanned, values, 1.0)), 0.0)
    return unit[:, None] * (vectors * roots) @ vectors.T


def _shrinkage(correlation: np.ndarray, rows: int) -> float:
    """The share of I in the estimate of the population's correlation (Chen et al. 2010, equation 23)."""
    dim = len(correlation)
    trace, square = np.trace(correlation), (correlation**2).sum()
    spread = (rows + 1 - 2 / dim) * (square - trace**2 / dim)
    return float(min(1.0, ((1 - 2 / dim) * square + trace**2) / spread)) if spread > 0 else 1.0


def _fewer(S: np.ndarray, rows: int, context: int) -> np.ndarray:
    """Moments of `context` examples with the same least squares, and the noise that makes it as uncertain."""
    values, vectors = np.linalg.eigh(S[:-1, :-1])
    along = vectors.T @ S[:-1, -1]
    spanned = values > _DEPENDENT * values[-1]
    explained = (along[spanned] ** 2 / values[spanned]).sum()
    rank = int(spanned.sum())
    share = max(context - rank, 0) / max(rows - rank, 1)
    fewer = S * (context / rows)
    fewer[-1, -1] = (explained + share * max(S[-1, -1] - explained, 0.0)) * (context / rows)
    return fewer
