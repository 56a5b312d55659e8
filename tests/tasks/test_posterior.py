"""The posterior of the weights, against sums over grids, the Gaussian process form and scikit-learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from innerloop.tasks import Categorical, Fixed, LinearRegression, NoiseLaw, Posterior, Uniform
from innerloop.types import Moments
from reference.posterior import by_grid, by_kernel, simpson


def data(rng: np.random.Generator, n: int, dim: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, dim))
    return x, x @ rng.normal(size=dim) + sigma * rng.normal(size=n)


def moments_of(x: np.ndarray, y: np.ndarray) -> Moments:
    tokens = np.column_stack([x, y])
    return Moments(S=jnp.asarray(tokens.T @ tokens, dtype=float), n=len(y))


@eqx.filter_jit
def answer(task: LinearRegression, moments: Moments):
    """E[w | X, y], the spread, the levels' probabilities, and the oracle's loss."""
    posterior = task.posterior(moments)
    return *posterior.mean_and_spread(), posterior.noise_levels()[1], posterior.oracle_loss()


@eqx.filter_jit
def ridge(moments: Moments, sigma) -> jax.Array:
    return Posterior.of(moments, Fixed(1)).ridge(sigma)


def levels(law: NoiseLaw, intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """The law as levels and weights, without its own quadrature."""
    if isinstance(law, Uniform):
        return simpson(law.low, law.high, intervals)
    return np.array(law.arguments()), np.full(len(law.arguments()), 1 / len(law.arguments()))


@pytest.mark.parametrize("law", [Uniform(0.4, 3), Categorical(0.5, 1, 3)], ids=str)
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("dim", [1, 2])
def test_answers_are_integrals_over_weights_and_levels(x64, rng, dim, n, law):
    """Relative 1e-6: the grid's trapezoid rule is exact to rounding for Gaussians, Simpson's to 1e-8."""
    x, y = data(rng, n, dim, sigma=1)
    expected = by_grid(x, y, *levels(law, 300), radius=7, step=0.1)
    mean, spread, _, oracle = answer(LinearRegression(dim, n, law), moments_of(x, y))
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(spread, expected.spread, rtol=1e-6)
    np.testing.assert_allclose(oracle, expected.oracle, rtol=1e-6)


@pytest.mark.parametrize("law", [Uniform(0, 5), Categorical(1, 3, 5)], ids=str)
@pytest.mark.parametrize("n", [1, 4, 10, 11, 20])
def test_answers_for_every_length_of_context(x64, rng, n, law):
    """Ten features, levels down to zero, against the n x n form: 1e-5 of the largest weight."""
    x, y = data(rng, n, 10, sigma=2)
    law_levels, weights = levels(law, 2000)
    if law_levels[0] == 0:
        law_levels[0] = (
            1e-3  # at zero the n x n form is singular for n > dim; and the evidence is flat there, or nil
        )
    expected = by_kernel(x, y, law_levels, weights)
    mean, spread, probability, oracle = answer(LinearRegression(10, n, law), moments_of(x, y))
    np.testing.assert_allclose(mean, expected.mean, rtol=0, atol=1e-5 * np.abs(expected.mean).max())
    np.testing.assert_allclose(spread, expected.spread, rtol=1e-4)
    np.testing.assert_allclose(oracle, expected.oracle, rtol=1e-5)
    assert float(probability.sum()) == pytest.approx(1, abs=1e-12)
    if isinstance(law, Categorical):
        np.testing.assert_allclose(probability, expected.probability, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 12])
def test_correlated_inputs_and_weights(x64, rng, n):
    """The prior's covariance enters the posterior, the inputs' only the norm of the spread. Relative 1e-5."""
    inputs, prior = (root @ root.T for root in rng.normal(size=(2, 3, 3)))
    task = LinearRegression(3, n, "uniform(0.5,4)", inputs, prior)
    x = rng.multivariate_normal(np.zeros(3), inputs, size=n)
    y = x @ rng.multivariate_normal(np.zeros(3), prior) + rng.normal(size=n)
    expected = by_kernel(x, y, *simpson(0.5, 4, 400), prior=prior, query=inputs)
    mean, spread, _, oracle = answer(task, moments_of(x, y))
    np.testing.assert_allclose(mean, expected.mean, rtol=0, atol=1e-5 * np.abs(expected.mean).max())
    np.testing.assert_allclose(spread, expected.spread, rtol=1e-5)
    np.testing.assert_allclose(oracle, expected.oracle, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("n", [3, 20])
def test_ridge_is_that_of_scikit_learn(x64, rng, n, sigma):
    """Relative 1e-10; alpha there is sigma^2 here."""
    x, y = data(rng, n, 5, sigma=1)
    expected = Ridge(alpha=sigma**2, fit_intercept=False).fit(x, y).coef_
    np.testing.assert_allclose(ridge(moments_of(x, y), jnp.asarray(sigma)), expected, rtol=1e-10)


@pytest.mark.parametrize("n", [3, 5, 12])
def test_ridge_without_noise_is_least_squares_of_least_norm(x64, rng, n):
    """Relative 1e-6 (the Gram matrix squares the condition number), and ridge tends to it as sigma -> 0."""
    x, y = data(rng, n, 5, sigma=0.5)
    moments, expected = moments_of(x, y), np.linalg.lstsq(x, y)[0]
    np.testing.assert_allclose(ridge(moments, jnp.asarray(0.0)), expected, rtol=1e-6)
    np.testing.assert_allclose(ridge(moments, jnp.asarray(1e-5)), expected, rtol=1e-6)


@pytest.mark.parametrize("law", [Fixed(0), Uniform(0, 7), Categorical(0, 1, 3)], ids=str)
@pytest.mark.parametrize("n", [3, 5, 12])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_exact_data_are_no_trouble(rng, law, n, precision):
    """Labels without noise: all is finite, probabilities sum to one, and weights are recovered if n > dim.

    To 1e-2 in float32, 1e-4 in float64, where the law's lowest node, 0.005, is what is left of the noise;
    n = dim may be conditioned as badly as it likes, so there only finiteness counts.
    """
    with jax.enable_x64(precision == np.float64):
        x, y = data(rng, n, 5, sigma=0)
        moments = moments_of(x, y)
        assert moments.S.dtype == precision
        mean, spread, probability, oracle = answer(LinearRegression(5, n, law), moments)
        assert mean.dtype == precision
        assert np.isfinite(mean).all() and np.isfinite(ridge(moments, jnp.asarray(0.0))).all()
        assert 0 <= float(spread) < np.inf
        # Where nothing was seen the prior is left, half a unit a dimension.
        assert max(5 - n, 0) / 2 - 1e-5 <= float(oracle) <= 5 / 2
        assert float(probability.sum()) == pytest.approx(1, abs=1e-5)
        if n > 5:
            atol = 1e-2 if precision == np.float32 else 1e-4
            np.testing.assert_allclose(mean, np.linalg.lstsq(x, y)[0], atol=atol)


def test_a_law_with_a_level_of_zero_tells_exact_from_noisy_data(x64, rng):
    """Twelve labels in five dimensions: exact ones put all probability on zero, noisy ones none."""
    x, exact = data(rng, 12, 5, sigma=0)
    noisy = exact + rng.normal(size=12)
    task = LinearRegression(5, 12, Categorical(0, 1, 3))
    np.testing.assert_allclose(answer(task, moments_of(x, exact))[2], [1, 0, 0], atol=1e-12)
    expected = by_kernel(x, noisy, np.array([1.0, 3.0]), np.ones(2))
    mean, _, probability, _ = answer(task, moments_of(x, noisy))
    np.testing.assert_allclose(probability, [0, *expected.probability], atol=1e-9)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-8)


def test_a_level_of_zero_is_an_ordinary_level_when_data_are_few(x64, rng):
    """For n < dim exact fits are not surprising: the evidence at zero is finite. Relative 1e-6."""
    x, y = data(rng, 3, 5, sigma=1)
    expected = by_kernel(x, y, np.array([0.0, 1.0, 3.0]), np.ones(3))
    mean, spread, probability, oracle = answer(LinearRegression(5, 3, Categorical(0, 1, 3)), moments_of(x, y))
    np.testing.assert_allclose(probability, expected.probability, rtol=1e-6)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(spread, expected.spread, rtol=1e-6)
    np.testing.assert_allclose(oracle, expected.oracle, rtol=1e-6)


def test_a_fixed_level_leaves_no_spread(x64, rng):
    x, y = data(rng, 7, 3, sigma=1)
    moments = moments_of(x, y)
    mean, spread, _, _ = answer(LinearRegression(3, 7, Fixed(1.5)), moments)
    np.testing.assert_allclose(mean, ridge(moments, jnp.asarray(1.5)), rtol=1e-13)
    assert float(spread) == 0


def test_rotating_the_inputs_rotates_the_posterior_mean(x64, rng):
    """w_bayes(x R^T, y) = R w_bayes(x, y), and the spread stays; to 1e-9."""
    x, y = data(rng, 8, 4, sigma=1)
    R = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    task = LinearRegression(4, 8, Uniform(0, 5))
    mean, spread, *_ = answer(task, moments_of(x, y))
    turned_mean, turned_spread, *_ = answer(task, moments_of(x @ R.T, y))
    np.testing.assert_allclose(turned_mean, R @ np.asarray(mean), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(turned_spread, spread, rtol=1e-8)


def test_single_precision_is_close_to_double(rng):
    """Of 256 sequences of the tables' problem, every weight within 1e-3 (weights are of order one)."""
    task = LinearRegression(10, 20, Uniform(0, 5))
    contexts = [np.column_stack(data(rng, 20, 10, sigma)) for sigma in rng.uniform(0, 5, size=256)]
    S = np.stack([tokens.T @ tokens for tokens in contexts])

    @eqx.filter_jit
    def both(S):
        def one(S):
            return task.posterior(Moments(S=S, n=20)).mean_and_spread()

        return jax.vmap(one)(S)

    single = both(jnp.asarray(S, dtype=jnp.float32))
    with jax.enable_x64(True):
        double = both(jnp.asarray(S))
    assert single[0].dtype == jnp.float32 and double[0].dtype == jnp.float64
    np.testing.assert_allclose(single[0], double[0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(single[1], double[1], rtol=1e-2, atol=1e-5)
