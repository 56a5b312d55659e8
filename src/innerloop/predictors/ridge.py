"""Ridge regression with a noise level for each sequence: known, constant, or estimated from the residuals.

All kinds predict with `w_sigma = E[w | X, y, sigma] = (Sigma + sigma^2 C^{-1})^{-1} alpha` under the task's
prior w ~ N(0, C), and differ in sigma only (Vladymyrov et al. 2024, section 5).
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.predictors.base import PosteriorPredictor, finite_number
from innerloop.predictors.tuning import TuningSample
from innerloop.tasks import LinearRegression, Posterior
from innerloop.types import Moments


class _Ridge(PosteriorPredictor):
    """Ridge with a noise level per sequence."""

    @abstractmethod
    def _sigma(self, moments: Moments, posterior: Posterior) -> Float[Array, ""]:
        """The noise level to assume for one context."""

    def _given(self, posterior, moments):
        return posterior.ridge(self._sigma(moments, posterior))


class OLS(_Ridge):
    """Ordinary least squares, sigma = 0.

    Of many solutions, as when n < dim, the one of least prior norm `w^T C^{-1} w`.
    """

    def _sigma(self, moments, posterior):
        return jnp.zeros_like(posterior.rss)


class RidgeOracle(_Ridge):
    """Ridge with the sequence's true sigma, which moments must carry: the zero of the adjusted loss.

    Raises:
        ValueError: on use, if the moments or the prompt do not say sigma.
    """

    def _sigma(self, moments, posterior):
        if moments.sigma is None:
            raise ValueError("RidgeOracle needs the true noise level of each sequence: moments.sigma is None")
        return moments.sigma


class ConstRR(_Ridge):
    """Ridge with one sigma for all sequences.

    Args:
        task: the task.
        sigma: the noise level to assume, finite and >= 0; tuned to the task if None.
        seed: of the tuning sample, >= 0.

    Raises:
        ValueError: a value is out of range.
    """

    sigma: float = eqx.field(static=True)

    def __init__(self, task: LinearRegression, sigma: float | None = None, seed: int = 0):
        self.task = task
        self._tuned = ("sigma",) if sigma is None else ()
        if sigma is None:
            # Given the true level, the loss falls up to it and rises after it: the best lies among them.
            grid = np.linspace(0, task.noise.maximum, 17 if task.noise.maximum > 0 else 1)
            with jax.enable_x64(True):
                sample = TuningSample.draw(task, seed)
                sigma = sample.minimise(Posterior.ridge, sample.posterior, {"sigma": grid})["sigma"]
        self.sigma = finite_number("sigma", sigma, at_least=0)

    def _sigma(self, moments, posterior):
        return jnp.full_like(posterior.rss, self.sigma)


class AdaRR(_Ridge):
    """Ridge with the unbiased estimate `sigma^2 = rss / (n - dim)` from the residuals of least squares.

    Raises:
        ValueError: the context has no more examples than dimensions, which leaves no residual.
    """

    def __init__(self, task: LinearRegression):
        self.task = task
        _check_residual("AdaRR", task.context, task.dim)

    def _sigma(self, moments, posterior):
        _check_residual("AdaRR", moments.n, moments.dim)
        return jnp.sqrt(_residual_variance(posterior))


class TunedRR(_Ridge):
    """Ridge with AdaRR's estimate scaled and capped: `sigma^2 = min(factor * rss / (n - dim), cap)`.

    Args:
        task: the task.
        factor: scales the estimate, finite and >= 0; tuned to the task if None.
        cap: the largest sigma^2 to assume, finite and > 0; tuned to the task if None.
        seed: of the tuning sample, >= 0.

    Raises:
        ValueError: a value is out of range, or the context has no more examples than dimensions.
    """

    factor: float = eqx.field(static=True)
    cap: float = eqx.field(static=True)

    def __init__(
        self, task: LinearRegression, factor: float | None = None, cap: float | None = None, seed: int = 0
    ):
        self.task = task
        _check_residual("TunedRR", task.context, task.dim)
        self._tuned = tuple(name for name, value in (("factor", factor), ("cap", cap)) if value is None)
        self.factor, self.cap = _factor_and_cap(task, factor, cap, seed)

    def _sigma(self, moments, posterior):
        _check_residual("TunedRR", moments.n, moments.dim)
        return _capped_level(posterior, self.factor, self.cap)


def _residual_variance(posterior: Posterior) -> Float[Array, ""]:
    """rss / (n - rank); the rank is dim unless a covariance is singular."""
    rank = (posterior.eigenvalues > 0).sum()
    return posterior.rss / (posterior.n - rank).astype(posterior.rss.dtype)


def _capped_level(posterior: Posterior, factor, cap) -> Float[Array, ""]:
    return jnp.sqrt(jnp.minimum(factor * _residual_variance(posterior), cap))


def _ridge_capped(posterior: Posterior, factor, cap) -> Float[Array, "dim"]:
    return posterior.ridge(_capped_level(posterior, factor, cap))


def _factor_and_cap(
    task: LinearRegression, factor: float | None, cap: float | None, seed: int
) -> tuple[float, float]:
    """TunedRR's constants, checked where given and tuned where None."""
    if factor is not None:
        factor = finite_number("factor", factor, at_least=0)
    if cap is not None:
        cap = finite_number("cap", cap, above=0)
    if factor is not None and cap is not None:
        return factor, cap
    largest = task.noise.maximum**2
    # Without noise the best estimate is zero, and the cap has no effect.
    factors = np.geomspace(0.05, 50, 8) if largest > 0 else np.zeros(1)
    caps = largest * np.geomspace(0.002, 2, 8) if largest > 0 else np.ones(1)
    grids = {
        "factor": factors if factor is None else np.array([factor]),
        "cap": caps if cap is None else np.array([cap]),
    }
    with jax.enable_x64(True):
        sample = TuningSample.draw(task, seed)
        best = sample.minimise(_ridge_capped, sample.posterior, grids)
    return best["factor"], best["cap"]


def _check_residual(kind: str, context: int, dim: int) -> None:
    if context <= dim:
        raise ValueError(
            f"{kind} estimates the noise from residuals and needs context > dim, "
            f"got context={context}, dim={dim}"
        )
