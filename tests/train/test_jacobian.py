"""The derivative of the implicit weights that is written by hand, against differences and automatic derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.train.jacobian import weights_and_jacobian

_BATCH, _DIM = 5, 3


def last_row(flows: np.ndarray, S: np.ndarray) -> np.ndarray:
    """The x part of the last row of A_L .. A_1, by multiplying the layers out, in NumPy."""
    size = S.shape[-1]
    product = np.eye(size)
    for (xx, xy), (yx, yy) in flows:
        W = np.full((size, size), xx)
        W[:-1, -1], W[-1, :-1], W[-1, -1] = xy, yx, yy
        A = np.eye(size) + W * S
        S, product = A @ S @ A.T, A @ product
    return product[-1, :-1]


def problem(rng: np.random.Generator, layers: int, shared: bool, r: int):
    tokens = rng.normal(size=(_BATCH, 8, _DIM + 1))
    S = tokens.swapaxes(1, 2) @ tokens / 8
    probes = rng.normal(size=(_DIM, r) if shared else (_BATCH, _DIM, r))
    return 0.3 * rng.normal(size=(layers, 2, 2)), S, probes


def answers(flows: np.ndarray, S: np.ndarray, probes: np.ndarray) -> np.ndarray:
    rows = np.stack([last_row(flows, one) for one in S])
    return np.einsum("bd,bdr->br", rows, np.broadcast_to(probes, (len(S), *probes.shape[-2:])))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("shared, r", [(True, 3), (True, 2), (False, 1), (False, 3)])
def test_against_central_differences(x64, rng, layers, shared, r):
    flows, S, probes = problem(rng, layers, shared, r)
    rows, jacobian = weights_and_jacobian(
        jnp.asarray(flows), jnp.asarray(layers), jnp.asarray(S), jnp.asarray(probes)
    )
    step, expected = 1e-5, np.zeros((_BATCH, r, flows.size))
    for k in range(flows.size):
        shift = np.zeros(flows.size)
        shift[k] = step
        ahead, behind = (answers(flows + sign * shift.reshape(flows.shape), S, probes) for sign in (1, -1))
        expected[:, :, k] = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(rows, [last_row(flows, one) for one in S], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_against_reverse_mode(x64, rng, layers):
    flows, S, probes = (jnp.asarray(each) for each in problem(rng, layers, False, 2))

    def answer(flat, S, probe):
        product = jnp.eye(_DIM + 1)
        for layer in flat.reshape(-1, 2, 2):
            xx, xy, yx, yy = layer.reshape(-1)
            W = jnp.block(
                [[xx * jnp.ones((_DIM, _DIM)), xy * jnp.ones((_DIM, 1))], [yx * jnp.ones((1, _DIM)), yy]]
            )
            A = jnp.eye(_DIM + 1) + W * S
            S, product = A @ S @ A.T, A @ product
        return product[-1, :-1] @ probe

    expected = jax.jit(jax.vmap(jax.jacrev(answer), (None, 0, 0)))(flows.reshape(-1), S, probes)
    _, jacobian = weights_and_jacobian(flows, jnp.asarray(layers), S, probes)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())
