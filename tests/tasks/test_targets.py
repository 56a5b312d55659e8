"""The targets of training, which avoid eigenvectors, against the posterior, which has them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.tasks import LinearRegression
from innerloop.types import Moments

_COVARIANCE = np.array([[1.5, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.6]])
_TASKS = {
    "paper": LinearRegression(10, 20, "uniform(0,5)"),
    "long": LinearRegression(10, 100_000, "uniform(0,5)"),
    "one more example than features": LinearRegression(4, 5, "uniform(0,2)"),
    "one feature": LinearRegression(1, 3, "uniform(0,2)"),
    "no noise": LinearRegression(10, 20, "fixed(0)"),
    "nearly none": LinearRegression(3, 6, "uniform(0,0.001)"),
    "categorical, correlated": LinearRegression(3, 7, "categorical(1,3)", _COVARIANCE, _COVARIANCE),
    "fewer examples than features": LinearRegression(6, 4, "uniform(0,2)"),
}


def posterior_means(task: LinearRegression, moments: Moments, objective: str):
    def one(S, sigma):
        posterior = task.posterior(Moments(S=S, n=task.context))
        return posterior.ridge(sigma) if objective == "oracle" else posterior.mean_and_spread()[0]

    return jax.jit(jax.vmap(one))(moments.S, moments.sigma)


@pytest.mark.parametrize("name", _TASKS)
@pytest.mark.parametrize("objective", ["oracle", "bayes"])
def test_against_the_posterior(x64, key, name, objective):
    """40 contexts in float64. Rounding grows with the condition of Sigma, up to 1e6 here."""
    task = _TASKS[name]
    moments = task.sample_moments(key, 40)
    S = jnp.moveaxis(moments.S, 0, -1)
    target = eqx.filter_jit(task.targets_in_lanes)(S, moments.sigma if objective == "oracle" else None)
    np.testing.assert_allclose(target.T, posterior_means(task, moments, objective), rtol=1e-7, atol=1e-8)


def test_single_precision(key):
    """As near to double precision as the posterior in single precision is, within a factor of ten, on the paper's task."""
    task = _TASKS["paper"]
    moments = task.sample_moments(key, 1000)
    single = np.asarray(eqx.filter_jit(task.targets_in_lanes)(jnp.moveaxis(moments.S, 0, -1))).T
    other = np.asarray(posterior_means(task, moments, "bayes"))
    with jax.enable_x64(True):
        S, sigma = (np.asarray(each, np.float64) for each in (moments.S, moments.sigma))
        exact = np.asarray(posterior_means(task, Moments(S=S, n=20, sigma=sigma), "bayes"))
    assert np.abs(single - exact).max() < 10 * np.abs(other - exact).max() < 1e-2


def test_nothing_was_seen(x64):
    """Contexts of zeros, such as fill up a block, say nothing: the weights are zero, and no NaN comes out."""
    S = jnp.zeros((11, 11, 2)).at[:, :, 1].set(jnp.eye(11))
    target = np.asarray(eqx.filter_jit(_TASKS["paper"].targets_in_lanes)(S))
    np.testing.assert_array_equal(target[:, 1], 0)


@pytest.mark.parametrize("name", _TASKS)
def test_what_is_left_to_lose_is_the_posteriors(x64, key, name):
    """w_bayes, spread, oracle loss and rss of 40 contexts, in float64. With nearly no noise rss keeps few
    of its digits, a difference of sums of squares 1e10 times larger, and so does what it says about sigma."""
    task = _TASKS[name]
    S = task.sample_moments(key, 40).S

    def one(S):
        posterior = task.posterior(Moments(S=S, n=task.context))
        return *posterior.mean_and_spread(), posterior.oracle_loss(), posterior.rss

    mean, *others, rss = eqx.filter_jit(task.judged_in_lanes)(jnp.moveaxis(S, 0, -1))
    *expected, expected_rss = jax.jit(jax.vmap(one))(S)
    for ours, theirs in zip((mean.T, *others), expected, strict=True):
        atol = 1e-9 * float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-3 if name == "nearly none" else 1e-6, atol=atol)
    # A difference of two sums of squares, which may be zero.
    np.testing.assert_allclose(rss, expected_rss, rtol=1e-6, atol=1e-12 * float(jnp.abs(S).max()))
