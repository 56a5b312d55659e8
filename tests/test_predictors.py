"""Predictors against scikit-learn, NumPy, numerical integration, closed forms, and published numbers."""

import csv
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from innerloop.predictors import (
    OLS,
    AdaRR,
    Averaging,
    BayesOptimal,
    ConjugateGradient,
    ConstRR,
    GradientDescent,
    HeavyBall,
    RidgeOracle,
    TunedRR,
)
from innerloop.tasks import Fixed, LinearRegression, Uniform
from innerloop.types import Moments, Predictor

BLOCK = 512


@pytest.fixture(scope="module")
def task():
    return LinearRegression(10, 20, "uniform(0,5)")


def covariance(rng, dim):
    """A well-conditioned covariance that is no multiple of the identity."""
    root = rng.normal(size=(dim, dim)) / dim**0.5
    return root @ root.T + 0.3 * np.eye(dim)


def sample(task, key, blocks):
    """`blocks * BLOCK` sequences of moments, with the latents, in a leading axis of blocks."""
    draws = [task.sample_moments(key, BLOCK) for key in jax.random.split(key, blocks)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *draws)


def adjusted_losses(task, predictors, moments):
    """Adjusted loss of each sequence with the conditional mean in place of w_sigma: regret + posterior spread."""

    def block(moments):
        mean, spread = jax.vmap(lambda one: task.posterior(one).mean_and_spread())(moments)
        regrets = [task.half_square(one.implicit_weights(moments) - mean) for one in predictors]
        return jnp.stack(regrets), spread

    regrets, spread = jax.jit(lambda moments: jax.lax.map(block, moments))(moments)
    return np.moveaxis(np.asarray(regrets), 1, 0).reshape(len(predictors), -1), np.asarray(spread).ravel()


