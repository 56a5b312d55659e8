"""Fresh sequences of a problem on which one model after the other is judged, by one compiled program."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.evaluation.losses import Estimate, in_precision
from innerloop.models import LinearTransformer
from innerloop.models.any_depth import AnyDepth
from innerloop.tasks import LinearRegression
from innerloop.types import Moments

SEQUENCES = 2048
LEVELS, PER_LEVEL = 13, 256
_STREAM = 17  # no other sequences are drawn from it


@dataclass(frozen=True)
class Judged:
    """A model's adjusted loss on the sample, and its adjusted loss at each level of sigma, `(levels,)`."""

    adjusted: Estimate
    by_sigma: Float[np.ndarray, "levels"]


class Sample:
    """`SEQUENCES` sequences of the task, and `PER_LEVEL` more at each of `LEVELS` noise levels, all in float64.

    The levels go from 0 to one above the law's maximum, and share weights, inputs and noise directions.

    Args:
        most: room for so many layers in the compiled program of `judge_flows`.

    Attributes:
        sigmas: the levels, `(levels,)`.
        floor: the Bayes floor on the sample: no predictor's adjusted loss is below in expectation.
        bayes: the Bayes-optimal predictor's adjusted loss at each level.
    """

    def __init__(self, task: LinearRegression, *, most: int, seed: int = 0):
        self._task, self._most = task, most
        self.sigmas = np.linspace(0, task.noise.maximum + 1, LEVELS)
        with jax.enable_x64(True):
            key = jax.random.fold_in(jax.random.key(seed), _STREAM)
            self._S, self._targets, spread, bayes = _drawn(task, key, jnp.asarray(self.sigmas))
            self._spread = np.asarray(spread)
            self.floor = Estimate.of(self._spread)
            self.bayes = np.asarray(bayes)

    def judge_flows(self, flows: Float[np.ndarray, "layers 2 2"]) -> Judged:
        """A `DIAG` with these flows, in the paper's convention; only the first call compiles."""
        with jax.enable_x64(True):
            return self._judged(AnyDepth.of(np.asarray(flows, float), 1, 1.0, most=self._most))

    def judge(self, model: LinearTransformer) -> Judged:
        """A model of any kind; compiles a program of its own."""
        with jax.enable_x64(True):
            return self._judged(in_precision(model, "float64"))

    def _judged(self, model: AnyDepth | LinearTransformer) -> Judged:
        losses = np.asarray(_half_squares(model, self._task, self._S, self._targets))
        with np.errstate(over="ignore", invalid="ignore"):
            by_sigma = losses[SEQUENCES:].reshape(LEVELS, PER_LEVEL).mean(1)
            return Judged(Estimate.of(losses[:SEQUENCES] + self._spread), by_sigma)


@eqx.filter_jit
def _drawn(task: LinearRegression, key: PRNGKeyArray, sigmas: Float[Array, "levels"]):
    """All S `(N, D, D)`, the weights `(N, dim)` that losses are measured from (w_bayes for the sample, w_sigma for the
    levels), the spread of the sample, and what w_bayes loses at the levels."""
    own, own_sigmas, at_levels = jax.random.split(key, 3)
    blocks = SEQUENCES // PER_LEVEL

    def block(drawn_by):
        key, sigma = drawn_by
        S, *_ = task.sample_in_lanes(key, PER_LEVEL, sigma=sigma, dtype=sigmas.dtype)
        bayes, spread, *_ = task.judged_in_lanes(S)
        return jnp.moveaxis(S, -1, 0), bayes.T, spread, task.targets_in_lanes(S, sigma).T

    drawn = task.noise.sample(own_sigmas, (blocks, PER_LEVEL), sigmas.dtype)
    levels = jnp.broadcast_to(sigmas[:, None], (LEVELS, PER_LEVEL))
    keys = jnp.concatenate([jax.random.split(own, blocks), jnp.broadcast_to(at_levels, (LEVELS,))])
    S, bayes, spread, ridge = jax.lax.map(block, (keys, jnp.concatenate([drawn, levels])))
    targets = jnp.concatenate([bayes[:blocks], ridge[blocks:]])
    lost = task.half_square(bayes[blocks:] - ridge[blocks:]).mean(1)
    size = task.dim + 1
    return S.reshape(-1, size, size), targets.reshape(-1, task.dim), spread[:blocks].reshape(-1), lost


@eqx.filter_jit
def _half_squares(
    model: AnyDepth | LinearTransformer,
    task: LinearRegression,
    S: Float[Array, "N D D"],
    targets: Float[Array, "N dim"],
) -> Float[Array, "N"]:
    """`1/2 ||w_hat - target||^2` of every sequence, in the query's norm."""
    if isinstance(model, AnyDepth):
        return task.half_square(model.final_weights(S) - targets)
    return task.half_square(model.final_weights(Moments(S=S, n=task.context)) - targets)
