"""Levenberg-Marquardt on the exact objective, streamed, with geodesic acceleration and hard examples.

One iteration from parameters theta, with residuals r of a weighted pool of sequences:

1. The Jacobian J is accumulated block by block into H = J^T W J and g = J^T W r, over the pool's hardest sequences and a
   random part of the rest, weighted back to its share; so rare sequences with a huge loss (the loss is a polynomial of
   degree 2 * 3^layers) are in every step, which is what keeps the minimiser off the poles.
2. v = -(H + mu D)^-1 g with D = diag H, and the geodesic acceleration a = -(H + mu D)^-1 J^T W r''(v) (Transtrum and
   Sethna 2012), r'' the second derivative along v. The trial v + a / 2 is tried first, then v.
3. A trial is accepted if it lowers the mean loss of the whole pool, which costs only a forward pass; else mu grows.
"""

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.models.linear import LinearTransformer, _Blockwise
from innerloop.train.jacobian import weights_and_jacobian
from innerloop.train.objectives import Examples
from innerloop.types import Moments

_JACOBIAN_BLOCK = 64  # sequences at a time: about what the second-level cache holds
_FORWARD_BLOCK = 256
_FLOOR = 1e-6  # of the largest curvature: no direction is so flat that steps along it may be endless


@dataclass(frozen=True)
class Pool:
    """Sequences to fit, and their weights in the loss."""

    examples: Examples
    weights: np.ndarray

    @classmethod
    def of(cls, examples: Examples) -> "Pool":
        count = len(examples.target)
        return cls(examples, np.full(count, 1 / count))

    def __add__(self, other: "Pool") -> "Pool":
        return Pool(_concatenate(self.examples, other.examples), np.concatenate([self.weights, other.weights]))

    def with_hard(self, hard: "Pool | None") -> "Pool":
        """This pool, its weights reduced to what `hard`, sequences at their own small weights, leave of one."""
        if hard is None:
            return self
        return Pool(self.examples, self.weights * (1 - hard.weights.sum())) + hard


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
    theta, build = current.model.coordinates()
    hessian, gradient = (np.asarray(x) for x in _normal_equations(current.model, part, weights))
    scale = np.diag(hessian) + _FLOOR * np.diag(hessian).max()
    damping = current.damping
    for attempt in range(attempts):
        system = hessian + damping * np.diag(scale)
        velocity = -np.linalg.solve(system, gradient)
        curvature = np.asarray(_curvature(current.model, jnp.asarray(velocity), part, weights))
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


@eqx.filter_jit
def _forward(model: LinearTransformer, S: Float[Array, "N D D"]) -> Float[Array, "N dim"]:
    return jax.lax.map(model._final_weights, S, batch_size=_FORWARD_BLOCK)


def pool_losses(model: LinearTransformer, examples: Examples) -> np.ndarray:
    """Half squared error of every sequence, (N,)."""
    return np.asarray(examples.losses(_forward(model, examples.moments.S)))


@eqx.filter_jit
def _normal_equations(
    model: LinearTransformer, examples: Examples, weights: Float[Array, "N"]
) -> tuple[Float[Array, "p p"], Float[Array, "p"]]:
    """J^T W J and J^T W r in the coordinates, summed block by block."""

    def add(total, block):
        part, weight = block
        implicit, jacobian = _jacobian(model, part.moments.S, part.probes)
        tall = jacobian.reshape(-1, jacobian.shape[-1])
        scaled = tall * jnp.repeat(weight, jacobian.shape[1])[:, None]
        residuals = part.residuals(implicit).reshape(-1)
        return (total[0] + scaled.T @ tall, total[1] + scaled.T @ residuals), None

    size = len(model.coordinates()[0])
    zero = (jnp.zeros((size, size), weights.dtype), jnp.zeros(size, weights.dtype))
    return jax.lax.scan(add, zero, _blocks(examples, weights))[0]


