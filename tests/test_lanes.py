"""Small matrices with their batch last, against NumPy on one matrix at a time and automatic derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop import lanes

_D, _LANES = 4, 3


def first(a):
    """The same with its lanes first, as NumPy's matrix routines want them."""
    return np.moveaxis(np.asarray(a), -1, 0)


def symmetric(rng, count=_LANES):
    S = rng.normal(size=(_D, _D, count))
    return jnp.asarray(S + S.swapaxes(0, 1))


@pytest.fixture
def operands(x64, rng):
    return jnp.asarray(rng.normal(size=(_D, _D, _LANES))), symmetric(rng)


def test_products(operands):
    A, S = operands
    np.testing.assert_allclose(first(lanes.product(A, S)), first(A) @ first(S), rtol=1e-13, atol=1e-13)
    expected = first(A) @ first(S) @ first(A).swapaxes(1, 2)
    np.testing.assert_allclose(first(lanes.conjugate(A, S)), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        first(lanes.mix(A[:, :, 0], S)), first(A)[0] @ first(S), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("name", ["product", "conjugate", "mix"])
def test_derivatives_written_by_hand(operands, rng, name):
    """Against those of the plain expression, for a symmetric S that depends on a parameter."""
    A, S = operands
    A = A[:, :, 0] if name == "mix" else A
    weight = jnp.asarray(rng.normal(size=(_D, _D, _LANES)))
    plain = {
        "product": lambda A, S: jnp.einsum("ikb,kjb->ijb", A, S),
        "conjugate": lambda A, S: jnp.einsum("ikb,klb,jlb->ijb", A, S, A),
        "mix": lambda A, S: jnp.einsum("ik,kjb->ijb", A, S),
    }[name]

    def slopes(function):
        def value(A, s):
            return (weight * function(A, s * S)).sum()

        return jax.grad(value, argnums=(0, 1))(A, 0.7)

    for mine, expected in zip(slopes(getattr(lanes, name)), slopes(plain), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("count", [1, 7, 64, 65, 96, 100, 288, 1024])
def test_blocks_hold_every_sequence_once(count):
    number, size = lanes.blocks(count)
    assert count <= number * size < count + 8 * number
    batch = jnp.arange(2.0 * count).reshape(count, 2)
    parts = lanes.split(batch)
    assert parts.shape == (number, 2, size)
    np.testing.assert_array_equal(lanes.join(parts, count), batch)
    np.testing.assert_array_equal(lanes.cut(batch.T), parts)
    doubled = lanes.each(lambda block: 2 * block, parts)
    np.testing.assert_array_equal(lanes.join(doubled, count), 2 * batch)
