"""Levenberg-Marquardt on the exact objective, streamed, with geodesic acceleration and hard examples.

One iteration from parameters theta, with residuals r of a weighted pool of sequences:

1. The Jacobian J is accumulated block by block into H = J^T W J and g = J^T W r, over the pool's hardest sequences and a
   random part of the rest, weighted back to its share; so rare sequences with a huge loss (the loss is a polynomial of
   degree 2 * 3^layers) are in every step, which is what keeps the minimiser off the poles.
2. v = -(H + mu D)^-1 g with D = diag H, and the geodesic acceleration a = -(H + mu D)^-1 J^T W r''(v) (Transtrum and
   Sethna 2012), r'' the second derivative along v, from a smaller sample. The trial v + a / 2 is tried first, then v.
3. A trial is accepted if it lowers the mean loss of the whole pool, which costs only a forward pass; else mu grows.
"""

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.models.linear import Blockwise, LinearTransformer
from innerloop.train.jacobian import weights_and_jacobian
from innerloop.train.objectives import Examples
from innerloop.types import Moments

_JACOBIAN_BLOCK = 64  # sequences at a time: about what the second-level cache holds
_FORWARD_BLOCK = 256
_JACOBIAN_CHUNK = 256  # sequences a call of a compiled program, whatever the sample's size
_FORWARD_CHUNK = 1024
_DIFFERENCE = 0.01  # of a step, for its second derivative
_FLOOR = 1e-5  # of the largest curvature: steps along flat directions stay within reach


@dataclass(frozen=True)
class Pool:
    """Sequences to fit, and their weights in the loss. Kept as NumPy arrays: they are sliced far more than computed on."""

    examples: Examples
    weights: np.ndarray

    @classmethod
    def of(cls, examples: Examples) -> "Pool":
        count = len(examples.target)
        return cls(examples, np.full(count, 1 / count))

    def __add__(self, other: "Pool") -> "Pool":
        return Pool(
            _concatenate(self.examples, other.examples), np.concatenate([self.weights, other.weights])
        )

    def newest(self, count: int) -> "Pool":
        """The last `count` sequences at most."""
        index = np.arange(len(self.weights))[-count:]
        return Pool(take(self.examples, index), self.weights[index])

    def with_hard(self, hard: "Pool | None") -> "Pool":
        """A pool of the same size whose last sequences are `hard`, at their own small weights."""
        if hard is None:
            return self
        hard = hard.newest(len(self.weights) // 2)
        rest = np.arange(len(self.weights) - len(hard.weights))
        weights = np.full(len(rest), (1 - hard.weights.sum()) / len(rest))
        return Pool(take(self.examples, rest), weights) + hard


@dataclass(frozen=True)
class Iterate:
    """Where a Levenberg-Marquardt solve stands.

    Attributes:
        model: the current parameters.
        losses: the pool's losses there.
        loss: their weighted mean.
        damping: mu.
        stalled: whether no damping gave a lower loss.
    """

    model: LinearTransformer
    losses: np.ndarray
    loss: float
    damping: float = 1e-2
    stalled: bool = False


def start(model: LinearTransformer, pool: Pool, damping: float = 1e-2) -> Iterate:
    losses = pool_losses(model, pool.examples)
    return Iterate(model, losses, _mean(losses, pool), damping)


def iterate(
    current: Iterate, pool: Pool, *, sample: int, hard: int, rng: np.random.Generator, attempts: int = 8
) -> Iterate:
    """One accepted step, or the same point with `stalled` set.

    Args:
        sample: sequences in the Jacobian; the pool's `hard` worst are always among them.
        rng: picks the others.
        attempts: how many dampings to try, each four times the last.
    """
    part, weights = _working_set(current.losses, pool, sample, hard, rng)
    few = _working_set(
        current.losses, pool, sample // 4, min(hard, sample // 8), rng
    )  # a correction need not be exact
    theta, build = current.model.coordinates()
    residuals = np.asarray(part.residuals(implicit_weights(current.model, part)))
    hessian, gradient = _normal_equations(current.model, part, weights, residuals)
    if not (np.isfinite(hessian).all() and np.isfinite(gradient).all()):
        return replace(current, stalled=True)
    scale = np.diag(hessian) + _FLOOR * np.diag(hessian).max()
    damping = current.damping
    for attempt in range(attempts):
        system = hessian + damping * np.diag(scale)
        velocity = -np.linalg.solve(system, gradient)
        curvature = _curvature(current.model, velocity, *few)
        acceleration = -np.linalg.solve(system, curvature) / 2
        length = [np.sqrt(vector @ (scale * vector)) for vector in (velocity, acceleration)]
        # Beyond this the second-order model of the path is not to be trusted (Transtrum and Sethna's alpha).
        steps = [velocity + acceleration] if length[1] <= length[0] else []
        for step in (*steps, velocity):
            model = build(theta + jnp.asarray(step))
            losses = pool_losses(model, pool.examples)
            loss = _mean(losses, pool)
            if loss < current.loss:
                return Iterate(model, losses, loss, max(damping / 6, 1e-9) if attempt == 0 else damping)
        damping *= 4
    return replace(current, damping=damping, stalled=True)


def implicit_weights(model: LinearTransformer, examples: Examples) -> np.ndarray:
    """The model's weights on every sequence, (N, dim)."""
    S, count = examples.moments.S, len(examples.target)
    chunks = (S[index] for index, _ in _chunks(count, _FORWARD_CHUNK))
    return np.concatenate([np.asarray(_forward(model, chunk)) for chunk in chunks])[:count]


def pool_losses(model: LinearTransformer, examples: Examples) -> np.ndarray:
    """Half squared error of every sequence, (N,)."""
    with np.errstate(over="ignore", invalid="ignore"):  # a trial step may land on a pole
        return np.asarray(examples.losses(implicit_weights(model, examples)))


def _normal_equations(
    model: LinearTransformer, examples: Examples, weights: np.ndarray, residuals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """J^T W J and J^T W r in the model's coordinates, for any residuals r `(N, r)`."""
    parts = []
    for index, inside in _chunks(len(weights), _JACOBIAN_CHUNK):
        weight = np.where(inside, weights[index], 0)
        part = _normal_part(model, take(examples, index), jnp.asarray(weight), jnp.asarray(residuals[index]))
        parts.append([np.asarray(x) for x in part])
    hessian, gradient = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    return hessian, gradient


def _curvature(
    model: LinearTransformer, velocity: np.ndarray, examples: Examples, weights: np.ndarray
) -> np.ndarray:
    """J^T W r'', with r'' the second derivative of the residuals along `velocity`, by central differences."""
    theta, build = model.coordinates()
    ahead, here, behind = (
        implicit_weights(build(theta + jnp.asarray(step * velocity)), examples)
        for step in (_DIFFERENCE, 0.0, -_DIFFERENCE)
    )
    second = (ahead - 2 * here + behind) / _DIFFERENCE**2
    along = (second[:, None, :] @ np.asarray(examples.probes))[:, 0]
    return _normal_equations(model, examples, weights, along)[1]


@eqx.filter_jit
def _forward(model: LinearTransformer, S: Float[Array, "N D D"]) -> Float[Array, "N dim"]:
    return jax.lax.map(model._final_weights, S, batch_size=_FORWARD_BLOCK)


@eqx.filter_jit
def _normal_part(
    model: LinearTransformer, examples: Examples, weights: Float[Array, "N"], residuals: Float[Array, "N r"]
) -> tuple[Float[Array, "p p"], Float[Array, "p"]]:
    """One chunk's share, summed block by block."""

    def add(total, block):
        S, probes, weight, residual = block
        jacobian = _jacobian(model, S, examples.probes if shared else probes)
        tall = jacobian.reshape(-1, jacobian.shape[-1])
        scaled = tall * jnp.repeat(weight, jacobian.shape[1])[:, None]
        return (total[0] + scaled.T @ tall, total[1] + scaled.T @ residual.reshape(-1)), None

    shared = examples.probes.ndim == 2
    size = len(model.coordinates()[0])
    zero = (jnp.zeros((size, size), weights.dtype), jnp.zeros(size, weights.dtype))
    parts = (examples.moments.S, None if shared else examples.probes, weights, residuals)
    blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, _JACOBIAN_BLOCK, *leaf.shape[1:]), parts)
    return jax.lax.scan(add, zero, blocks)[0]


