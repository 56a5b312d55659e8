"""Levenberg-Marquardt on the exact objective, streamed, with geodesic acceleration and hard examples.

One iteration from parameters theta, with residuals r of a weighted pool of sequences:

1. The Jacobian J is accumulated block by block into H = J^T W J and g = J^T W r, over the pool's hardest sequences and a
   random part of the rest, weighted back to its share; so rare sequences with a huge loss (the loss is a polynomial of
   degree 2 * 3^layers) are in every step, which is what keeps the minimiser off the poles. Of a sequence's residual
   space only the direction of its residual, which is all that g needs, and two others, in turn, enter H.
2. v = -(H + mu D)^-1 g with D = diag H, and the geodesic acceleration a = -(H + mu D)^-1 J^T W r''(v) (Transtrum and
   Sethna 2012), r'' the second derivative along v, from a smaller sample. The trial v + a / 2 is tried first, then v.
3. A trial is accepted if it lowers the mean loss of the whole pool, which costs only a forward pass; else mu grows.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.models.any_depth import AnyDepth
from innerloop.models.linear import Blockwise, LinearTransformer
from innerloop.threads import in_threads
from innerloop.train.jacobian import weights_and_jacobian
from innerloop.train.objectives import Examples
from innerloop.types import AnyArray, Moments

_JACOBIAN_BLOCK = 64  # sequences at a time: about what the second-level cache holds
_CHUNKS = (_JACOBIAN_BLOCK, 256)  # sequences a call of a compiled program, of small samples and of all others
_OTHERS = 2  # directions of a sequence's residual space, besides its residual's, in H
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
    model, theta = current.model, flat(current.model)
    part, weights = _working_set(current.losses, pool, sample, hard, rng)
    # A correction need not be exact.
    few = _working_set(current.losses, pool, sample // 8, min(hard, sample // 16), rng)
    residuals = np.asarray(part.residuals(_weights(model, theta, part)))
    turn = int(rng.integers(2**31))
    hessian, gradient = _normal_equations(model, theta, part, residuals, weights, turn=turn)
    if not (np.isfinite(hessian).all() and np.isfinite(gradient).all()):
        return replace(current, stalled=True)
    scale = np.diag(hessian) + _FLOOR * np.diag(hessian).max()
    damping = current.damping
    for attempt in range(attempts):
        system = hessian + damping * np.diag(scale)
        velocity = -np.linalg.solve(system, gradient)
        curvature = _curvature(model, theta, velocity, *few)
        acceleration = -np.linalg.solve(system, curvature) / 2
        length = [np.sqrt(vector @ (scale * vector)) for vector in (velocity, acceleration)]
        # Beyond this the second-order model of the path is not to be trusted (Transtrum and Sethna's alpha).
        steps = [velocity + acceleration] if length[1] <= length[0] else []
        for step in (*steps, velocity):
            losses = _losses(model, theta + step, pool.examples)
            loss = _mean(losses, pool)
            if loss < current.loss:
                damping = max(damping / 6, 1e-9) if attempt == 0 else damping
                return Iterate(unflat(model, theta + step), losses, loss, damping)
        damping *= 4
    return replace(current, damping=damping, stalled=True)


def flat(model: LinearTransformer) -> np.ndarray:
    """The model's coordinates."""
    return np.asarray(_flat(_kind(model)[0]))


def unflat(like: LinearTransformer, theta: np.ndarray) -> LinearTransformer:
    """The model of these coordinates, of the same kind and size as `like`."""
    return _unflat(_kind(like)[0], theta).with_label_scale(like.label_scale)


def pool_losses(model: LinearTransformer, examples: Examples) -> np.ndarray:
    """Half squared error of every sequence, (N,)."""
    return _losses(model, flat(model), examples)


def mean_loss(model: LinearTransformer, examples: Examples) -> float:
    """Mean half squared error, summed in float64: of a model with a pole the sum may overflow in float32."""
    return float(pool_losses(model, examples).mean(dtype=np.float64))


def _losses(model: LinearTransformer, theta: np.ndarray, examples: Examples) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # a trial step may land on a pole
        return np.asarray(examples.losses(_weights(model, theta, examples)))


def _weights(model: LinearTransformer, theta: np.ndarray, examples: Examples) -> np.ndarray:
    """The implicit weights at `theta` on every sequence, (N, dim)."""
    S = examples.moments.S
    chunk = _chunk(len(S))
    forward, name = _forward_at(model, theta)

    def part(first: int) -> np.ndarray:
        return np.asarray(forward(_padded(S, first, chunk)))

    return np.concatenate(in_threads(part, range(0, len(S), chunk), compiled=(name, chunk)))[: len(S)]


