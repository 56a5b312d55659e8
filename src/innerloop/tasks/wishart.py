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

_PANELS, _ORDER = 48, 24  # of Gauss-Legendre, between the tails
_BEYOND = 9.0  # in units of the square root: beyond lies less than 1e-27 of all

LARGEST_RANK = 200
"""Of X, for which the density is right to rounding."""


class Eigenvalues(NamedTuple):
    """The nonzero eigenvalues of X X^T / n, as a quadrature: `counts @ f(values)` is the mean of their sum of f.

    Attributes:
        values: increasing, `(points,)`.
        counts: how many of a sequence's eigenvalues each stands for in the mean, `(points,)`.
    """

    values: Float[np.ndarray, "points"]
    counts: Float[np.ndarray, "points"]


class _Density(NamedTuple):
    """Of the roots of eigenvalues of X X^T, at the points of all panels.

    Attributes:
        roots: `(points,)`.
        counts: the density times the weight of the quadrature.
        below: how many eigenvalues are smaller.
    """

    roots: Float[np.ndarray, "points"]
    counts: Float[np.ndarray, "points"]
    below: Float[np.ndarray, "points"]


@lru_cache(maxsize=32)
def wishart_eigenvalues(dim: int, context: int, *, tail: float = 0.0) -> Eigenvalues:
    """Of X X^T / n, with X `(dim, context)` of independent standard normal numbers and n the context length.

    Args:
        tail: so many of a sequence's eigenvalues are left out at either end, in the mean.

    Returns:
        Arrays that cannot be written to: all callers share them.

    Raises:
        ValueError: `dim` or `context` is below 1, or both are above 200; `tail` is negative or 0.1 and more.
    """
    if min(dim, context) < 1:
        raise ValueError(f"dim and context must be at least 1, got {dim} and {context}")
    rank, degrees = sorted((dim, context))
    if rank > LARGEST_RANK:
        raise ValueError(f"the smaller of dim and context must be at most {LARGEST_RANK}, got {rank}")
    if not 0 <= tail < 0.1:
        raise ValueError(f"tail must be at least 0 and below 0.1, got {tail}")
    middle, spread = math.sqrt(degrees), math.sqrt(rank) + _BEYOND
    edges = np.linspace(max(0.0, middle - spread), middle + spread, _PANELS + 1)
    found = _density(rank, degrees, edges)
    if tail > 0:
        first = _where(found.below, tail, found.roots)
        if tail < found.below[0]:  # near 0 so many are below a root as this power of it says
            first = found.roots[0] * (tail / found.below[0]) ** (1 / (degrees - rank + 1))
        last = -_where((rank - found.below)[::-1], tail, -found.roots[::-1])
        inner = np.linspace(first, last, _PANELS + 1)
        found = _density(rank, degrees, np.concatenate([edges[edges < first], inner, edges[edges > last]]))
        kept = (found.roots > first) & (found.roots < last)
        found = _Density(*(each[kept] for each in found))
    values = found.roots**2 / context
    for each in (values, found.counts):
        each.setflags(write=False)
    return Eigenvalues(values, found.counts)


def _where(shares: Float[np.ndarray, "points"], share: float, roots: Float[np.ndarray, "points"]) -> float:
    """The root up to which this is the share, between those that are given with the roots; roots increase."""
    known = np.maximum(np.maximum.accumulate(shares), 1e-300)
    known, places = np.unique(known, return_index=True)
    return float(np.interp(math.log(share), np.log(known), roots[places]))


def _density(rank: int, degrees: int, edges: Float[np.ndarray, "edges"]) -> _Density:
    """On panels between the `edges`, the first and last of which have everything between them."""
    points, weights = legendre.leggauss(_ORDER)
    half = np.diff(edges)[:, None] / 2
    roots, steps = edges[:-1, None] + half * (1 + points), half * weights
    integrated = legendre.legval(points, legendre.legint(np.eye(_ORDER), lbnd=-1)).T
    integrals = half[..., None] * integrated @ np.linalg.inv(legendre.legvander(points, _ORDER - 1))

    def below(functions: Float[np.ndarray, "*some panels order"]) -> Float[np.ndarray, "*some panels order"]:
        """Their integrals up to each point."""
        parts = (functions * steps).sum(-1)
        return (parts.cumsum(-1) - parts)[..., None] + np.einsum("pij,...pj->...pi", integrals, functions)

    phi = _functions(rank, degrees, roots)  # (rank, panels, order)
    eps = below(phi) - (phi * steps).sum((-2, -1))[:, None, None] / 2
    flat, signed = phi.reshape(rank, -1), eps.reshape(rank, -1)
    gram = (flat * steps.ravel()) @ signed.T
    gram = (gram - gram.T) / 2
    if rank % 2:  # bordered by the integrals
        border = flat @ steps.ravel()
        gram = np.block([[gram, border[:, None]], [-border[None, :], np.zeros((1, 1))]])
        flat = np.vstack([flat, np.zeros(steps.size)])
        signed = np.vstack([signed, np.ones(steps.size)])
    density = np.einsum("jx,jx->x", flat, np.linalg.solve(gram.T, signed)).reshape(roots.shape)
    density = np.maximum(density, 0)
    return _Density(*(each.ravel() for each in (roots, density * steps, below(density))))


def _functions(
    rank: int, degrees: int, roots: Float[np.ndarray, "panels order"]
) -> Float[np.ndarray, "rank panels order"]:
    """Laguerre polynomials, nearly orthonormal with the squared weight, times the weight, as densities of the root."""
    power = degrees - rank - 1  # twice the weight's
    family, x = max(power, 0), roots**2
    size = (x + math.lgamma(family + 1)) / 2
    found = [np.zeros_like(x), 2 * np.exp((power + 1) * np.log(roots) - size)]  # with d x = 2 root d root
    for degree in range(rank - 1):
        before, last = (np.sqrt(each * (each + family)) for each in (degree, degree + 1))
        found.append(((2 * degree + 1 + family - x) * found[-1] - before * found[-2]) / last)
    return np.stack(found[1:])
