"""Noisy linear regression: its two samplers draw from one law, the one written down; and users' mistakes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.stats import ks_2samp

from innerloop import evaluate, fit
from innerloop.models import LinearTransformer
from innerloop.predictors import OLS, BayesOptimal
from innerloop.tasks import LinearRegression, OtherInputs, Uniform
from innerloop.types import Moments, Prompt

DIM = 5
SEQUENCES = 20_000
LAWS = {  # context length, and the inputs' and weights' covariances if any
    "n = 20": (20, False),
    "n = dim + 1": (6, False),
    "n < dim + 1": (4, False),
    "n = 1": (1, False),
    "correlated": (9, True),
}


def covariances(colored: bool) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Two fixed covariances, the weights' one of rank two."""
    if not colored:
        return None, None
    rng = np.random.default_rng(5)
    inputs, weights = rng.normal(size=(DIM, DIM)), rng.normal(size=(DIM, 2))
    return inputs @ inputs.T / DIM + 0.2 * np.eye(DIM), weights @ weights.T


def make(name: str) -> LinearRegression:
    context, colored = LAWS[name]
    return LinearRegression(DIM, context, "uniform(0.5,3)", *covariances(colored))


@pytest.fixture
def key(seed) -> jax.Array:
    """Of a generator that compiles several times faster than the default one."""
    return jax.random.key(seed, impl="rbg")


@eqx.filter_jit
def from_moments(task: LinearRegression, key: jax.Array, batch: int) -> Moments:
    return task.sample_moments(key, batch)


@eqx.filter_jit
def prompts(task: LinearRegression, key: jax.Array, batch: int) -> Prompt:
    return task.sample_prompts(key, batch)


def from_tokens(task: LinearRegression, key: jax.Array, batch: int) -> Moments:
    return prompts(task, key, batch).moments()


def whitened(moments: Moments, inputs: np.ndarray | None) -> np.ndarray:
    """C^-1 S C^-T with C = [[root, 0], [w^T root, sigma]]: Wishart(n, I), whatever w and sigma."""
    S, w, sigma = (np.asarray(part, np.float64) for part in (moments.S, moments.weights, moments.sigma))
    root = np.eye(DIM) if inputs is None else np.linalg.cholesky(inputs)
    C = np.zeros((len(S), DIM + 1, DIM + 1))
    C[:, :DIM, :DIM] = root
    C[:, DIM, :DIM] = w @ root
    C[:, DIM, DIM] = sigma
    inverse = np.linalg.inv(C)
    return inverse @ S @ inverse.swapaxes(1, 2)


def z_scores(sample: ArrayLike, mean: ArrayLike) -> np.ndarray:
    """How many standard errors the mean over the first axis is off, entry by entry."""
    sample = np.asarray(sample)
    error = sample.std(axis=0, ddof=1) / len(sample) ** 0.5
    return (sample.mean(axis=0) - mean) / error


def p_value(sample: np.ndarray, other: np.ndarray) -> float:
    """Of the Kolmogorov-Smirnov test that both were drawn from one law."""
    return float(np.asarray(ks_2samp(sample, other))[1])


@pytest.mark.parametrize("draw", [from_moments, from_tokens], ids=["moments", "tokens"])
@pytest.mark.parametrize("name", LAWS)
def test_moments_given_weights_and_noise_are_wishart(key, name, draw):
    """Means n I and covariances n (d_ik d_jl + d_il d_jk) of 20 000 whitened S.

    z-scores below 5 for the 21 means and below 6 for the 231 covariances, whose summands are skewed.
    """
    task = make(name)
    W = whitened(draw(task, key, SEQUENCES), covariances(LAWS[name][1])[0])
    rows, columns = np.tril_indices(DIM + 1)
    off = W[:, rows, columns] - task.context * (rows == columns)
    expected = task.context * np.diag(1.0 + (rows == columns))
    products = off[:, :, None] * off[:, None, :]
    assert np.abs(z_scores(off, np.zeros(len(rows)))).max() < 5
    assert np.abs(z_scores(products, expected)[np.tril_indices(len(rows))]).max() < 6


