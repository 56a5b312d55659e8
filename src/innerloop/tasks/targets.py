"""w_sigma, w_bayes and what belongs to them for many contexts at once: `Posterior` without its eigenvectors.

Householder reflections, the first of which takes alpha to beta e_1, bring Sigma to a tridiagonal T, once a context. Then
for every noise level (T + sigma^2) z = beta e_1 is one recurrence up and one down: with diagonal t, off-diagonal e,

    p_d = t_d + sigma^2,  p_k = t_k + sigma^2 - e_k^2 / p_{k+1},    z_1 = beta / p_1,  z_{k+1} = -e_k z_k / p_{k+1}

and log det(Sigma + sigma^2) = sum log p_k, whose derivative by sigma^2 is tr (Sigma + sigma^2)^-1. With
w_ols = Sigma^-1 alpha the evidence of `Posterior` is, with nothing that cancels as sigma goes to 0,

    -2 log p(y | X, sigma) = sum_k log p_k + (n - d) log sigma^2 + rss / sigma^2 + <w_ols, w_sigma> + const

Arrays have lanes: their last axis runs over contexts. This needs n > dim; fewer examples leave Sigma singular.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop import lanes
from innerloop.tasks.noise import NoiseLaw
from innerloop.tasks.posterior import nodes, smallest_variance


def ridge_in_lanes(
    S: Float[Array, "D D lanes"], sigma: Float[Array, "lanes"], prior_root: Float[Array, "dim dim"] | None
) -> Float[Array, "dim lanes"]:
    """w_sigma of every context for its own sigma."""
    gram, correlation = _whitened(S, prior_root)
    system, beta, reflections = _tridiagonal(gram, correlation)
    _, z = _solved(system, beta, sigma[None] ** 2)
    return _unwhitened(_reflected_back(z[:, 0], reflections), prior_root)


def bayes_in_lanes(
    S: Float[Array, "D D lanes"], n: int, noise: NoiseLaw, prior_root: Float[Array, "dim dim"] | None
) -> Float[Array, "dim lanes"]:
    """w_bayes of every context of n > dim examples."""
    known = _levels(S, n, noise, prior_root)
    mean = (known.probability[None] * known.z).sum(1)
    return _unwhitened(_reflected_back(mean, known.reflections), prior_root)


def judged_in_lanes(S: Float[Array, "D D lanes"], n: int, noise: NoiseLaw):
    """As `Posterior` has them for the prior N(0, I) and queries N(0, I), for n > dim: w_bayes `(dim, lanes)`, and of every
    context its spread, its oracle loss and the residual sum of squares of least squares."""
    known = _levels(S, n, noise, None)
    mean = (known.probability[None] * known.z).sum(1)
    deviation = lanes.total((known.z[k] - mean[k][None]) ** 2 for k in range(len(mean)))
    left = known.squares * _trace_of_inverse(known.system, known.inverse)
    spread, oracle = (0.5 * (known.probability * each).sum(0) for each in (deviation, left))
    return _reflected_back(mean, known.reflections), spread, oracle, known.rss


class _Levels(NamedTuple):
    """The noise levels of every context and what belongs to them, in tridiagonal coordinates."""

    squares: Float[Array, "m 1"]  # sigma^2
    probability: Float[Array, "m lanes"]
    z: Float[Array, "dim m lanes"]
    inverse: Float[Array, "dim m lanes"]  # 1 / p_k
    rss: Float[Array, "lanes"]
    system: tuple[Float[Array, "dim lanes"], Float[Array, "dim lanes"]]
    reflections: list


def _levels(S, n: int, noise: NoiseLaw, prior_root) -> _Levels:
    points, weights = nodes(noise, n)
    levels = jnp.asarray(points, S.dtype)[:, None]
    gram, correlation = _whitened(S, prior_root)
    system, beta, reflections = _tridiagonal(gram, correlation)
    dim = len(gram)
    _, ols = _solved(system, beta, jnp.zeros_like(beta)[None])
    rss = jnp.maximum(S[-1, -1] - beta * ols[0, 0], 0)
    if len(points) == 1:
        inverse, z = _solved(system, beta, jnp.broadcast_to(levels**2, (1, len(beta))))
        return _Levels(levels**2, jnp.ones_like(z[0]), z, inverse, rss, system, reflections)
    variance = jnp.maximum(levels**2, smallest_variance(_mean_eigenvalue(system))[None])
    inverse, z = _solved(system, beta, variance)
    minus_two_log = (
        (n - dim) * jnp.log(variance)
        + rss[None] / variance
        + lanes.total(ols[k] * z[k] for k in range(dim))
        # Two factors at a time: half as many logarithms, and no product can overflow.
        - lanes.total(jnp.log(inverse[k : k + 2].prod(0)) for k in range(0, dim, 2))
    )
    likelihood = jnp.log(jnp.asarray(weights, S.dtype))[:, None] - minus_two_log / 2
    likelihood = jnp.exp(likelihood - likelihood.max(0, keepdims=True))
    probability = likelihood / likelihood.sum(0, keepdims=True)
    return _Levels(levels**2, probability, z, inverse, rss, system, reflections)


def _whitened(S, prior_root):
    """Gram matrix and correlation of the problem whose prior is N(0, I)."""
    gram, correlation = S[:-1, :-1], S[:-1, -1]
    if prior_root is None:
        return gram, correlation
    half = jnp.tensordot(prior_root.T, gram, 1)
    return jnp.tensordot(prior_root.T, half.swapaxes(0, 1), 1), jnp.tensordot(prior_root.T, correlation, 1)


def _unwhitened(weights, prior_root):
    return weights if prior_root is None else jnp.tensordot(prior_root, weights, 1)


def _tridiagonal(gram: Float[Array, "dim dim lanes"], vector: Float[Array, "dim lanes"]):
    """T's diagonal and off-diagonal, beta, and the reflections `(v, v^T v)` that lead there, first to last."""
    dim = len(vector)
    row = jnp.arange(dim)[:, None]

    def reflect(carry, k):
        gram, x = carry
        x = jnp.where(row >= k, x, 0)
        norm = jnp.sqrt(lanes.dot(x, x))
        signed = jnp.where(jnp.take(x, k, axis=0) >= 0, norm, -norm)
        v = x + jnp.where(row == k, signed[None], 0)
        square = lanes.dot(v, v)
        square = jnp.where(square > 0, square, 1)
        p = 2 * lanes.total(gram[:, j] * v[j][None] for j in range(dim)) / square[None]
        w = p - (lanes.dot(p, v) / square)[None] * v
        gram = gram - v[:, None] * w[None] - w[:, None] * v[None]
        return (gram, jnp.take(gram, k, axis=1)), (v, square, -signed)

    (gram, _), (*reflections, beta) = jax.lax.scan(reflect, (gram, vector), jnp.arange(max(1, dim - 1)))
    diagonal = jnp.stack([gram[k, k] for k in range(dim)])
    beside = jnp.stack([gram[k, k + 1] for k in range(dim - 1)] + [jnp.zeros_like(beta[0])])
    return (diagonal, beside), beta[0], reflections