@eqx.filter_jit
def _curvature(
    model: LinearTransformer, velocity: Float[Array, "p"], examples: Examples, weights: Float[Array, "N"]
) -> Float[Array, "p"]:
    """J^T W r'', with r'' the second derivative of the residuals along `velocity`."""
    theta, build = model.coordinates()

    def add(total, block):
        part, weight = block

        def path(theta):
            return jax.vmap(build(theta)._final_weights)(part.moments.S)

        def slope(theta):
            return jax.jvp(path, (theta,), (velocity,))[1]

        _, second = jax.jvp(slope, (theta,), (velocity,))
        # Residuals are linear in the weights: pull P P^T w'' back through the weights as one probe a sequence.
        probes = jnp.broadcast_to(part.probes, (len(second), *part.probes.shape[-2:]))
        pulled = jnp.einsum("bdr,ber,be->bd", probes, probes, second)
        _, jacobian = _jacobian(model, part.moments.S, pulled[:, :, None])
        return total + weight @ jacobian[:, 0], None

    return jax.lax.scan(add, jnp.zeros_like(theta), _blocks(examples, weights))[0]


def _jacobian(
    model: LinearTransformer, S: Float[Array, "b D D"], probes: Float[Array, "... dim r"]
) -> tuple[Float[Array, "b dim"], Float[Array, "b r p"]]:
    """Implicit weights, and the derivative of `weights @ probes` in the model's coordinates."""
    theta, build = model.coordinates()
    if isinstance(model, _Blockwise):
        row, jacobian = weights_and_jacobian(model.inner_flows(), jax.vmap(model._scaled)(S), probes)
        chain = jax.jacfwd(lambda theta: build(theta).inner_flows().reshape(-1))(theta)
        return -row / model.label_scale, -(jacobian / model.label_scale) @ chain

    probes = jnp.broadcast_to(probes, (len(S), *probes.shape[-2:]))

    def answers(theta, S, probes):
        weights = build(theta)._final_weights(S)
        return weights @ probes, weights

    derivative = jax.jacrev(answers, has_aux=True)
    jacobian, weights = jax.vmap(derivative, (None, 0, 0))(theta, S, probes)
    return weights, jacobian


def _working_set(
    losses: np.ndarray, pool: Pool, sample: int, hard: int, rng: np.random.Generator
) -> tuple[Examples, Float[Array, "N"]]:
    """The hardest sequences at their own weight, and random others that stand for the rest."""
    if sample >= len(losses):
        return pool.examples, jnp.asarray(pool.weights)
    order = np.argsort(-losses, kind="stable")
    chosen = np.concatenate([order[:hard], rng.permutation(order[hard:])[: sample - hard]])
    weights = pool.weights[chosen]
    weights[hard:] *= pool.weights[order[hard:]].sum() / weights[hard:].sum()
    return take(pool.examples, chosen), jnp.asarray(weights)


def take(examples: Examples, index: np.ndarray) -> Examples:
    """The sequences at `index`."""
    probes = examples.probes if examples.probes.ndim == 2 else examples.probes[index]
    return Examples(Moments(S=examples.moments.S[index], n=examples.moments.n), examples.target[index], probes)


def _concatenate(first: Examples, second: Examples) -> Examples:
    probes = first.probes if first.probes.ndim == 2 else jnp.concatenate([first.probes, second.probes])
    S = jnp.concatenate([first.moments.S, second.moments.S])
    return Examples(Moments(S=S, n=first.moments.n), jnp.concatenate([first.target, second.target]), probes)


def _mean(losses: np.ndarray, pool: Pool) -> float:
    return float(losses @ pool.weights) if np.isfinite(losses).all() else np.inf


def _blocks(examples: Examples, weights: Float[Array, "N"]):
    """Examples and weights cut into blocks for a scan, padded by copies of no weight."""
    count = len(weights)
    block = min(_JACOBIAN_BLOCK, count)
    padding = -count % block

    def cut(leaf, pad):
        return jnp.concatenate([leaf, pad]).reshape(-1, block, *leaf.shape[1:])

    def cut_copies(leaf):
        return cut(leaf, leaf[:padding])

    blocks = (count + padding) // block
    shared = examples.probes.ndim == 2
    probes = jnp.broadcast_to(examples.probes, (blocks, *examples.probes.shape)) if shared else cut_copies(examples.probes)
    moments = Moments(S=cut_copies(examples.moments.S), n=examples.moments.n)
    return Examples(moments, cut_copies(examples.target), probes), cut(weights, jnp.zeros(padding, weights.dtype))