@pytest.mark.parametrize("name", LAWS)
def test_both_samplers_draw_from_one_law(key, name):
    """Kolmogorov-Smirnov, p > 1e-3, 4000 against 4000: lam, and every eigenvalue of S not zero by rank."""
    task = make(name)
    keys = jax.random.split(key)
    samples = [draw(task, k, SEQUENCES) for draw, k in zip((from_moments, from_tokens), keys, strict=True)]
    blocks = [np.asarray(sample.S[:4000], np.float64) for sample in samples]
    spectra = [np.linalg.eigvalsh(S) for S in blocks]
    for k in range(1, min(task.context, DIM + 1) + 1):
        assert p_value(spectra[0][:, -k], spectra[1][:, -k]) > 1e-3
    assert p_value(blocks[0][:, -1, -1], blocks[1][:, -1, -1]) > 1e-3
    if task.context < DIM + 1:
        assert all(np.abs(s[:, : -task.context]).max() < 1e-4 * s.max() for s in spectra)


@pytest.mark.parametrize("name", ["n = 20", "correlated"])
def test_weights_and_noise_follow_their_laws(key, name):
    """Means and covariances of 20 000 draws: z-scores < 5."""
    _, colored = LAWS[name]
    covariance = covariances(colored)[1]
    covariance = np.eye(DIM) if covariance is None else covariance
    for draw in (from_moments, from_tokens):
        moments = draw(make(name), key, SEQUENCES)
        w, sigma = np.asarray(moments.weights, np.float64), np.asarray(moments.sigma, np.float64)
        assert np.abs(z_scores(w, np.zeros(DIM))).max() < 5
        assert np.abs(z_scores(w[:, :, None] * w[:, None, :], covariance)).max() < 5
        assert abs(z_scores(sigma, 1.75)) < 5
        assert abs(z_scores(sigma**2, (27 - 0.125) / 7.5)) < 5


@pytest.mark.parametrize("name", ["n = 20", "correlated"])
def test_prompts_are_what_they_say(key, name):
    """Labels are <w, query> to rounding, queries have their covariance, label_variance is E y^2; z < 5."""
    task = make(name)
    prompt = prompts(task, key, SEQUENCES)
    assert prompt.label is not None
    x, y, query, w = (np.asarray(a, np.float64) for a in (prompt.x, prompt.y, prompt.query, prompt.weights))
    assert x.shape == (SEQUENCES, task.context, DIM) and y.shape == (SEQUENCES, task.context)
    np.testing.assert_allclose(prompt.label, (query * w).sum(-1), atol=1e-5)
    inputs = covariances(LAWS[name][1])[0]
    inputs = np.eye(DIM) if inputs is None else inputs
    assert np.abs(z_scores(query[:, :, None] * query[:, None, :], inputs)).max() < 5
    assert abs(z_scores((y**2).mean(1), task.label_variance)) < 5


def test_a_million_examples_cost_no_more_than_twenty(key):
    """n = 10^6: 1000 whitened S within 6 standard deviations of n I, their mean within 5 standard errors."""
    task, n = LinearRegression(DIM, 10**6, "uniform(0.5,3)"), 10**6
    W = whitened(from_moments(task, key, 1000), None)
    deviation = (W - n * np.eye(DIM + 1)) / np.sqrt(n * (1 + np.eye(DIM + 1)))
    assert np.abs(deviation).max() < 6
    assert np.abs(deviation.mean(0)).max() < 5 / 1000**0.5
    # A variance of 1 is what tells a Wishart draw from its mean; the error of a variance is sqrt(2 / 1000).
    assert np.abs((deviation**2).mean(0) - 1).max() < 5 * (2 / 1000) ** 0.5