def _forward_at(
    model: LinearTransformer, theta: np.ndarray
) -> tuple[Callable[[np.ndarray], Array], Hashable]:
    """The implicit weights at `theta` as a function of S `(N, D, D)`, and a name for the program that it runs."""
    like, scale = _kind(model)
    if isinstance(like, Blockwise):
        deep = AnyDepth.of(_flows(like, theta), like.context, model.label_scale)
        return lambda S: _flow_weights(deep, S), (_flow_weights, deep.flows.shape, like.dim)
    return lambda S: _forward(like, scale, theta, S), (_forward, _pattern(like))


def _curvature(
    model: LinearTransformer,
    theta: np.ndarray,
    velocity: np.ndarray,
    examples: Examples,
    weights: np.ndarray,
) -> np.ndarray:
    """J^T W r'', with r'' the second derivative of the residuals along `velocity`, by central differences."""
    ahead, here, behind = (
        _weights(model, theta + step * velocity, examples) for step in (_DIFFERENCE, 0.0, -_DIFFERENCE)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        second = (ahead - 2 * here + behind) / _DIFFERENCE**2
        along = (second[:, None, :] @ np.asarray(examples.probes))[:, 0]
    return _normal_equations(model, theta, examples, along, weights)[1]


def _directions(residuals: np.ndarray, others: int, turn: int) -> np.ndarray:
    """Orthogonal directions `(N, r, 1 + others)` of every sequence's residual space.

    The first is its residual's; the others are of the orthogonal complement, taken in turn from sequence to sequence and
    so long that on average they stand for all of it.
    """
    count, r = residuals.shape
    scale = np.abs(residuals).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        unit = np.where(scale > 0, residuals / np.where(scale > 0, scale, 1), np.eye(r)[0])
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    others = min(others, r - 1)
    if others == 0:
        return unit[:, :, None]
    # The reflection that takes the first axis to the residual takes the other axes to its complement.
    mirror = unit + np.where(unit[:, :1] < 0, -1, 1) * np.eye(r)[0]
    axes = 1 + (turn + np.arange(count)[:, None] * others + np.arange(others)) % (r - 1)
    share = np.take_along_axis(mirror, axes, axis=1) / (mirror**2).sum(1, keepdims=True)
    complement = np.eye(r)[axes].swapaxes(1, 2) - 2 * mirror[:, :, None] * share[:, None, :]
    return np.concatenate([unit[:, :, None], complement * np.sqrt((r - 1) / others)], axis=2)


def _normal_equations(
    model: LinearTransformer,
    theta: np.ndarray,
    examples: Examples,
    residuals: np.ndarray,
    weights: np.ndarray,
    *,
    others: int = _OTHERS,
    turn: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """J^T W J, by the direction of each residual and some others, and J^T W r, in the model's coordinates.

    Args:
        residuals: any r, `(N, r)`.
        others, turn: see `_directions`.
    """
    directions = _directions(residuals, others, turn)
    with np.errstate(over="ignore", invalid="ignore"):
        along = (residuals[:, None, :] @ directions)[:, 0]
        probes = np.asarray(examples.probes) @ directions
    sums, chain, name = _sums_at(model, theta)

    chunk = _chunk(len(weights))

    def part(first: int) -> tuple[np.ndarray, np.ndarray]:
        weight = weights[first : first + chunk]
        weight = np.pad(weight, (0, chunk - len(weight)))
        arrays = (_padded(array, first, chunk) for array in (examples.moments.S, probes, along))
        hessian, gradient = sums(*arrays, weight)
        return np.asarray(hessian), np.asarray(gradient)

    parts = in_threads(part, range(0, len(weights), chunk), compiled=(name, directions.shape[2], chunk))
    hessian, gradient = (np.sum(each, axis=0) for each in zip(*parts, strict=True))
    if chain is None:
        return hessian, gradient
    size = len(chain)
    with np.errstate(over="ignore", invalid="ignore"):
        return chain.T @ hessian[:size, :size] @ chain, chain.T @ gradient[:size]


def _sums_at(
    model: LinearTransformer, theta: np.ndarray
) -> tuple[Callable[..., tuple[Array, Array]], np.ndarray | None, Hashable]:
    """A chunk's share of the normal equations at `theta` as a function of S, probes, residuals along them and weights; the
    derivative of the coordinates that it is in by the model's, None if they are those; and a name for the program."""
    like, scale = _kind(model)
    if isinstance(like, Blockwise):
        deep = AnyDepth.of(_flows(like, theta), like.context, model.label_scale)
        name = (_flow_sums, deep.flows.shape, like.dim)
        return lambda *arrays: _flow_sums(deep, *arrays), np.asarray(_chain(like, theta)), name
    return lambda *arrays: _chunk_sums(like, scale, theta, *arrays), None, (_chunk_sums, _pattern(like))


def _kind(model: LinearTransformer) -> tuple[LinearTransformer, np.ndarray]:
    """The model without its label scale, and that: problems differ in it, and are to share compiled programs."""
    return model.with_label_scale(1.0), np.asarray(model.label_scale)


def _pattern(like: LinearTransformer) -> Hashable:
    """Equal for models that run the same compiled programs."""
    return jax.tree.structure(like), tuple(leaf.shape for leaf in jax.tree.leaves(like))


@eqx.filter_jit
def _flat(model: LinearTransformer) -> Float[Array, "p"]:
    return model.coordinates()[0]


@eqx.filter_jit
def _unflat(like: LinearTransformer, theta: Float[AnyArray, "p"]) -> LinearTransformer:
    return like.coordinates()[1](jnp.asarray(theta))


@eqx.filter_jit
def _flows(like: Blockwise, theta: Float[AnyArray, "p"]) -> Float[Array, "layers 2 2"]:
    built = like.coordinates()[1](jnp.asarray(theta))
    assert isinstance(built, Blockwise)
    return built.inner_flows()


@eqx.filter_jit
def _chain(like: Blockwise, theta: Float[AnyArray, "p"]) -> Float[Array, "flows p"]:
    """The derivative of the flows in the model's coordinates."""
    return jax.jacfwd(lambda theta: _flows(like, theta).reshape(-1))(jnp.asarray(theta))


@jax.jit
def _flow_weights(model: AnyDepth, S: Float[AnyArray, "N D D"]) -> Float[Array, "N dim"]:
    return model.final_weights(S)


@jax.jit
def _flow_sums(
    model: AnyDepth,
    S: Float[AnyArray, "N D D"],
    probes: Float[AnyArray, "N dim r"],
    along: Float[AnyArray, "N r"],
    weights: Float[AnyArray, "N"],
) -> tuple[Float[Array, "flows flows"], Float[Array, "flows"]]:
    """One chunk's share, in the flows."""

    def jacobian(S, probes):
        _, derivative = weights_and_jacobian(model.flows, model.layers, S, probes)
        return -derivative / model.label_scale

    return _summed(jacobian, 4 * len(model.flows), model.scaled(S), probes, along, weights)


@eqx.filter_jit
def _forward(
    like: LinearTransformer,
    scale: Float[AnyArray, ""],
    theta: Float[AnyArray, "p"],
    S: Float[AnyArray, "N D D"],
) -> Float[Array, "N dim"]:
    model = like.coordinates()[1](jnp.asarray(theta)).with_label_scale(_as(scale, S))
    return model._final_weights(jnp.asarray(S))


@eqx.filter_jit
def _chunk_sums(
    like: LinearTransformer,
    scale: Float[AnyArray, ""],
    theta: Float[AnyArray, "p"],
    S: Float[AnyArray, "N D D"],
    probes: Float[AnyArray, "N dim r"],
    along: Float[AnyArray, "N r"],
    weights: Float[AnyArray, "N"],
) -> tuple[Float[Array, "p p"], Float[Array, "p"]]:
    """One chunk's share, in the model's coordinates."""
    build = like.coordinates()[1]

    def answers(theta, S, probes):
        return build(theta).with_label_scale(_as(scale, S))._final_weights(S[None])[0] @ probes

    def jacobian(S, probes):
        return jax.vmap(jax.jacrev(answers), (None, 0, 0))(jnp.asarray(theta), S, probes)

    return _summed(jacobian, len(theta), S, probes, along, weights)


def _summed(jacobian: Callable, size: int, S, probes, along, weights):
    """J^T W J and J^T W r, block by block; `jacobian` gives that of `implicit weights @ probes`, `(b, r, size)`."""

    def add(total, block):
        S, probes, along, weight = block
        tall = jacobian(S, probes).reshape(-1, size)
        scaled = tall * jnp.repeat(weight, along.shape[1])[:, None]
        return (total[0] + scaled.T @ tall, total[1] + scaled.T @ along.reshape(-1)), None

    zero = (jnp.zeros((size, size), weights.dtype), jnp.zeros(size, weights.dtype))
    blocks = jax.tree.map(
        lambda leaf: leaf.reshape(-1, _JACOBIAN_BLOCK, *leaf.shape[1:]), (S, probes, along, weights)
    )
    return jax.lax.scan(add, zero, blocks)[0]


def _as(scale: Float[AnyArray, ""], like: Float[AnyArray, "..."]) -> Float[Array, ""]:
    return jnp.asarray(scale).astype(like.dtype)


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


def _chunk(count: int) -> int:
    return _CHUNKS[0] if count <= _CHUNKS[0] else _CHUNKS[1]


def _padded(array: np.ndarray, first: int, size: int) -> np.ndarray:
    """`size` entries from `first`, filled up with the first, so that samples of every size run one compiled program."""
    part = array[first : first + size]
    missing = size - len(part)
    return np.concatenate([part, np.repeat(array[:1], missing, axis=0)]) if missing else part
