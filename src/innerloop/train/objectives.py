"""What training minimises: the paper's loss, or one of two equal up to a constant and far less noisy.

Every objective is half a squared error, `1/2 E r^2`, of the model's implicit weights against a target:

- `sampled`: one query x with label `<w, x>`, `r = <w_hat - w, x>`: the loss of Vladymyrov et al. (2024) to the letter;
- `oracle`: all queries at once against the ridge solution for the true sigma, `r = Q^T (w_hat - w_sigma)`;
- `bayes`: the same against the Bayes-optimal weights, `r = Q^T (w_hat - w_bayes)`,

with Q Q^T the query's covariance. In expectation they differ by the oracle loss and by the Bayes floor, which no parameter
moves, so their gradients agree in the mean; `bayes` has the least variance.
"""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from innerloop import lanes
from innerloop.tasks import LinearRegression
from innerloop.threads import in_threads
from innerloop.types import AnyArray, Moments

Objective = Literal["sampled", "oracle", "bayes"]

_STRETCH = 1.35  # of labels beyond the tail
_BLOCK = 1024  # sequences drawn at a time: the posterior's temporaries stay in cache


class Examples(eqx.Module):
    """A batch to train on: residuals are `(w_hat - target) @ probes`.

    Attributes:
        moments: the contexts, S `(batch, D, D)`.
        target: the weights aimed at, `(batch, dim)`.
        probes: `(batch, dim, r)`, one matrix per sequence, or `(dim, r)` for all.
    """

    moments: Moments
    target: Float[AnyArray, "batch dim"]
    probes: Float[AnyArray, "batch dim r"] | Float[AnyArray, "dim r"]

    def residuals(self, weights: Float[AnyArray, "batch dim"]) -> Float[AnyArray, "batch r"]:
        deviation = weights - self.target
        return (
            deviation @ self.probes if self.probes.ndim == 2 else (deviation[:, None, :] @ self.probes)[:, 0]
        )

    def losses(self, weights: Float[AnyArray, "batch dim"]) -> Float[AnyArray, "batch"]:
        """Half squared error of each sequence."""
        return 0.5 * (self.residuals(weights) ** 2).sum(-1)


def draw(
    task: LinearRegression,
    objective: Objective,
    key: PRNGKeyArray,
    batch: int,
    *,
    beyond: int | Int[Array, ""] = 0,
    dtype=None,
) -> Examples:
    """`batch` fresh sequences of `task` with their targets under `objective`.

    Args:
        beyond: the last so many have labels up to a third too large: data from just beyond the tail of the task's, answered
            as the task's laws would have it. As an array it may be zero too, in the same compiled program.

    Raises:
        ValueError: the objective is not one of the three.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"objective must be one of {', '.join(get_args(Objective))}, got {objective!r}")
    key_moments, key_query, key_stretch = jax.random.split(key, 3)
    S, weights, sigma = task.sample_in_lanes(key_moments, batch, dtype=dtype)
    if not isinstance(beyond, int) or beyond > 0:
        factor = jax.random.uniform(key_stretch, (batch,), S.dtype, 1, _STRETCH)
        factor = jnp.where(jnp.arange(batch) < batch - beyond, 1, factor)
        S, weights, sigma = _stretched(S, factor), weights * factor[None], sigma * factor
    moments = Moments(S=jnp.moveaxis(S, -1, 0), n=task.context)
    if objective == "sampled":
        query = task.sample_queries(key_query, batch, dtype=S.dtype)
        return Examples(moments, weights.T, query[:, :, None])
    root = task.query_root(S.dtype)
    probes = jnp.eye(task.dim, dtype=S.dtype) if root is None else root
    known = lanes.cut(sigma) if objective == "oracle" else None
    target = lanes.each(task.targets_in_lanes, lanes.cut(S), known)
    return Examples(moments, lanes.join(target, batch), probes)


def _stretched(S: Float[Array, "D D batch"], factor: Float[Array, "batch"]) -> Float[Array, "D D batch"]:
    """The moments of the same contexts with labels, and so weights and sigma, multiplied by `factor`."""
    scale = jnp.ones((len(S), len(factor)), factor.dtype).at[-1].set(factor)
    return S * scale[:, None] * scale[None, :]


def draw_many(
    task: LinearRegression, objective: Objective, key: PRNGKeyArray, count: int, *, beyond: bool = False
) -> Examples:
    """As `draw`, as NumPy arrays and block by block: for samples too large to draw at once.

    The first sequences do not depend on `count`; every count, and every noise law of a kind, runs one compiled program.

    Args:
        beyond: whether all of them have labels up to a third too large.
    """
    kind, numbers = task.apart()

    def drawn(block: int) -> Examples:
        key_block = jax.random.fold_in(key, block)
        examples = _draw_block(kind, numbers, objective, key_block, jnp.asarray(_BLOCK if beyond else 0))
        return jax.tree.map(np.asarray, examples)

    blocks = in_threads(drawn, range(-(-count // _BLOCK)), compiled=(_draw_block, kind.identity, objective))
    first = blocks[0]

    def joined(get):
        return np.concatenate([get(block) for block in blocks])[:count]

    probes = first.probes if first.probes.ndim == 2 else joined(lambda block: block.probes)
    moments = Moments(S=joined(lambda block: block.moments.S), n=first.moments.n)
    return Examples(moments, joined(lambda block: block.target), probes)


@eqx.filter_jit
def _draw_block(
    kind: LinearRegression,
    numbers: Float[AnyArray, "numbers"],
    objective: Objective,
    key: PRNGKeyArray,
    beyond: Int[Array, ""],
) -> Examples:
    return draw(kind.with_numbers(numbers), objective, key, _BLOCK, beyond=beyond)