# --- ridge ---


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("context", [4, 20])
def test_ridge_is_scikit_learns(x64, key, context, sigma):
    task = LinearRegression(6, context, Fixed(sigma))
    prompts = task.sample_prompts(key, 5)
    constant, oracle = ConstRR(task, sigma=sigma), RidgeOracle(task)
    weights, predictions = constant.implicit_weights(prompts.moments()), constant.predict(prompts)
    for i in range(5):
        fitted = Ridge(alpha=sigma**2, fit_intercept=False).fit(prompts.x[i], prompts.y[i])
        np.testing.assert_allclose(weights[i], fitted.coef_, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(
            predictions[i], fitted.predict(prompts.query[i][None])[0], rtol=1e-8, atol=1e-9
        )
    np.testing.assert_array_equal(oracle.implicit_weights(prompts.moments()), weights)


def test_the_oracle_uses_each_sequences_own_level(x64, key, task):
    prompts = task.sample_prompts(key, 4)
    weights = RidgeOracle(task).implicit_weights(prompts.moments())
    for i in range(4):
        fitted = Ridge(alpha=float(prompts.sigma[i]) ** 2, fit_intercept=False).fit(
            prompts.x[i], prompts.y[i]
        )
        np.testing.assert_allclose(weights[i], fitted.coef_, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("context", [3, 6, 20])
def test_ols_is_numpys_least_squares(x64, key, context):
    """Below dim examples both give the solution of least norm."""
    task = LinearRegression(6, context, "fixed(1)")
    prompts = task.sample_prompts(key, 5)
    weights = OLS(task).implicit_weights(prompts.moments())
    for i in range(5):
        expected = np.linalg.lstsq(np.asarray(prompts.x[i]), np.asarray(prompts.y[i]))[0]
        # Squaring X in the Gram matrix squares its condition number, which is large at context = dim.
        np.testing.assert_allclose(weights[i], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("context", [3, 20])
def test_ridge_tends_to_ols_as_noise_vanishes(x64, key, context):
    task = LinearRegression(6, context, "fixed(1)")
    moments = task.sample_moments(key, 8)
    exact = OLS(task).implicit_weights(moments)
    gaps = [
        np.abs(ConstRR(task, sigma=s).implicit_weights(moments) - exact).max() for s in (1e-1, 1e-2, 1e-3)
    ]
    # The gap is of order sigma^2: a hundred times smaller each time.
    np.testing.assert_allclose(np.divide(gaps[1:], gaps[:-1]), 1e-2, rtol=0.1)


@pytest.mark.parametrize("context", [3, 12])
def test_the_prior_covariance_enters_ridge(x64, key, rng, context):
    """Against (Sigma + sigma^2 C^-1)^-1 alpha, formed with dense inverses."""
    prior = covariance(rng, 5)
    task = LinearRegression(5, context, "fixed(1)", covariance(rng, 5), prior)
    prompts = task.sample_prompts(key, 6)
    x, y = np.asarray(prompts.x), np.asarray(prompts.y)
    weights = ConstRR(task, sigma=0.7).implicit_weights(prompts.moments())
    for i in range(6):
        dense = np.linalg.inv(x[i].T @ x[i] + 0.49 * np.linalg.inv(prior)) @ x[i].T @ y[i]
        np.testing.assert_allclose(weights[i], dense, rtol=1e-9)


def test_ols_below_dim_examples_has_the_least_prior_norm(x64, key, rng):
    """Against the constrained minimum C X^T (X C X^T)^-1 y."""
    prior = covariance(rng, 5)
    task = LinearRegression(5, 3, "fixed(1)", weight_covariance=prior)
    prompts = task.sample_prompts(key, 6)
    x, y = np.asarray(prompts.x), np.asarray(prompts.y)
    weights = OLS(task).implicit_weights(prompts.moments())
    for i in range(6):
        expected = prior @ x[i].T @ np.linalg.solve(x[i] @ prior @ x[i].T, y[i])
        np.testing.assert_allclose(weights[i], expected, rtol=1e-8)


def test_estimated_noise_is_that_of_the_residuals(x64, key, task):
    """AdaRR and TunedRR against residuals of NumPy's least squares and scikit-learn's ridge."""
    prompts = task.sample_prompts(key, 20)
    ada = AdaRR(task).implicit_weights(prompts.moments())
    tuned = TunedRR(task, factor=1.5, cap=9.0).implicit_weights(prompts.moments())
    capped = 0
    for i in range(20):
        x, y = np.asarray(prompts.x[i]), np.asarray(prompts.y[i])
        variance = np.sum((y - x @ np.linalg.lstsq(x, y)[0]) ** 2) / 10
        capped += 1.5 * variance > 9
        for weights, alpha in ((ada, variance), (tuned, min(1.5 * variance, 9.0))):
            fitted = Ridge(alpha=alpha, fit_intercept=False).fit(x, y)
            np.testing.assert_allclose(weights[i], fitted.coef_, rtol=1e-7, atol=1e-9)
    assert 0 < capped < 20  # the draw has both cases


def test_estimated_noise_is_unbiased_under_a_singular_prior(x64, key):
    """Weights known to live in 2 of 4 dimensions leave n - 2 degrees of freedom; 4096 sequences, within 4 %."""
    task = LinearRegression(4, 8, "fixed(3)", weight_covariance=np.diag([1.0, 1.0, 0.0, 0.0]))
    prompts = task.sample_prompts(key, 4096)
    ada = AdaRR(task).implicit_weights(prompts.moments())
    assert np.abs(ada[:, 2:]).max() == 0
    x, y = np.asarray(prompts.x[..., :2]), np.asarray(prompts.y)
    estimates = []
    for i in range(64):
        rss = np.sum((y[i] - x[i] @ np.linalg.lstsq(x[i], y[i])[0]) ** 2)
        estimates.append(rss / 6)
        fitted = Ridge(alpha=estimates[-1], fit_intercept=False).fit(x[i], y[i])
        np.testing.assert_allclose(ada[i, :2], fitted.coef_, rtol=1e-7, atol=1e-9)


# --- iterative ---


@pytest.mark.parametrize("context", [4, 8, 30])
def test_conjugate_gradient_in_dim_steps_is_ols(x64, key, context):
    task = LinearRegression(6, context, "fixed(1)")
    moments = task.sample_moments(key, 50)
    exact = OLS(task).implicit_weights(moments)
    np.testing.assert_allclose(
        ConjugateGradient(task, 6).implicit_weights(moments), exact, rtol=1e-5, atol=1e-6
    )


def test_conjugate_gradient_minimises_over_its_krylov_space(x64, key):
    """After k steps the quadratic is least over span(alpha, Sigma alpha, ..), solved densely."""
    task = LinearRegression(6, 15, "fixed(1)")
    moments = task.sample_moments(key, 5)
    for steps in (1, 2, 4):
        weights = ConjugateGradient(task, steps).implicit_weights(moments)
        for i in range(5):
            gram, alpha = np.asarray(moments.gram[i]), np.asarray(moments.correlation[i])
            krylov = np.stack([np.linalg.matrix_power(gram / 15, k) @ alpha for k in range(steps)], 1)
            expected = krylov @ np.linalg.solve(krylov.T @ gram @ krylov, krylov.T @ alpha)
            np.testing.assert_allclose(weights[i], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_conjugate_gradient_stays_where_it_converged(x64, dtype):
    """No labels, one example, and isotropic inputs are solved in 0, 1 and 1 steps; 50 are asked for."""
    one = np.outer([3.0, 4.0, 2.0], [3.0, 4.0, 2.0])  # x = (3, 4), y = 2
    isotropic = np.array([[2.0, 0, 1], [0, 2.0, 1], [1, 1, 5]])
    silent = np.diag([2.0, 1.0, 0.0])
    moments = Moments(S=jnp.asarray(np.stack([one, isotropic, silent]), dtype), n=4)
    weights = ConjugateGradient(LinearRegression(2, 4, "fixed(0)"), 50).implicit_weights(moments)
    assert weights.dtype == dtype
    np.testing.assert_allclose(weights, [[6 / 25, 8 / 25], [0.5, 0.5], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_descent_is_the_slow_loop_over_examples(x64, key, steps, momentum):
    task = LinearRegression(4, 9, "fixed(1)")
    prompts = task.sample_prompts(key, 3)
    predictor = HeavyBall(task, steps, step_size=0.4, momentum=momentum)
    weights = predictor.implicit_weights(prompts.moments())
    for i in range(3):
        w, before = np.zeros(4), np.zeros(4)
        for _ in range(steps):
            gradient = (
                sum((x @ w - y) * x for x, y in zip(np.asarray(prompts.x[i]), prompts.y[i], strict=True)) / 9
            )
            w, before = w - 0.4 * gradient + momentum * (w - before), w
        np.testing.assert_allclose(weights[i], w, rtol=1e-10)
        np.testing.assert_allclose(predictor.predict(prompts)[i], w @ np.asarray(prompts.query[i]), rtol=1e-9)
    if momentum == 0:
        plain = GradientDescent(task, steps, step_size=0.4).implicit_weights(prompts.moments())
        np.testing.assert_allclose(plain, weights, rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 2.0])
@pytest.mark.parametrize("kind", [GradientDescent, HeavyBall])
def test_the_tuned_single_step_is_the_closed_form(kind, sigma):
    """One step is w_hat = eta alpha / n, so the best eta is n E <alpha, w> / E |alpha|^2.

    With alpha = Sigma w + sigma X^T eps, E <alpha, w> = tr E Sigma = n d, and since E Sigma^2 = n (n + d + 1) I,
    E |alpha|^2 = n d (n + d + 1) + sigma^2 n d; hence eta = n / (n + d + 1 + sigma^2). 20 480 sequences give it
    to about 0.3 %; the tolerance is 1.5 %.
    """
    dim, context = 5, 12
    tuned = kind(LinearRegression(dim, context, Fixed(sigma)), 1).tuned
    assert tuned["step_size"] == pytest.approx(context / (context + dim + 1 + sigma**2), rel=0.015)
    assert tuned.get("momentum", 0.0) == 0.0


def test_tuned_constants_beat_their_neighbours(key, task):
    """On fresh sequences, moving a tuned constant by a factor 1.25 either way does not help: paired, 20 480 sequences."""
    descent, momentum = GradientDescent(task, 4), HeavyBall(task, 4)
    constant, tuned = ConstRR(task), TunedRR(task)
    rivals = [(descent, GradientDescent(task, 4, descent.step_size * f)) for f in (0.8, 1.25)]
    rivals += [(momentum, HeavyBall(task, 4, momentum.step_size * f, momentum.momentum)) for f in (0.8, 1.25)]
    rivals += [(constant, ConstRR(task, constant.sigma * f)) for f in (0.8, 1.25)]
    rivals += [(tuned, TunedRR(task, tuned.factor * f, tuned.cap)) for f in (0.8, 1.25)]
    rivals += [(tuned, TunedRR(task, tuned.factor, tuned.cap * f)) for f in (0.8, 1.25)]
    kinds = [descent, momentum, constant, tuned, *(rival for _, rival in rivals)]
    regrets, _ = adjusted_losses(task, kinds, sample(task, key, 40))
    for own, rival in rivals:
        excess = regrets[kinds.index(rival)] - regrets[kinds.index(own)]
        assert excess.mean() > 0, (own.tuned, rival)


# --- Bayes ---


@pytest.mark.parametrize(("dim", "context"), [(1, 1), (1, 4), (2, 1), (2, 2), (2, 5)])
@pytest.mark.parametrize("prior", [False, True])
def test_bayes_is_the_integral_over_weights_and_noise(x64, key, dim, context, prior):
    """E[w | X, y] by summing prior times likelihood over a grid of (w, sigma): no formula is shared.

    The grid's rule is exact to about 1e-6 for w (the trapezoid rule of a smooth decaying function) and Gauss-Legendre
    for sigma.
    """
    spread = np.array([[1.5, 0.4], [0.4, 0.5]])[:dim, :dim] if prior else np.eye(dim)
    task = LinearRegression(dim, context, Uniform(0.5, 2.0), weight_covariance=spread)
    prompts = task.sample_prompts(key, 3)
    weights = BayesOptimal(task).implicit_weights(prompts.moments())
    axis = np.linspace(-9, 9, 241)
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)
    log_prior = -0.5 * np.einsum("gi,ij,gj->g", grid, np.linalg.inv(spread), grid)
    nodes, masses = np.polynomial.legendre.leggauss(24)
    for i in range(3):
        square = ((np.asarray(prompts.y[i])[None] - grid @ np.asarray(prompts.x[i]).T) ** 2).sum(1)
        total, first = 0.0, np.zeros(dim)
        for sigma, mass in zip(1.25 + 0.75 * nodes, masses, strict=True):
            density = mass * np.exp(log_prior - 0.5 * square / sigma**2) / sigma**context
            total, first = total + density.sum(), first + density @ grid
        np.testing.assert_allclose(weights[i], first / total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise", ["uniform(0,5)", "categorical(1,3)"])
@pytest.mark.parametrize("colored", [False, True])
def test_nothing_beats_bayes(key, rng, noise, colored):
    """Mean square distance to the true weights, in the query's norm, on 20 480 sequences: paired, to 2 standard errors."""
    shapes = (covariance(rng, 4), covariance(rng, 4)) if colored else (None, None)
    task = LinearRegression(4, 10, noise, *shapes)
    others = [
        OLS(task),
        ConstRR(task),
        AdaRR(task),
        TunedRR(task),
        GradientDescent(task, 3),
        HeavyBall(task, 3),
        ConjugateGradient(task, 2),
        Averaging(task),
    ]
    moments = sample(task, key, 40)
    losses = [
        np.asarray(task.half_square(jax.jit(one.implicit_weights)(moments) - moments.weights)).ravel()
        for one in (BayesOptimal(task), *others)
    ]
    for other, loss in zip(others, losses[1:], strict=True):
        excess = loss - losses[0]
        assert excess.mean() > 2 * excess.std() / len(excess) ** 0.5, type(other).__name__


# --- published numbers ---


def published():
    table = resources.files("innerloop") / "papers" / "published" / "vladymyrov2024_table1.csv"
    with table.open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    columns = [name for name in rows["constrr"] if name.startswith(("uniform_", "categorical_"))]
    return {
        column: [float(rows[kind][column]) for kind in ("constrr", "adarr", "tunedrr")] for column in columns
    }


PUBLISHED = published()


def test_without_noise_ridge_baselines_are_exact(x64, key):
    task = LinearRegression(10, 20, "uniform(0,1)")
    exact = LinearRegression(10, 20, "fixed(0)")
    assert PUBLISHED["uniform_0"] == [0, 0, 0]
    moments = exact.sample_moments(key, 100)
    for predictor in (ConstRR(exact), AdaRR(exact), TunedRR(exact)):
        np.testing.assert_allclose(predictor.implicit_weights(moments), moments.weights, atol=1e-9)
    assert ConstRR(task).sigma > 0.1  # the zero above is the law's, not a search that never moves


@pytest.mark.parametrize("column", [name for name in PUBLISHED if name != "uniform_0"])
def test_ridge_baselines_reproduce_table_1(key, column):
    """Adjusted loss (half squared error) of ConstRR, AdaRR, TunedRR, within 5 % or 0.002 (three printed digits).

    40 960 sequences, regret plus posterior spread: the standard error is about 1 % of the value.
    """
    name, *levels = column.split("_")
    noise = f"uniform(0,{levels[0]})" if name == "uniform" else f"categorical({','.join(levels)})"
    task = LinearRegression(10, 20, noise)
    regrets, spread = adjusted_losses(
        task, (ConstRR(task), AdaRR(task), TunedRR(task)), sample(task, key, 80)
    )
    for ours, theirs in zip((regrets + spread[None]).mean(1), PUBLISHED[column], strict=True):
        assert abs(ours - theirs) <= max(0.05 * theirs, 0.002), (ours, theirs)


# --- interface ---


def every_kind(task):
    return [
        OLS(task),
        RidgeOracle(task),
        ConstRR(task, sigma=1.0),
        AdaRR(task),
        TunedRR(task, factor=1.0, cap=2.0),
        BayesOptimal(task),
        GradientDescent(task, 3, step_size=0.5),
        HeavyBall(task, 3, step_size=0.5, momentum=0.2),
        ConjugateGradient(task, 3),
        Averaging(task),
    ]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_batches_of_any_shape_are_their_parts(x64, key, rng, dtype):
    """Leading axes, `jit` and `vmap` give what one prompt at a time gives, in the dtype of the data."""
    task = LinearRegression(3, 7, "uniform(0,2)", covariance(rng, 3), covariance(rng, 3))
    prompts = task.sample_prompts(key, 6, dtype=dtype)
    folded = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), prompts)
    tolerance = 1e-3 if dtype == jnp.float32 else 1e-9
    for predictor in every_kind(task):
        assert isinstance(predictor, Predictor) and predictor.tuned == {}
        alone = [predictor.predict(jax.tree.map(lambda leaf, i=i: leaf[i], prompts)) for i in range(6)]
        assert alone[0].shape == () and alone[0].dtype == dtype
        for batched in (
            predictor.predict(prompts),
            predictor.predict(folded).reshape(6),
            jax.jit(jax.vmap(predictor.predict))(prompts),
        ):
            assert batched.dtype == dtype
            np.testing.assert_allclose(batched, jnp.stack(alone), rtol=tolerance, atol=tolerance)
        assert predictor.implicit_weights(folded.moments()).shape == (2, 3, 3)


def test_averaging_is_the_mean_of_y_x(key, task):
    prompts = task.sample_prompts(key, 4)
    expected = (np.asarray(prompts.x) * np.asarray(prompts.y)[..., None]).mean(1)
    np.testing.assert_allclose(
        Averaging(task).implicit_weights(prompts.moments()), expected, rtol=1e-4, atol=1e-5
    )


def test_tuned_constants_are_floats_and_replay():
    task = LinearRegression(2, 4, "uniform(0,2)")
    first, again, other = TunedRR(task), TunedRR(task), TunedRR(task, seed=1)
    assert first.tuned == again.tuned == {"factor": first.factor, "cap": first.cap}
    assert first.tuned != other.tuned
    assert all(type(value) is float for value in first.tuned.values())
    partly = TunedRR(task, cap=1.5)
    assert partly.cap == 1.5 and list(partly.tuned) == ["factor"]
    assert list(HeavyBall(task, 2, momentum=0.5).tuned) == ["step_size"]
    assert list(HeavyBall(task, 2).tuned) == ["step_size", "momentum"]


# --- errors ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda task: ConstRR(task, sigma=-1.0), r"sigma must be a finite number >= 0, got -1\.0"),
        (lambda task: ConstRR(task, sigma=float("nan")), r"sigma must be a finite number >= 0, got nan"),
        (
            lambda task: TunedRR(task, factor=float("inf"), cap=1.0),
            r"factor must be a finite number >= 0, got inf",
        ),
        (lambda task: TunedRR(task, factor=1.0, cap=0.0), r"cap must be a finite number > 0, got 0\.0"),
        (lambda task: GradientDescent(task, 0), r"steps must be a whole number >= 1, got 0"),
        (lambda task: ConjugateGradient(task, -2), r"steps must be a whole number >= 1, got -2"),
        (
            lambda task: GradientDescent(task, 1, step_size=0.0),
            r"step_size must be a finite number > 0, got 0\.0",
        ),
        (
            lambda task: HeavyBall(task, 1, step_size=0.1, momentum=1.0),
            r"momentum must be a finite number >= 0 and < 1, got 1\.0",
        ),
        (lambda task: ConstRR(task, seed=-1), r"seed must be a whole number >= 0, got -1"),
    ],
)
def test_a_value_out_of_range_is_refused(task, make, message):
    with pytest.raises(ValueError, match=message):
        make(task)


def test_a_value_of_the_wrong_type_is_refused(task, unchecked):
    with pytest.raises(ValueError, match=r"sigma must be a finite number >= 0, got 'much'"):
        ConstRR(task, sigma="much")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"steps must be a whole number >= 1, got 2\.5"):
        ConjugateGradient(task, 2.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", [AdaRR, TunedRR])
def test_no_residual_no_estimate(key, kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} .* needs context > dim, got context=5, dim=5"):
        kind(LinearRegression(5, 5, "uniform(0,1)"))
    given = {"factor": 1.0, "cap": 1.0} if kind is TunedRR else {}
    predictor = kind(LinearRegression(5, 6, "uniform(0,1)"), **given)
    short = LinearRegression(5, 4, "uniform(0,1)").sample_moments(key, 2)
    with pytest.raises(ValueError, match="needs context > dim, got context=4, dim=5"):
        predictor.implicit_weights(short)


def test_the_oracle_needs_to_be_told(key, task):
    drawn = task.sample_moments(key, 2)
    with pytest.raises(ValueError, match=r"RidgeOracle needs the true noise level .* moments\.sigma is None"):
        RidgeOracle(task).implicit_weights(Moments(S=drawn.S, n=drawn.n))


def test_data_of_another_dimension_are_refused(key, task):
    with pytest.raises(ValueError, match="the task has dim 10, the data has dim 3"):
        OLS(task).implicit_weights(LinearRegression(3, 5, "fixed(1)").sample_moments(key, 2))