def test_noise_levels_may_be_given(key):
    """Half at 0.5, half at 2, in place of the law's: then E y^T y = n (d + sigma^2) in each half (z < 5)."""
    task = make("n = 20")
    sigma = jnp.repeat(jnp.array([0.5, 2.0]), SEQUENCES // 2)
    moments = eqx.filter_jit(lambda key: task.sample_moments(key, SEQUENCES, sigma=sigma))(key)
    np.testing.assert_array_equal(moments.sigma, sigma)
    halves = np.split(np.asarray(moments.label_energy, np.float64), 2)
    for level, energies in zip((0.5, 2.0), halves, strict=True):
        assert abs(z_scores(energies, 20 * (DIM + level**2))) < 5


def test_half_square_is_the_loss_averaged_over_queries(key, rng):
    """1/2 E <deviation, x>^2 over 20 000 queries: z < 5, with and without a covariance."""
    deviation = rng.normal(size=DIM)
    for name in ("n = 20", "correlated"):
        task = make(name)
        queries = np.asarray(task.sample_queries(key, SEQUENCES), np.float64)
        losses = 0.5 * (queries @ deviation) ** 2
        assert abs(z_scores(losses, task.half_square(jnp.asarray(deviation)))) < 5


@pytest.mark.parametrize("sampler", ["sample_moments", "sample_prompts", "sample_queries"])
def test_samples_have_the_dtype_asked_for(sampler, key):
    def dtypes(dtype):
        task = LinearRegression(3, 4, "uniform(0,1)", np.eye(3), np.eye(3))
        drawn = jax.eval_shape(lambda key: getattr(task, sampler)(key, 2, dtype=dtype), key)
        return {leaf.dtype for leaf in jax.tree.leaves(drawn)}

    assert dtypes(None) == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        assert dtypes(None) == {jnp.dtype("float64")}
        assert dtypes(jnp.float32) == {jnp.dtype("float32")}


def test_one_gradient_step_has_its_closed_form(key):
    """The best w_hat = eta alpha and its loss, on 40 000 sequences of d = 10, n = 20, sigma ~ U(0, 5).

    E Sigma = n I and E Sigma^2 = n (n + d + 1) I give E <alpha, w> = n d and
    E |alpha|^2 = n d (n + d + 1 + E sigma^2), so eta = 1 / (n + d + 1 + E sigma^2) and
    1/2 E |eta alpha - w|^2 = d/2 (d + 1 + E sigma^2) / (n + d + 1 + E sigma^2).
    Loss and slope within 5 standard errors. Less the oracle's loss this is the published table's entry for
    one layer, 0.907, to 4 standard errors and 0.005, the error of an evaluation on 100 000 sequences.
    """
    d, n, variance = 10, 20, 25 / 3
    task = LinearRegression(d, n, Uniform(0, 5))
    eta = 1 / (n + d + 1 + variance)
    flows = jnp.array([[[0.0, 0.0], [-eta, 0.0]]])
    model = LinearTransformer.from_flows(flows, d)

    @eqx.filter_jit
    def sample(key):
        moments = task.sample_moments(key, 40_000)
        bare = Moments(S=moments.S, n=n)
        posteriors = jax.vmap(task.posterior)(bare)
        ridge = jax.vmap(lambda posterior, sigma: posterior.ridge(sigma))(posteriors, moments.sigma)
        return model.final_weights(bare), moments.correlation, moments.weights, ridge

    w_hat, alpha, w, ridge = (np.asarray(part, np.float64) for part in sample(key))
    expected = d / 2 * (d + 1 + variance) / (n + d + 1 + variance)
    assert abs(z_scores(task.half_square(jnp.asarray(w_hat - w)), expected)) < 5
    slope = ((w_hat - w) * alpha).sum(1)
    assert abs(z_scores(slope, 0)) < 5
    adjusted = 0.5 * ((w_hat - ridge) ** 2).sum(1)
    assert abs(adjusted.mean() - 0.907) < 4 * adjusted.std() / len(adjusted) ** 0.5 + 0.005


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be a whole number >= 1, got 0"),
        ({"dim": True}, "dim must be a whole number >= 1, got True"),
        ({"dim": 2.0}, r"dim must be a whole number >= 1, got 2\.0"),
        ({"dim": "2"}, "dim must be a whole number >= 1, got '2'"),
        ({"context": 0}, "context must be a whole number >= 1, got 0"),
        ({"context": -1}, "context must be a whole number >= 1, got -1"),
        ({"noise": "gaussian(1)"}, r"noise must be .* got 'gaussian\(1\)'"),
        ({"noise": "fixed(-1)"}, "must be finite and >= 0.*got -1"),
        ({"noise": "uniform(0,-2)"}, "must be finite and >= 0.*got -2"),
        (
            {"noise": 1.0},
            r"noise must be a law of sigma or its text form, such as .uniform\(0,5\)., got 1\.0",
        ),
        ({"input_covariance": np.eye(3)}, r"input_covariance must have shape \(2, 2\), got \(3, 3\)"),
        ({"weight_covariance": np.ones(2)}, r"weight_covariance must have shape \(2, 2\), got \(2,\)"),
        ({"input_covariance": [[1, 0.5], [0, 1]]}, "input_covariance must be symmetric"),
        (
            {"weight_covariance": [[1, 2], [2, 1]]},
            "weight_covariance must be positive semi-definite, got an eigenvalue -1",
        ),
        ({"input_covariance": [[1, np.nan], [np.nan, 1]]}, "input_covariance must be finite"),
        ({"input_covariance": [[np.inf, 0], [0, 1]]}, "input_covariance must be finite"),
    ],
)
def test_bad_tasks_are_refused(unchecked, change, message):
    with pytest.raises(ValueError, match=message):
        LinearRegression(**{"dim": 2, "context": 4, "noise": "uniform(0,1)", **change})