def _jacobian(
    model: LinearTransformer, S: Float[Array, "b D D"], probes: Float[Array, "... dim r"]
) -> Float[Array, "b r p"]:
    """The derivative of `implicit weights @ probes` in the model's coordinates."""
    theta, build = model.coordinates()
    if isinstance(model, Blockwise):
        _, jacobian = weights_and_jacobian(model.inner_flows(), jax.vmap(model._scaled)(S), probes)

        def flows(theta):
            built = build(theta)
            assert isinstance(built, Blockwise)
            return built.inner_flows().reshape(-1)

        chain = jax.jacfwd(flows)(theta)
        return -(jacobian / model.label_scale) @ chain

    probes = jnp.broadcast_to(probes, (len(S), *probes.shape[-2:]))

    def answers(theta, S, probes):
        return build(theta)._final_weights(S) @ probes

    return jax.vmap(jax.jacrev(answers), (None, 0, 0))(theta, S, probes)


def _working_set(
    losses: np.ndarray, pool: Pool, sample: int, hard: int, rng: np.random.Generator
) -> tuple[Examples, np.ndarray]:
    """The hardest sequences at their own weight, and random others that stand for the rest."""
    if sample >= len(losses):
        return pool.examples, pool.weights
    order = np.argsort(-losses, kind="stable")
    chosen = np.concatenate([order[:hard], rng.permutation(order[hard:])[: sample - hard]])
    weights = pool.weights[chosen]
    weights[hard:] *= pool.weights[order[hard:]].sum() / weights[hard:].sum()
    return take(pool.examples, chosen), weights


def take(examples: Examples, index: np.ndarray) -> Examples:
    """The sequences at `index`."""
    probes = examples.probes if examples.probes.ndim == 2 else examples.probes[index]
    return Examples(
        Moments(S=examples.moments.S[index], n=examples.moments.n), examples.target[index], probes
    )


def _concatenate(first: Examples, second: Examples) -> Examples:
    probes = first.probes if first.probes.ndim == 2 else np.concatenate([first.probes, second.probes])
    S = np.concatenate([first.moments.S, second.moments.S])
    return Examples(Moments(S=S, n=first.moments.n), np.concatenate([first.target, second.target]), probes)


def _mean(losses: np.ndarray, pool: Pool) -> float:
    return float(losses @ pool.weights) if np.isfinite(losses).all() else np.inf


def _chunks(count: int, size: int):
    """Indices of `count` sequences in chunks of one size, so that samples of every size run one compiled program.

    The last chunk is filled up with the first sequence; the second array says which indices are real.
    """
    for first in range(0, count, size):
        index = np.arange(first, first + size)
        yield np.where(index < count, index, 0), index < count
