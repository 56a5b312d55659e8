"""Small matrices by the thousand: arrays whose last axis runs over sequences, the *lanes* of a processor's vector unit.

A batch of 11 x 11 products is slow as a batch: the matrices are too small for a processor to work on one by one. With the
batch last, every scalar of the algorithm is a vector over sequences. On a CPU the work goes block by block, so that what
is between two steps stays in cache; an accelerator takes all blocks at once.

XLA fuses a sum of products into whatever reads it, and computes it anew for every element there. Products that depend on
each other are therefore steps of a scan, and a quotient, which XLA keeps, ends what several elements read.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LANES = 64  # about what the first-level cache holds of some 11 x 11 matrices


def blocks(count: int) -> tuple[int, int]:
    """How many blocks `count` sequences make, and how many lanes each has; a few lanes at the end may be spare."""
    number = max(1, round(count / _LANES))
    share = -(-count // number)
    return number, share if number == 1 else -(-share // 8) * 8


def each(function: Callable, *arrays):
    """`function` of every block, along the leading axis: in turn on a CPU, together elsewhere."""
    if jax.tree.leaves(arrays)[0].shape[0] == 1:
        once = function(*jax.tree.map(lambda leaf: leaf[0], arrays))
        return jax.tree.map(lambda leaf: leaf[None], once)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda block: function(*block), arrays)
    return jax.vmap(function)(*arrays)


def split(batch: Float[Array, "N ..."]) -> Float[Array, "blocks ... lanes"]:
    """A batch as blocks of lanes; spare lanes are zero."""
    return cut(jnp.moveaxis(batch, 0, -1))


def join(parts: Float[Array, "blocks ... lanes"], count: int) -> Float[Array, "N ..."]:
    """The first `count` sequences of blocks of lanes as a batch."""
    parts = jnp.moveaxis(parts, 0, -2)
    return jnp.moveaxis(parts.reshape(*parts.shape[:-2], -1)[..., :count], -1, 0)


def cut(lanes: Float[Array, "... N"]) -> Float[Array, "blocks ... lanes"]:
    """Lanes of a whole batch as blocks; spare lanes are zero."""
    count = lanes.shape[-1]
    number, size = blocks(count)
    padded = jnp.pad(lanes, [(0, 0)] * (lanes.ndim - 1) + [(0, number * size - count)])
    return jnp.moveaxis(padded.reshape(*lanes.shape[:-1], number, size), -2, 0)


def total(terms):
    """Their sum, term by term: a sum over a short leading axis that runs along the lanes."""
    return functools.reduce(operator.add, terms)


def transpose(a: Float[Array, "i j *lanes"]) -> Float[Array, "j i *lanes"]:
    return a.swapaxes(0, 1)


def dot(a: Float[Array, "k *lanes"], b: Float[Array, "k *lanes"]) -> Float[Array, "*lanes"]:
    return total(a[k] * b[k] for k in range(a.shape[0]))


@jax.custom_vjp
def product(a: Float[Array, "i k lanes"], b: Float[Array, "k j lanes"]) -> Float[Array, "i j lanes"]:
    """The matrix product of every lane."""
    return total(a[:, k, None] * b[None, k] for k in range(a.shape[1]))


def _product_pulled(saved, g):
    a, b = saved
    return product(g, transpose(b)), product(transpose(a), g)


product.defvjp(lambda a, b: (product(a, b), (a, b)), _product_pulled)


@jax.custom_vjp
def conjugate(A: Float[Array, "i i lanes"], S: Float[Array, "i i lanes"]) -> Float[Array, "i i lanes"]:
    """A S A^T of every lane, for symmetric S; its derivative is for symmetric perturbations of S."""

    def step(carry, _):
        left, right = carry
        return (product(left, right), transpose(left)), None  # A S, then (A S) A^T

    (conjugated, _), _ = jax.lax.scan(step, (A, S), length=2)
    return conjugated


def _conjugate_pulled(saved, g):
    A, S = saved
    g = (g + transpose(g)) / 2

    def step(carry, first):
        last, _ = carry
        left, right = jnp.where(first, g, transpose(A)), jnp.where(first, A, last)
        return (product(left, right), last), None  # G A, then A^T (G A)

    zero = jnp.zeros_like(A)
    (d_S, GA), _ = jax.lax.scan(step, (zero, zero), jnp.array([True, False]))
    return 2 * product(GA, S), d_S


conjugate.defvjp(lambda A, S: (conjugate(A, S), (A, S)), _conjugate_pulled)


@jax.custom_vjp
def mix(P: Float[Array, "i k"], S: Float[Array, "k j lanes"]) -> Float[Array, "i j lanes"]:
    """P S with one P for all lanes."""
    return jnp.tensordot(P, S, 1)


def _mix_pulled(saved, g):
    P, S = saved
    return jnp.einsum("ijb,kjb->ik", g, S), mix(P.T, g)


mix.defvjp(lambda P, S: (mix(P, S), (P, S)), _mix_pulled)