@pytest.mark.parametrize("sampler", ["sample_moments", "sample_prompts"])
@pytest.mark.parametrize("batch", [0, -3, 2.0, True])
def test_bad_batches_are_refused(unchecked, key, sampler, batch):
    task = LinearRegression(2, 4, "uniform(0,1)")
    with pytest.raises(ValueError, match=f"batch must be a whole number >= 1, got {batch}"):
        getattr(task, sampler)(key, batch)


class Signs(OtherInputs):
    """Inputs of plus and minus one, so that with one feature Sigma = n whatever is drawn."""

    def isotropic_inputs(self, key, shape, *, dtype=None):
        return jax.random.rademacher(key, (*shape, self.dim), dtype or float)


def signs(*arguments) -> Signs:
    return Signs(*arguments)  # pyright: ignore[reportCallIssue]  # it takes Equinox's modules for plain dataclasses


def test_other_inputs_reach_prompts_moments_and_queries(key):
    task = signs(2, 6, "uniform(0,1)", np.diag([4.0, 1.0]))
    prompts, moments = task.sample_prompts(key, 50), task.sample_moments(key, 50)
    for inputs in (prompts.x, prompts.query, task.sample_queries(key, 50)):
        np.testing.assert_allclose(np.unique(np.abs(inputs)), [1, 2])
    np.testing.assert_allclose(moments.S[:, [0, 1], [0, 1]], np.tile([24, 6], (50, 1)), rtol=1e-6)
    np.testing.assert_allclose(moments.S, prompts.moments().S, rtol=1e-5, atol=1e-5)


def test_with_other_inputs_losses_keep_their_closed_forms():
    """For Sigma = n ridge leaves the variance sigma^2 / (n + sigma^2), and least squares lies off it by a known factor."""
    n, sigma = 5, 2.0
    task = signs(1, n, f"fixed({sigma:g})")
    found = evaluate(OLS(task), task, sequences=16_384)
    assert found.oracle.value == pytest.approx(sigma**2 / (n + sigma**2) / 2, rel=1e-12)
    assert found.oracle.standard_error < 1e-12 and found.floor.value == pytest.approx(0, abs=1e-20)
    # w_ols - w_sigma = w_ols sigma^2 / (n + sigma^2), where w_ols has the variance 1 + sigma^2 / n.
    expected = (sigma**2 / (n + sigma**2)) ** 2 * (1 + sigma**2 / n) / 2
    assert abs(found.adjusted_loss.value - expected) < 5 * found.adjusted_loss.standard_error


def test_a_model_is_trained_on_other_inputs():
    """One layer can be ridge for a fixed sigma: -w_yx = 1 / (n + sigma^2), whatever the seed."""
    n, sigma = 5, 2.0
    task = signs(1, n, f"fixed({sigma:g})")
    model = LinearTransformer.gd_plus_plus(1, 1, key=jax.random.key(0))
    options = {"optimizer": "levenberg-marquardt", "steps": 8, "sample": 256}
    (_, _), (w_yx, _) = fit(model, task, **options).model.flows()[0]
    assert float(w_yx) == pytest.approx(-1 / (n + sigma**2), rel=1e-4)
    judged = evaluate(BayesOptimal(task), task, sequences=1024)
    assert judged.regret.value == pytest.approx(0, abs=1e-20)


def test_equal_numbers_are_not_an_equal_problem():
    ours, other = LinearRegression(1, 5, "fixed(2)"), signs(1, 5, "fixed(2)")
    assert other.identity == signs(1, 5, "fixed(2)").identity != ours.identity
    assert type(other.apart()[0]) is Signs
