"""Tuning a predictor's constants to a task, on a sample that no evaluation sees.

What is minimised is the mean regret `1/2 E ||Q^T (w_hat - w_bayes)||^2`, Q Q^T the query's covariance. It
differs from the adjusted loss by the Bayes floor, which no constant moves: same minimiser, less noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from innerloop.predictors.base import whole_number
from innerloop.tasks import LinearRegression, Posterior
from innerloop.types import AnyArray, Moments

SEQUENCES = 20_480
STREAM = 0x74756E65  # "tune" in ASCII: far from the small numbers that name other streams
_BLOCK = 512  # random gamma and LAPACK calls on larger batches are slower a sequence


class TuningSample(eqx.Module):
    """Sequences of a task, with what the data say about the weights.

    Attributes:
        task: what was sampled.
        moments: S `(sequences, D, D)`, without the latents.
        posterior: of each sequence, in a leading axis, with zeros in its law of sigma: for what does not ask the law.
        target: w_bayes, `(sequences, dim)`.
    """

    task: LinearRegression
    moments: Moments
    posterior: Posterior
    target: Float[Array, "sequences dim"]

    @classmethod
    def draw(cls, task: LinearRegression, seed: int) -> "TuningSample":
        """`SEQUENCES` sequences, a function of the task and `seed` only, so the same for every predictor.

        Call this, and all that uses its result, inside `jax.enable_x64(True)`.

        Raises:
            ValueError: seed is not a whole number >= 0.
        """
        whole_number("seed", seed, at_least=0)
        name = (*task.identity, seed)
        if name not in _LAST:  # the baselines of a task are tuned one after another
            key = jax.random.fold_in(jax.random.key(seed), STREAM)
            kind, numbers = task.apart()
            _LAST.clear()
            _LAST[name] = cls(task, *_solved(kind, numbers, jax.random.split(key, SEQUENCES // _BLOCK)))
        return _LAST[name]

    def regret(self, weights: Callable[..., Float[Array, "dim"]], prepared: Any, *constants: float) -> float:
        """Mean regret of `weights(prepared, *constants)`, a function for one context; inf if it overflows."""
        traced = tuple(jnp.asarray(constant, float) for constant in constants)
        value = float(_regret(self.task.apart()[0], self.target, weights, prepared, traced))
        return value if np.isfinite(value) else np.inf

    def minimise(
        self, weights: Callable[..., Float[Array, "dim"]], prepared: Any, grids: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """The constants of least regret: the best node of the grids' product, then Nelder-Mead from there.

        Args:
            weights: takes one context's `prepared` and a value of each constant, in the order of `grids`.
            prepared: a pytree whose leaves have a leading axis of sequences.
            grids: increasing values of each constant to try; the ends bound it, a single value fixes it.
        """
        from scipy.optimize import minimize  # half a second, which whoever tunes nothing is spared

        nodes = list(grids.values())
        free = [axis for axis, grid in enumerate(nodes) if len(grid) > 1]
        if not free:
            return {name: float(grid[0]) for name, grid in zip(grids, nodes, strict=True)}
        shape = tuple(len(grid) for grid in nodes)

        def at(position):
            """Constants at a position in units of grid nodes, which brings all of them to one scale."""
            pairs = zip(position, nodes, strict=True)
            return [float(np.interp(p, np.arange(len(grid)), grid)) for p, grid in pairs]

        losses = [self.regret(weights, prepared, *at(index)) for index in np.ndindex(*shape)]
        best = np.array(np.unravel_index(np.argmin(losses), shape), float)

        def loss(position):
            best[free] = position
            return self.regret(weights, prepared, *at(best))

        last = np.array([shape[axis] - 1.0 for axis in free])
        corners = np.vstack([best[free], best[free] + np.diag(np.where(best[free] < last, 0.5, -0.5))])
        options = {"initial_simplex": corners, "xatol": 1e-4, "fatol": 1e-9 * (1 + min(losses))}
        bounds = [(0, end) for end in last]
        result = minimize(loss, corners[0], method="Nelder-Mead", bounds=bounds, options=options)
        best[free] = result.x
        return dict(zip(grids, at(best), strict=True))


_LAST: dict[tuple, TuningSample] = {}


@eqx.filter_jit
def _solved(
    kind: LinearRegression, numbers: Float[AnyArray, "numbers"], keys: Key[Array, "blocks"]
) -> tuple[Moments, Posterior, Float[Array, "sequences dim"]]:
    """A block of sequences a key: moments, posteriors under `kind`, and posterior means under the law of `numbers`."""
    task = kind.with_numbers(numbers)

    def one(moments: Moments):
        posterior = task.posterior(moments)
        return replace(posterior, noise=kind.noise), posterior.mean_and_spread()[0]

    def block(key):
        moments = Moments(S=task.sample_moments(key, _BLOCK).S, n=task.context)
        return moments, *jax.vmap(one)(moments)

    blocks = jax.lax.map(block, keys)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), blocks)


@eqx.filter_jit
def _regret(
    task: LinearRegression,
    target: Float[Array, "sequences dim"],
    weights: Callable,
    prepared: Any,
    constants: tuple[Float[Array, ""], ...],
) -> Float[Array, ""]:
    estimate = jax.vmap(lambda one: weights(one, *constants))(prepared)
    return task.half_square(estimate - target).mean()
