"""How the eigenvalues of X X^T are distributed for standard normal inputs: exactly, as points of a quadrature.

They are those of a real Wishart matrix, whose joint density is a product of a weight of each and of all distances, a
Pfaffian point process. Its mean density needs no simulation: with functions phi_j, which are polynomials times the weight,
and their signed integrals `eps phi_j`, it is `sum_jk A_kj phi_j eps phi_k`, with A the inverse of the matrix of
`int phi_j eps phi_k` (de Bruijn 1955; Mehta, Random Matrices, 3rd ed., chapters 5 and 14).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre

_PANELS, _ORDER = 48, 24  # of Gauss-Legendre
_BEYOND = 9.0  # in units of the square root: beyond lies less than 1e-30 of all
MOST = 128
"""Of the smaller of dim and context, to which the polynomials are accurate."""


class Eigenvalues(NamedTuple):
    """The nonzero eigenvalues of X X^T / n, as a quadrature: `counts @ f(values)` is the mean of their sum of f.

    Attributes:
        values: increasing, `(points,)`.
        counts: how many of a sequence's eigenvalues each stands for; together as many as its rank.
    """

    values: Float[np.ndarray, "points"]
    counts: Float[np.ndarray, "points"]

    def inner(self, tail: float) -> "Eigenvalues":
        """Without the smallest and the largest, of which there are fewer than `tail` in a sequence, at either end."""
        below, above = self.counts.cumsum(), self.counts[::-1].cumsum()[::-1]
        kept = (below > tail) & (above > tail)
        return Eigenvalues(self.values[kept], self.counts[kept])

    def beyond(self, value: float) -> float:
        """How many eigenvalues larger than `value` a sequence has in the mean."""
        return float(self.counts[self.values > value].sum())


@lru_cache(maxsize=8)
def wishart_eigenvalues(dim: int, context: int) -> Eigenvalues:
    """Of X X^T / n, with X `(dim, context)` of independent standard normal numbers and n the context length.

    Raises:
        ValueError: both `dim` and `context` are above 128.
    """
    rank, degrees = sorted((dim, context))
    if rank > MOST:
        raise ValueError(f"the smaller of dim and context must be at most {MOST}, got {rank}")
    roots, steps, integrals = _panels(rank, degrees)
    phi = _functions(rank, degrees, roots)  # (rank, panels, order), of the roots of the eigenvalues
    parts = (phi * steps).sum(-1)
    before = parts.cumsum(-1) - parts
    eps = before[..., None] + np.einsum("pij,kpj->kpi", integrals, phi) - parts.sum(-1)[:, None, None] / 2
    phi, eps, steps = phi.reshape(rank, -1), eps.reshape(rank, -1), steps.ravel()
    gram = (phi * steps) @ eps.T
    gram = (gram - gram.T) / 2
    if rank % 2:  # bordered by the integrals
        border = phi @ steps
        gram = np.block([[gram, border[:, None]], [-border[None, :], np.zeros((1, 1))]])
        phi, eps = np.vstack([phi, np.zeros_like(steps)]), np.vstack([eps, np.ones_like(steps)])
    density = np.einsum("jx,jx->x", phi, np.linalg.solve(gram.T, eps))
    return Eigenvalues(roots.ravel() ** 2 / context, np.maximum(density, 0) * steps)


def _panels(
    rank: int, degrees: int
) -> tuple[
    Float[np.ndarray, "panels order"],
    Float[np.ndarray, "panels order"],
    Float[np.ndarray, "panels order order"],
]:
    """Points, weights, and the matrices that integrate from a panel's left end to each of its points."""
    middle, spread = np.sqrt(degrees), np.sqrt(rank) + _BEYOND
    edges = np.linspace(max(0.0, middle - spread), middle + spread, _PANELS + 1)
    points, weights = legendre.leggauss(_ORDER)
    half = np.diff(edges)[:, None] / 2
    integrated = legendre.legval(points, legendre.legint(np.eye(_ORDER), lbnd=-1)).T
    integrals = integrated @ np.linalg.inv(legendre.legvander(points, _ORDER - 1))
    return edges[:-1, None] + half * (1 + points), half * weights, half[..., None] * integrals


def _functions(
    rank: int, degrees: int, roots: Float[np.ndarray, "panels order"]
) -> Float[np.ndarray, "rank panels order"]:
    """Laguerre polynomials, nearly orthonormal with the squared weight, times the weight, as densities of the root."""
    power = degrees - rank - 1  # twice the weight's
    family, x = max(power, 0), roots**2
    first = 2 * np.exp(
        (power + 1) * np.log(roots) - (x + math.lgamma(family + 1)) / 2
    )  # with d x = 2 root d root
    found = [np.zeros_like(x), first]
    for degree in range(rank - 1):
        before, last = (np.sqrt(each * (each + family)) for each in (degree, degree + 1))
        found.append(((2 * degree + 1 + family - x) * found[-1] - before * found[-2]) / last)
    return np.stack(found[1:])
