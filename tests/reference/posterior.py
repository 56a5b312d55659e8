"""Posteriors of Bayesian linear regression with an unknown noise level, from the data x and y themselves.

Two forms that share nothing: a sum over a grid of weights, which needs no algebra but few dimensions, and the Gaussian
process form, which needs an n x n solve but works at sigma = 0 and for n < dim. Both sum over given levels of sigma.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import multivariate_normal


class Answer(NamedTuple):
    """E[w | X, y]; `1/2 E ||w_sigma - E[w | X, y]||^2` over the levels; w_sigma `(m, dim)`; p(sigma_j | X, y) `(m,)`."""

    mean: np.ndarray
    spread: float
    ridge: np.ndarray
    probability: np.ndarray


def simpson(low: float, high: float, intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels and weights, summing to one, that average over [low, high] by Simpson's rule; `intervals` is even."""
    weights = np.ones(intervals + 1)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return np.linspace(low, high, intervals + 1), weights / weights.sum()


def by_grid(
    x: np.ndarray, y: np.ndarray, sigmas: np.ndarray, weights: np.ndarray, *, radius: float, step: float
) -> Answer:
    """Sum prior times likelihood over all w on a square grid, for every level > 0; prior N(0, I)."""
    axis = np.arange(-radius, radius + step / 2, step)
    grid = np.stack(np.meshgrid(*[axis] * x.shape[1], indexing="ij"), -1).reshape(-1, x.shape[1])
    squares = ((y - grid @ x.T) ** 2).sum(-1)
    log_prior = -0.5 * (grid**2).sum(-1)
    evidence, ridge = [], []
    for sigma in sigmas:
        log_joint = log_prior - 0.5 * squares / sigma**2 - len(y) * np.log(sigma)
        density = np.exp(log_joint - log_joint.max())
        evidence.append(log_joint.max() + np.log(density.sum()))
        ridge.append(density @ grid / density.sum())
    return _answer(np.stack(ridge), np.array(evidence), weights)


def by_kernel(
    x: np.ndarray, y: np.ndarray, sigmas: np.ndarray, weights: np.ndarray, *, prior=None, query=None
) -> Answer:
    """Condition the Gaussian process y ~ N(0, X C X^T + sigma^2 I); the spread is in the norm of `query`'s covariance."""
    prior = np.eye(x.shape[1]) if prior is None else prior
    evidence, ridge = [], []
    for sigma in sigmas:
        kernel = x @ prior @ x.T + sigma**2 * np.eye(len(y))
        evidence.append(multivariate_normal.logpdf(y, np.zeros(len(y)), kernel))
        ridge.append(prior @ x.T @ np.linalg.solve(kernel, y))
    return _answer(np.stack(ridge), np.array(evidence), weights, query)


def _answer(
    ridge: np.ndarray, evidence: np.ndarray, weights: np.ndarray, query: np.ndarray | None = None
) -> Answer:
    probability = weights * np.exp(evidence - evidence.max())
    probability = probability / probability.sum()
    mean = probability @ ridge
    off = ridge - mean
    query = np.eye(len(mean)) if query is None else query
    spread = 0.5 * float(probability @ np.einsum("mi,ij,mj->m", off, query, off))
    return Answer(mean, spread, ridge, probability)
