"""The three objectives: equal in the mean up to constants that are measured here without the library's posterior."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train.objectives import draw, draw_many

_BLOCK, _BLOCKS = 1000, 80
_DIM, _CONTEXT = 3, 7
_INPUTS = np.array([[1.5, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.6]])
_WEIGHTS = np.array([[0.8, -0.2, 0.1], [-0.2, 1.2, 0.0], [0.1, 0.0, 0.5]])


def linear_regression(covariance: bool) -> LinearRegression:
    roots = (_INPUTS, _WEIGHTS) if covariance else (None, None)
    return LinearRegression(_DIM, _CONTEXT, "uniform(0.2,2)", *roots)


def ridge_by_solving(covariance: bool, moments) -> jax.Array:
    """w_sigma = (Sigma + sigma^2 C^-1)^-1 alpha."""
    precision = np.linalg.inv(_WEIGHTS) if covariance else np.eye(_DIM)

    def one(S, sigma):
        return jnp.linalg.solve(S[:-1, :-1] + sigma**2 * precision, S[:-1, -1])

    return jax.vmap(one)(moments.S, moments.sigma)


def half_square(covariance: bool, deviation: jax.Array) -> jax.Array:
    metric = jnp.asarray(_INPUTS if covariance else np.eye(_DIM))
    return 0.5 * jnp.einsum("bi,ij,bj->b", deviation, metric, deviation)


def assert_mean_zero(blocks: np.ndarray, *, resolution: float) -> None:
    """The mean over blocks is within 4 standard errors of zero, and these are below `resolution`."""
    error = blocks.std(0, ddof=1) / len(blocks) ** 0.5
    assert (4 * error < resolution).all(), f"the sample is too small to say: {4 * error} >= {resolution}"
    np.testing.assert_array_less(np.abs(blocks.mean(0)), 4 * error + 1e-12)


@pytest.mark.parametrize("covariance", [False, True])
def test_objectives_differ_by_constants_and_their_gradients_not_at_all(x64, key, covariance):
    """80,000 sequences from `--seed`, the same for every objective, so that differences are of low variance."""
    task = linear_regression(covariance)
    model = LinearTransformer.diag(_DIM, 2, 2, key=key, context=_CONTEXT, label_scale=0.5)

    def block(key):
        moments = task.sample_moments(jax.random.split(key)[0], _BLOCK)
        examples = {name: draw(task, name, key, _BLOCK) for name in ("sampled", "oracle", "bayes")}
        w_sigma = ridge_by_solving(covariance, moments)
        constants = (
            half_square(covariance, moments.weights - w_sigma),  # the oracle's loss, from the weights drawn
            half_square(covariance, w_sigma - examples["bayes"].target),
        )

        def loss(model, examples):
            return examples.losses(model._final_weights(moments.S)).mean()

        answers = {name: jax.value_and_grad(loss)(model, each) for name, each in examples.items()}
        return answers, [each.mean() for each in constants]

    answers, constants = jax.jit(lambda keys: jax.lax.map(block, keys))(jax.random.split(key, _BLOCKS))
    oracle_loss, floor = (np.asarray(each) for each in constants)
    losses = {name: np.asarray(loss) for name, (loss, _) in answers.items()}
    gradients = {
        name: np.concatenate(
            [np.asarray(leaf).reshape(_BLOCKS, -1) for leaf in jax.tree.leaves(gradient)], axis=1
        )
        for name, (_, gradient) in answers.items()
    }
    assert_mean_zero(losses["sampled"] - losses["oracle"] - oracle_loss, resolution=0.3 * oracle_loss.mean())
    assert_mean_zero(losses["oracle"] - losses["bayes"] - floor, resolution=0.3 * floor.mean())
    size = np.abs(gradients["bayes"].mean(0)).max()
    assert_mean_zero(gradients["sampled"] - gradients["oracle"], resolution=0.4 * size)
    assert_mean_zero(gradients["oracle"] - gradients["bayes"], resolution=0.2 * size)


@pytest.mark.parametrize("covariance", [False, True])
def test_oracle_aims_at_the_ridge_solution(x64, key, covariance):
    task = linear_regression(covariance)
    moments = task.sample_moments(jax.random.split(key)[0], 50)
    target = draw(task, "oracle", key, 50).target
    np.testing.assert_allclose(target, ridge_by_solving(covariance, moments), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("objective", ["oracle", "bayes"])
def test_probes_are_a_root_of_the_query_covariance(x64, key, objective):
    for covariance, expected in ((True, _INPUTS), (False, np.eye(_DIM))):
        probes = draw(linear_regression(covariance), objective, key, 2).probes
        np.testing.assert_allclose(probes @ probes.T, expected, rtol=1e-12, atol=1e-12)


def test_losses_are_half_squared_residuals(x64, key):
    """For probes of every sequence and for common ones, against one sequence at a time."""
    for objective in ("sampled", "bayes"):
        examples = draw(linear_regression(True), objective, key, 5)
        weights = jax.random.normal(key, (5, _DIM))
        for i in range(5):
            probe = np.asarray(examples.probes if examples.probes.ndim == 2 else examples.probes[i])
            residual = (np.asarray(weights[i]) - np.asarray(examples.target[i])) @ probe
            np.testing.assert_allclose(examples.residuals(weights)[i], residual, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(examples.losses(weights)[i], residual @ residual / 2, rtol=1e-12)


@pytest.mark.parametrize("objective", ["sampled", "oracle", "bayes"])
def test_the_first_of_many_do_not_depend_on_their_number(x64, unchecked, key, objective):
    task = linear_regression(False)
    few, many = draw_many(task, objective, key, 10), draw_many(task, objective, key, 1500)
    assert len(many.target) == 1500
    assert len(np.unique(many.moments.S[:, 0, 0])) == 1500  # no block repeats another
    for short, long in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(short, long[: len(short)])


def test_targets_hold_no_latents(x64, key):
    """A model that is trained must not see the weights or the noise level."""
    moments = draw(linear_regression(False), "bayes", key, 2).moments
    assert moments.weights is None and moments.sigma is None


def test_unknown_objective(unchecked, key):
    with pytest.raises(ValueError, match="objective must be one of sampled, oracle, bayes, got 'ridge'"):
        draw(linear_regression(False), "ridge", key, 2)  # type: ignore[arg-type]


def test_draws_in_the_precision_asked_for(x64, key):
    examples = eqx.filter_jit(draw)(linear_regression(True), "bayes", key, 2, dtype=jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(examples)} == {np.dtype(np.float32)}


def test_sequences_beyond_the_tail_have_larger_labels(key):
    """Only the last ones, by up to 35 %, and their weights with them."""
    task = LinearRegression(3, 6, "uniform(0,2)")
    plain, beyond = (draw(task, "sampled", key, 64, beyond=count) for count in (0, 16))
    ratio = np.asarray(jnp.sqrt(beyond.moments.S[:, -1, -1] / plain.moments.S[:, -1, -1]))
    np.testing.assert_array_equal(ratio[:48], 1)
    assert (ratio[48:] > 1).all() and (ratio[48:] < 1.35).all() and np.ptp(ratio[48:]) > 0.1
    np.testing.assert_allclose(beyond.target, plain.target * ratio[:, None], rtol=1e-5)
    np.testing.assert_array_equal(beyond.moments.S[:, :-1, :-1], plain.moments.S[:, :-1, :-1])
    np.testing.assert_allclose(
        beyond.moments.S[:, :-1, -1], plain.moments.S[:, :-1, -1] * ratio[:, None], rtol=1e-5, atol=1e-5
    )
