"""Posteriors of Bayesian linear regression with an unknown noise level, from the data x and y themselves.

Two forms that share nothing: a sum over a grid of weights, which needs no algebra but few dimensions, and the
Gaussian process form, which needs an n x n solve but works at sigma = 0 and for n < dim. Both sum over given
levels of sigma.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import multivariate_normal


class Answer(NamedTuple):
    mean: np.ndarray  # E[w | X, y], (dim,)
    spread: float  # 1/2 E ||w_sigma - mean||^2 over the levels
    oracle: float  # 1/2 E ||w - w_sigma||^2, over the levels too
    ridge: np.ndarray  # w_sigma at every level, (m, dim)
    probability: np.ndarray  # p(sigma_j | X, y), (m,)


def simpson(low: float, high: float, intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels and weights, summing to one, of Simpson's rule for the mean over [low, high]."""
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
    evidence, ridge, left = [], [], []
    for sigma in sigmas:
        log_joint = log_prior - 0.5 * squares / sigma**2 - len(y) * np.log(sigma)
        density = np.exp(log_joint - log_joint.max())
        evidence.append(log_joint.max() + np.log(density.sum()))
        ridge.append(density @ grid / density.sum())
        left.append(density @ ((grid - ridge[-1]) ** 2).sum(-1) / density.sum())
    return _answer(ridge, evidence, left, weights, np.eye(x.shape[1]))


def by_kernel(
    x: np.ndarray, y: np.ndarray, sigmas: np.ndarray, weights: np.ndarray, *, prior=None, query=None
) -> Answer:
    """Condition the Gaussian process y ~ N(0, X C X^T + sigma^2 I); the spread is in `query`'s norm."""
    prior = np.eye(x.shape[1]) if prior is None else prior
    query = np.eye(x.shape[1]) if query is None else query
    evidence, ridge, left = [], [], []
    for sigma in sigmas:
        kernel = x @ prior @ x.T + sigma**2 * np.eye(len(y))
        gain = prior @ x.T @ np.linalg.inv(kernel)
        evidence.append(multivariate_normal.logpdf(y, np.zeros(len(y)), kernel))
        ridge.append(gain @ y)
        left.append(np.trace((prior - gain @ x @ prior) @ query))
    return _answer(ridge, evidence, left, weights, query)


def _answer(ridge: list, evidence: list, left: list, weights: np.ndarray, query: np.ndarray) -> Answer:
    probability = weights * np.exp(np.array(evidence) - max(evidence))
    probability = probability / probability.sum()
    mean = probability @ np.stack(ridge)
    off = np.stack(ridge) - mean
    spread = 0.5 * float(probability @ np.einsum("mi,ij,mj->m", off, query, off))
    return Answer(mean, spread, 0.5 * float(probability @ np.array(left)), np.stack(ridge), probability)