def _solved(system, beta: Float[Array, "lanes"], variance: Float[Array, "m lanes"]):
    """1 / p_k and z_k for every k, level and lane, both `(dim, m, lanes)`."""
    diagonal, beside = system
    # No smaller than rounding leaves it: a pivot of a positive matrix is positive.
    least = jnp.finfo(variance.dtype).eps * _mean_eigenvalue(system)[None]

    def up(inverse, entries):
        t, e = entries
        inverse = 1 / jnp.maximum(t[None] + variance - (e**2)[None] * inverse, least)
        return inverse, inverse

    def down(z, entries):
        e, inverse = entries
        z = -e[None] * z * inverse
        return z, z

    _, inverse = jax.lax.scan(up, jnp.zeros_like(variance), (diagonal, beside), reverse=True)
    into = jnp.concatenate([-beta[None], beside[:-1]])
    _, z = jax.lax.scan(down, jnp.ones_like(variance), (into, inverse))
    return inverse, z


def _trace_of_inverse(system, inverse: Float[Array, "dim m lanes"]) -> Float[Array, "m lanes"]:
    """tr (T + sigma^2)^-1, the derivative of log det by sigma^2, from the pivots' own derivatives."""
    _, beside = system

    def up(carry, entries):
        slope, below, trace = carry
        e, inverse = entries
        slope = 1 + (e[None] * below) ** 2 * slope
        return (slope, inverse, trace + slope * inverse), None

    nothing = jnp.zeros_like(inverse[0])
    (_, _, trace), _ = jax.lax.scan(up, (nothing, nothing, nothing), (beside, inverse), reverse=True)
    return trace


def _mean_eigenvalue(system) -> Float[Array, "lanes"]:
    return lanes.total(system[0]) / len(system[0])


def _reflected_back(z: Float[Array, "dim lanes"], reflections) -> Float[Array, "dim lanes"]:
    def reflect(z, reflection):
        v, square = reflection
        return z - v * (2 * lanes.dot(v, z) / square)[None], None

    return jax.lax.scan(reflect, z, tuple(reflections), reverse=True)[0]
