"""Predictors against scikit-learn, NumPy, numerical integration, closed forms, and published numbers."""

import csv
from importlib import resources

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import ArrayLike
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
from innerloop.predictors.base import weights_of_all
from innerloop.tasks import Categorical, Fixed, LinearRegression, Uniform
from innerloop.types import Moments, Prompt


@pytest.fixture(scope="module")
def task():
    return LinearRegression(10, 20, "uniform(0,5)")


def covariance(rng, dim):
    """A well-conditioned covariance that is no multiple of the identity."""
    root = rng.normal(size=(dim, dim)) / dim**0.5
    return root @ root.T + 0.3 * np.eye(dim)


def draw(rng, batch, context, dim, sigma: ArrayLike = 1.0, prior=None, inputs=None):
    """Prompts drawn by NumPy in float64: nothing to compile, nothing shared with the package's samplers."""
    prior_root, root = (np.eye(dim) if c is None else np.linalg.cholesky(c) for c in (prior, inputs))
    weights, query = rng.normal(size=(batch, dim)) @ prior_root.T, rng.normal(size=(batch, dim)) @ root.T
    x, sigma = rng.normal(size=(batch, context, dim)) @ root.T, np.broadcast_to(np.asarray(sigma), batch)
    y = np.einsum("bni,bi->bn", x, weights) + sigma[:, None] * rng.normal(size=(batch, context))
    return Prompt(*map(jnp.asarray, (x, y, query)), weights=jnp.asarray(weights), sigma=jnp.asarray(sigma))


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("context", [4, 20])
def test_ridge_is_scikit_learns(x64, rng, context, sigma):
    task = LinearRegression(6, context, Fixed(sigma))
    prompts = draw(rng, 5, context, 6, sigma)
    constant, oracle = ConstRR(task, sigma=sigma), RidgeOracle(task)
    weights, predictions = constant.implicit_weights(prompts.moments()), constant.predict(prompts)
    for i in range(5):
        fitted = Ridge(alpha=sigma**2, fit_intercept=False).fit(prompts.x[i], prompts.y[i])
        np.testing.assert_allclose(weights[i], fitted.coef_, rtol=1e-8, atol=1e-10)
        expected = fitted.predict(prompts.query[i][None])[0]
        np.testing.assert_allclose(predictions[i], expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(oracle.implicit_weights(prompts.moments()), weights)


def test_the_oracle_uses_each_sequences_own_level(x64, rng):
    levels = np.array([0.0, 0.3, 1.0, 2.0, 4.0])
    prompts = draw(rng, 5, 20, 6, levels)
    weights = RidgeOracle(LinearRegression(6, 20, "uniform(0,5)")).implicit_weights(prompts.moments())
    for i in range(5):
        fitted = Ridge(alpha=levels[i] ** 2, fit_intercept=False).fit(prompts.x[i], prompts.y[i])
        np.testing.assert_allclose(weights[i], fitted.coef_, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("context", [3, 6, 20])
def test_ols_is_numpys_least_squares(x64, rng, context):
    """Below dim examples both give the solution of least norm."""
    task = LinearRegression(6, context, "fixed(1)")
    prompts = draw(rng, 5, context, 6)
    weights = OLS(task).implicit_weights(prompts.moments())
    for i in range(5):
        expected = np.linalg.lstsq(np.asarray(prompts.x[i]), np.asarray(prompts.y[i]))[0]
        # Squaring X in the Gram matrix squares its condition number, which is large at context = dim.
        np.testing.assert_allclose(weights[i], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("context", [4, 20])
def test_ridge_tends_to_ols_as_noise_vanishes(x64, rng, context):
    task = LinearRegression(6, context, "fixed(1)")
    moments = draw(rng, 5, context, 6).moments()
    exact = OLS(task).implicit_weights(moments)
    gaps = [
        np.abs(ConstRR(task, sigma=s).implicit_weights(moments) - exact).max() for s in (3e-2, 3e-3, 3e-4)
    ]
    # The gap is of order sigma^2: a hundred times smaller each time.
    np.testing.assert_allclose(np.divide(gaps[1:], gaps[:-1]), 1e-2, rtol=0.1)


@pytest.mark.parametrize("context", [4, 20])
def test_the_prior_covariance_enters_ridge(x64, rng, context):
    """Against (Sigma + sigma^2 C^-1)^-1 alpha, formed with dense inverses."""
    prior = covariance(rng, 6)
    task = LinearRegression(6, context, "fixed(1)", covariance(rng, 6), prior)
    prompts = draw(rng, 5, context, 6, prior=prior)
    x, y = np.asarray(prompts.x), np.asarray(prompts.y)
    weights = ConstRR(task, sigma=0.7).implicit_weights(prompts.moments())
    for i in range(5):
        dense = np.linalg.inv(x[i].T @ x[i] + 0.49 * np.linalg.inv(prior)) @ x[i].T @ y[i]
        np.testing.assert_allclose(weights[i], dense, rtol=1e-9)


def test_ols_below_dim_examples_has_the_least_prior_norm(x64, rng):
    """Against the constrained minimum C X^T (X C X^T)^-1 y."""
    prior = covariance(rng, 6)
    task = LinearRegression(6, 4, "fixed(1)", weight_covariance=prior)
    prompts = draw(rng, 5, 4, 6, prior=prior)
    x, y = np.asarray(prompts.x), np.asarray(prompts.y)
    weights = OLS(task).implicit_weights(prompts.moments())
    for i in range(5):
        expected = prior @ x[i].T @ np.linalg.solve(x[i] @ prior @ x[i].T, y[i])
        np.testing.assert_allclose(weights[i], expected, rtol=1e-8)


def test_estimated_noise_is_that_of_the_residuals(x64, rng):
    """AdaRR and TunedRR against the residuals of NumPy's least squares and scikit-learn's ridge."""
    task = LinearRegression(6, 20, "uniform(0,5)")
    prompts = draw(rng, 20, 20, 6, np.linspace(0.2, 5, 20))
    ada = AdaRR(task).implicit_weights(prompts.moments())
    tuned = TunedRR(task, factor=1.5, cap=9.0).implicit_weights(prompts.moments())
    capped = 0
    for i in range(20):
        x, y = np.asarray(prompts.x[i]), np.asarray(prompts.y[i])
        variance = np.sum((y - x @ np.linalg.lstsq(x, y)[0]) ** 2) / (20 - 6)
        capped += 1.5 * variance > 9
        for weights, alpha in ((ada, variance), (tuned, min(1.5 * variance, 9.0))):
            fitted = Ridge(alpha=alpha, fit_intercept=False).fit(x, y)
            np.testing.assert_allclose(weights[i], fitted.coef_, rtol=1e-7, atol=1e-9)
    assert 0 < capped < 20  # the draw has both cases


def test_a_singular_prior_leaves_more_degrees_of_freedom(x64, rng):
    """Weights known to live in 2 of 6 dimensions: least squares on those, with n - 2 degrees of freedom."""
    task = LinearRegression(6, 20, "fixed(3)", weight_covariance=np.diag([1.0, 1.0, 0, 0, 0, 0]))
    prompts = draw(rng, 5, 20, 6, 3.0)
    weights = AdaRR(task).implicit_weights(prompts.moments())
    np.testing.assert_array_equal(weights[:, 2:], 0)
    for i in range(5):
        x, y = np.asarray(prompts.x[i, :, :2]), np.asarray(prompts.y[i])
        variance = np.sum((y - x @ np.linalg.lstsq(x, y)[0]) ** 2) / (20 - 2)
        fitted = Ridge(alpha=variance, fit_intercept=False).fit(x, y)
        np.testing.assert_allclose(weights[i, :2], fitted.coef_, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("context", [4, 20])
def test_conjugate_gradient_in_dim_steps_is_ols(x64, rng, context):
    task = LinearRegression(6, context, "fixed(1)")
    moments = draw(rng, 50, context, 6).moments()
    exact = OLS(task).implicit_weights(moments)
    weights = ConjugateGradient(task, 6).implicit_weights(moments)
    np.testing.assert_allclose(weights, exact, rtol=1e-5, atol=1e-6)


def test_conjugate_gradient_minimises_over_its_krylov_space(x64, rng):
    """After k steps the quadratic is least over span(alpha, Sigma alpha, ..), solved densely."""
    task = LinearRegression(6, 20, "fixed(1)")
    moments = draw(rng, 5, 20, 6).moments()
    for steps in (1, 2, 4):
        weights = ConjugateGradient(task, steps).implicit_weights(moments)
        for i in range(5):
            gram, alpha = np.asarray(moments.gram[i]), np.asarray(moments.correlation[i])
            krylov = np.stack([np.linalg.matrix_power(gram / 20, k) @ alpha for k in range(steps)], 1)
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
def test_descent_is_the_slow_loop_over_examples(x64, rng, steps, momentum):
    task = LinearRegression(6, 20, "fixed(1)")
    prompts = draw(rng, 5, 20, 6)
    predictor = HeavyBall(task, steps, step_size=0.4, momentum=momentum)
    weights = predictor.implicit_weights(prompts.moments())
    for i in range(5):
        w, before = np.zeros(6), np.zeros(6)
        examples = list(zip(np.asarray(prompts.x[i]), np.asarray(prompts.y[i]), strict=True))
        for _ in range(steps):
            gradient = sum((x @ w - y) * x for x, y in examples) / 20
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

    With alpha = Sigma w + sigma X^T eps, E <alpha, w> = tr E Sigma = n d; and E Sigma^2 = n (n + d + 1) I, so
    E |alpha|^2 = n d (n + d + 1) + sigma^2 n d: eta = n / (n + d + 1 + sigma^2). 20 480 sequences give it
    to about 0.3 %; the tolerance is 1.5 %.
    """
    dim, context = 10, 20
    tuned = kind(LinearRegression(dim, context, Fixed(sigma)), 1).tuned
    assert tuned["step_size"] == pytest.approx(context / (context + dim + 1 + sigma**2), rel=0.015)
    assert tuned.get("momentum", 0.0) == 0.0


def test_tuned_constants_beat_their_neighbours(rng, task):
    """On 40 000 fresh sequences, moving a tuned constant by a quarter either way costs: all in NumPy, paired.

    The loss is 1/2 |w_hat - w_sigma|^2; what a move costs is 5 standard errors or more.
    """
    prompts = draw(rng, 40_000, 20, 10, rng.uniform(0, 5, 40_000))
    x, y, sigma = np.asarray(prompts.x), np.asarray(prompts.y), np.asarray(prompts.sigma)
    gram, alpha = x.swapaxes(1, 2) @ x, np.einsum("bni,bn->bi", x, y)

    def ridge(variance):
        return np.linalg.solve(gram + np.reshape(variance, (-1, 1, 1)) * np.eye(10), alpha[..., None])[..., 0]

    residual = (y**2).sum(1) - (alpha * ridge(0.0)).sum(1)

    def momentum(step_size, momentum):
        w, before = np.zeros_like(alpha), np.zeros_like(alpha)
        for _ in range(4):
            step = step_size / 20 * (alpha - np.einsum("bij,bj->bi", gram, w))
            w, before = w + step + momentum * (w - before), w
        return w

    cases = [
        (ConstRR(task), lambda sigma: ridge(sigma**2)),
        (TunedRR(task), lambda factor, cap: ridge(np.minimum(factor * residual / 10, cap))),
        (HeavyBall(task, 4), momentum),
        (GradientDescent(task, 4), lambda step_size: momentum(step_size, 0.0)),
    ]
    oracle = ridge(sigma**2)
    for predictor, weights in cases:
        constants = predictor.tuned
        best = ((weights(**constants) - oracle) ** 2).sum(1)
        for name, value in constants.items():
            for moved in (value / 1.25, value * 1.25):
                if moved != value:  # a momentum of zero has no quarter
                    excess = ((weights(**{**constants, name: moved}) - oracle) ** 2).sum(1) - best
                    assert excess.mean() > 0, (type(predictor).__name__, constants, name, moved)


@pytest.mark.parametrize(("dim", "context"), [(1, 1), (1, 4), (2, 1), (2, 5)])
@pytest.mark.parametrize("prior", [False, True])
def test_bayes_is_the_integral_over_weights_and_noise(x64, rng, dim, context, prior):
    """E[w | X, y] by summing prior times likelihood over a grid of (w, sigma): no formula is shared.

    The trapezoid rule over w and Gauss-Legendre over sigma are exact to better than the tolerance here.
    """
    spread = np.array([[1.5, 0.4], [0.4, 0.5]])[:dim, :dim] if prior else np.eye(dim)
    task = LinearRegression(dim, context, Uniform(0.5, 2.0), weight_covariance=spread)
    prompts = draw(rng, 3, context, dim, rng.uniform(0.5, 2.0, 3), spread)
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


def test_nothing_beats_bayes(x64, rng):
    """Half squared error against the true weights, on 20 000 sequences: paired, by 3 standard errors."""
    inputs, prior = covariance(rng, 10), covariance(rng, 10)
    task = LinearRegression(10, 20, "uniform(0,5)", inputs, prior)
    prompts = draw(rng, 20_000, 20, 10, rng.uniform(0, 5, 20_000), prior, inputs)
    moments = Moments(S=prompts.moments().S, n=20)
    others = [
        OLS(task),
        ConstRR(task),
        AdaRR(task),
        TunedRR(task),
        GradientDescent(task, 3, step_size=0.3),
        HeavyBall(task, 3),
        ConjugateGradient(task, 3),
        Averaging(task),
    ]
    losses = []
    for predictor in (BayesOptimal(task), *others):
        error = np.asarray(predictor.implicit_weights(moments)) - np.asarray(prompts.weights)
        losses.append(np.einsum("bi,ij,bj->b", error, inputs, error) / 2)
    for other, loss in zip(others, losses[1:], strict=True):
        excess = loss - losses[0]
        assert excess.mean() > 3 * excess.std() / len(excess) ** 0.5, type(other).__name__


def published():
    table = resources.files("innerloop") / "papers" / "published" / "vladymyrov2024_table1.csv"
    with table.open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    columns = [name for name in rows["constrr"] if name.startswith(("uniform_", "categorical_"))]
    return {
        column: [float(rows[kind][column]) for kind in ("constrr", "adarr", "tunedrr")] for column in columns
    }


PUBLISHED = published()


def test_without_noise_ridge_baselines_are_exact(x64, rng):
    assert PUBLISHED["uniform_0"] == [0, 0, 0]
    task = LinearRegression(10, 20, "fixed(0)")
    prompts = draw(rng, 100, 20, 10, 0.0)
    for predictor in (ConstRR(task), AdaRR(task), TunedRR(task)):
        weights = predictor.implicit_weights(prompts.moments())
        np.testing.assert_allclose(weights, np.asarray(prompts.weights), atol=1e-9)


@eqx.filter_jit
def sampled(kind, numbers, key):
    """One program for all laws of a kind."""
    return kind.with_numbers(numbers).sample_moments(key, 2048)


@pytest.mark.parametrize("column", [name for name in PUBLISHED if name != "uniform_0"])
def test_ridge_baselines_reproduce_table_1(x64, key, column):
    """Adjusted loss (half squared error) of ConstRR, AdaRR and TunedRR, within 5 % or 0.002.

    24 576 sequences, regret plus posterior spread: the standard error is below 1.5 % of the value. The
    published values carry an error of their own.
    """
    name, *levels = column.split("_")
    task = LinearRegression(
        10, 20, Uniform(0.0, float(levels[0])) if name == "uniform" else Categorical(*map(float, levels))
    )
    predictors = (ConstRR(task), AdaRR(task), TunedRR(task))

    @jax.jit
    def losses(moments):
        mean, spread = jax.vmap(lambda one: task.posterior(one).mean_and_spread())(moments)
        regrets = [task.half_square(predictor.implicit_weights(moments) - mean) for predictor in predictors]
        return [(regret + spread).mean() for regret in regrets]

    blocks = [losses(sampled(*task.apart(), key)) for key in jax.random.split(key, 12)]
    for ours, theirs in zip(np.mean(blocks, axis=0), PUBLISHED[column], strict=True):
        assert abs(ours - theirs) <= max(0.05 * theirs, 0.002), (ours, theirs)


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


@pytest.mark.parametrize("index", range(10))
def test_batches_of_any_shape_are_their_parts(x64, rng, index):
    """Leading axes, `jit` and `vmap` give what one prompt at a time gives, in the dtype of the data."""
    task = LinearRegression(3, 7, "uniform(0,2)", covariance(rng, 3), covariance(rng, 3))
    predictor = every_kind(task)[index]
    assert predictor.tuned == {}
    prompts = draw(rng, 4, 7, 3)
    folded = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), prompts)
    one = eqx.filter_jit(predictor.predict)
    alone = [one(jax.tree.map(lambda leaf, i=i: leaf[i], prompts)) for i in range(4)]
    assert alone[0].shape == ()
    np.testing.assert_allclose(predictor.predict(folded).reshape(4), jnp.stack(alone), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.vmap(predictor.predict))(prompts), jnp.stack(alone), rtol=1e-9)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), folded.moments())
    for moments in (folded.moments(), single):
        weights = jax.eval_shape(predictor.implicit_weights, moments)
        assert weights.shape == (2, 2, 3) and weights.dtype == moments.S.dtype


def test_averaging_is_the_mean_of_y_x(x64, rng, task):
    prompts = draw(rng, 4, 20, 10)
    expected = (np.asarray(prompts.x) * np.asarray(prompts.y)[..., None]).mean(1)
    np.testing.assert_allclose(Averaging(task).implicit_weights(prompts.moments()), expected, rtol=1e-12)


def test_tuned_constants_are_floats_and_replay(task):
    first, again, other = TunedRR(task), TunedRR(task), TunedRR(task, seed=1)
    assert first.tuned == again.tuned == {"factor": first.factor, "cap": first.cap}
    assert first.tuned != other.tuned
    assert all(type(value) is float for value in first.tuned.values())


def test_a_given_constant_stays(task):
    partly = TunedRR(task, cap=1.5)
    assert partly.cap == 1.5 and list(partly.tuned) == ["factor"]
    partly = HeavyBall(task, 4, momentum=0.5)
    assert partly.momentum == 0.5 and list(partly.tuned) == ["step_size"]


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
def test_no_residual_no_estimate(rng, kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} .* needs context > dim, got context=5, dim=5"):
        kind(LinearRegression(5, 5, "uniform(0,1)"))
    longer = LinearRegression(5, 6, "uniform(0,1)")
    predictor = AdaRR(longer) if kind is AdaRR else TunedRR(longer, factor=1.0, cap=1.0)
    short = draw(rng, 2, 4, 5).moments()
    with pytest.raises(ValueError, match="needs context > dim, got context=4, dim=5"):
        predictor.implicit_weights(short)


def test_the_oracle_needs_to_be_told(rng, task):
    drawn = draw(rng, 2, 20, 10).moments()
    with pytest.raises(ValueError, match=r"RidgeOracle needs the true noise level .* moments\.sigma is None"):
        RidgeOracle(task).implicit_weights(Moments(S=drawn.S, n=drawn.n))


def test_data_of_another_dimension_are_refused(rng, task):
    with pytest.raises(ValueError, match="the task has dim 10, the data has dim 3"):
        OLS(task).implicit_weights(draw(rng, 2, 5, 3).moments())


def test_predictors_that_share_a_posterior_give_what_each_gives_alone(task, rng):
    """Two tasks among them, whose posteriors differ, and predictors that need none; exact up to rounding."""
    other = LinearRegression(10, 20, "uniform(0,1)")
    several = [OLS(task), BayesOptimal(task), BayesOptimal(other), ConstRR(task, sigma=2.0), Averaging(task)]
    moments = draw(rng, 1, 20, 10).moments()
    one = jax.tree.map(lambda leaf: leaf[0], moments)
    for shared, predictor in zip(weights_of_all(several, one), several, strict=True):
        np.testing.assert_allclose(shared, predictor.implicit_weights(one), rtol=1e-5, atol=1e-6)
    shared = weights_of_all(several, one)
    assert np.abs(shared[1] - shared[2]).max() > 1e-3


def test_predictors_together_compute_one_posterior_a_task(task, rng, monkeypatch):
    calls, posterior = [], LinearRegression.posterior
    monkeypatch.setattr(
        LinearRegression, "posterior", lambda self, moments: calls.append(self) or posterior(self, moments)
    )
    one = jax.tree.map(lambda leaf: leaf[0], draw(rng, 1, 20, 10).moments())
    weights_of_all([OLS(task), BayesOptimal(task), AdaRR(task)], one)
    assert len(calls) == 1
