"""Levenberg-Marquardt: its pieces against dense derivatives, its solutions against a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import second_order
from innerloop.train.objectives import draw, draw_many
from innerloop.train.second_order import Pool
from innerloop.types import Moments

pytestmark = pytest.mark.usefixtures("x64")

_DIM, _CONTEXT, _LAYERS = 3, 7, 2
_COUNT = 300  # more than one chunk of sequences, and not a multiple of it


def make_model(name: str, key, layers: int = _LAYERS) -> LinearTransformer:
    sizes = {"key": key, "context": _CONTEXT, "label_scale": 0.4}
    if name == "gd++":
        return LinearTransformer.gd_plus_plus(_DIM, layers, **sizes)
    if name == "full":
        return LinearTransformer.full(_DIM, layers, 1, **sizes)
    return LinearTransformer.diag(_DIM, layers, int(name.split()[1]), **sizes)


def make_task() -> LinearRegression:
    return LinearRegression(_DIM, _CONTEXT, "uniform(0,2)", input_covariance=np.diag([1.0, 2.0, 0.5]))


def make_pool(key, count: int, objective="bayes") -> Pool:
    return Pool.of(draw_many(make_task(), objective, key, count))


@pytest.mark.parametrize("objective", ["sampled", "bayes"])  # a probe for every sequence, and common ones
@pytest.mark.parametrize("name", ["diag 1", "diag 2", "gd++", "full"])
def test_normal_equations_and_curvature_are_the_dense_ones(key, rng, name, objective):
    """J by forward mode; r'' along v by differentiating twice, which central differences of 1% meet to 1e-3.

    With one other direction a sequence, H is the dense one on average over the turns, and g in every turn.
    """
    examples = jax.tree.map(np.asarray, draw(make_task(), objective, key, _COUNT))
    model = make_model(name, key)
    weights = rng.uniform(0.5, 1, _COUNT)
    theta, build = model.coordinates()
    S, target = (jnp.asarray(each) for each in (examples.moments.S, examples.target))
    probes = np.broadcast_to(examples.probes, (_COUNT, *examples.probes.shape[-2:]))

    def residuals(theta):
        w_hat = build(theta).implicit_weights(Moments(S=S, n=examples.moments.n))[:, -1]
        return ((w_hat - target)[:, None, :] @ probes)[:, 0]

    velocity = jnp.asarray(0.1 * rng.normal(size=theta.shape))

    def along(theta):
        return jax.jvp(residuals, (theta,), (velocity,))[1]

    r, J, second = jax.jit(
        lambda theta: (
            residuals(theta),
            jax.jacfwd(residuals)(theta),
            jax.jvp(along, (theta,), (velocity,))[1],
        )
    )(theta)
    tall, many = np.asarray(J).reshape(-1, len(theta)), np.repeat(weights, r.shape[1])[:, None]
    turns = max(r.shape[1] - 1, 1)
    theta, velocity, r = np.asarray(theta), np.asarray(velocity), np.asarray(r)
    sums = [
        second_order._normal_equations(model, theta, examples, r, weights, others=1, turn=turn)
        for turn in range(turns)
    ]
    hessian = np.mean([hessian for hessian, _ in sums], axis=0)
    expected = tall.T @ (many * tall)
    np.testing.assert_allclose(hessian, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())
    expected = tall.T @ (many[:, 0] * np.asarray(r).reshape(-1))
    for _, gradient in sums:
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())
    expected = tall.T @ (many[:, 0] * np.asarray(second).reshape(-1))
    curvature = second_order._curvature(model, theta, velocity, examples, weights)
    np.testing.assert_allclose(curvature, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["diag 2", "gd++"])
def test_an_iteration_never_raises_the_loss_of_the_whole_pool(key, seed, name):
    """Also where the Jacobian sees a tenth of it only."""
    pool = make_pool(key, _COUNT)
    model = make_model(name, key)
    current = second_order.start(model, pool)
    first = current.loss
    for step in range(6):
        after = second_order.iterate(
            current, pool, sample=32, hard=4, rng=np.random.default_rng([seed, step])
        )
        w_hat = np.asarray(after.model.final_weights(jax.tree.map(jnp.asarray, pool.examples.moments)))
        deviation = (w_hat - pool.examples.target) @ pool.examples.probes
        np.testing.assert_allclose(after.loss, (deviation**2).sum(1).mean() / 2, rtol=1e-10)
        assert after.loss < current.loss or (after.stalled and after.loss == current.loss)
        current = after
    assert current.loss < 0.8 * first


def test_finds_the_closed_form_of_one_step_of_gradient_descent(key):
    """GD++ of one layer: w = eta alpha. As E alpha^T w = n d and E ||alpha||^2 = n d (n + d + 1 + E sigma^2),

    its best eta is 1 / (n + d + 1 + E sigma^2). The sample is from `--seed`, the tolerance 4 standard errors of its own
    best eta, which the solver has to meet to rounding.
    """
    task = LinearRegression(_DIM, _CONTEXT, "uniform(0,2)")
    pool = Pool.of(draw_many(task, "bayes", key, 20_000))
    current = second_order.start(make_model("gd++", key, layers=1), pool)
    for step in range(12):
        current = second_order.iterate(
            current, pool, sample=20_000, hard=16, rng=np.random.default_rng(step), attempts=12
        )
    (_, _), (w_yx, _) = np.asarray(current.model.flows()[0])
    alpha, target = pool.examples.moments.S[:, :-1, -1], np.asarray(pool.examples.target)
    energy = (alpha**2).sum(1).mean()
    best = (alpha * target).sum(1).mean() / energy
    np.testing.assert_allclose(-w_yx, best, rtol=1e-5)
    error = (alpha * (target - best * alpha)).sum(1).std() / len(alpha) ** 0.5 / energy
    expected = 1 / (_CONTEXT + _DIM + 1 + 4 / 3)
    assert 4 * error < 0.05 * expected
    assert abs(-w_yx - expected) < 4 * error


def test_stalls_where_there_is_nothing_to_gain(key):
    """At a model whose pool is answered exactly."""
    pool = make_pool(key, 64)
    model = make_model("gd++", key)
    target = np.asarray(model.final_weights(jax.tree.map(jnp.asarray, pool.examples.moments)))
    exact = Pool(type(pool.examples)(pool.examples.moments, target, pool.examples.probes), pool.weights)  # type: ignore[arg-type]
    start = second_order.start(model, exact)
    after = second_order.iterate(start, exact, sample=64, hard=4, rng=np.random.default_rng(0))
    assert after.loss <= start.loss < 1e-28
    # A model that is not finite anywhere has no normal equations: nothing to do, nothing raised.
    broken = second_order.start(jax.tree.map(lambda leaf: leaf * jnp.inf, model), pool)
    assert broken.loss == np.inf
    assert second_order.iterate(broken, pool, sample=64, hard=4, rng=np.random.default_rng(0)).stalled


@pytest.mark.parametrize("objective", ["sampled", "bayes"])
def test_hard_sequences_replace_others_and_keep_the_total_weight(key, objective):
    pool = make_pool(key, 100, objective)
    hard = make_pool(jax.random.fold_in(key, 1), 20, objective)
    hard = Pool(hard.examples, np.full(20, 1e-4))
    both = pool.with_hard(hard)
    assert len(both.weights) == len(both.examples.target) == 100
    np.testing.assert_allclose(both.weights.sum(), 1, rtol=1e-12)
    np.testing.assert_array_equal(both.weights[80:], hard.weights)
    np.testing.assert_array_equal(both.examples.moments.S[80:], hard.examples.moments.S)
    np.testing.assert_array_equal(both.examples.moments.S[:80], pool.examples.moments.S[:80])
    assert pool.with_hard(None) is pool


@pytest.mark.parametrize("count", [80, 100, 250])
def test_more_hard_sequences_than_a_pool_holds(key, count):
    """Scouts use a third of the pool, and hard sequences gather depth by depth."""
    hard = make_pool(jax.random.fold_in(key, 1), count)
    both = make_pool(key, 100).with_hard(Pool(hard.examples, np.full(count, 1e-4)))
    assert len(both.weights) == len(both.examples.target) == 100
    np.testing.assert_allclose(both.weights.sum(), 1, rtol=1e-12)
    assert (both.weights > 0).all()


@pytest.mark.parametrize("others", [0, 1, 2, 4, 9])
def test_directions_are_orthogonal_and_begin_with_the_residual(rng, others):
    """A zero residual and one along an axis among them; the others are sqrt((r - 1) / others) long."""
    residuals = rng.normal(size=(50, 5))
    residuals[0], residuals[1] = 0, [-3, 0, 0, 0, 0]
    directions = second_order._directions(residuals, others, turn=7)
    kept = min(others, 4)
    length = np.r_[1, np.full(kept, 4 / max(kept, 1))]
    gram = directions.swapaxes(1, 2) @ directions
    np.testing.assert_allclose(gram, np.broadcast_to(np.diag(length), gram.shape), atol=1e-12)
    along = residuals / np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-300)
    np.testing.assert_allclose(directions[1:, :, 0], along[1:], atol=1e-12)


@pytest.mark.parametrize("count", [1, 5, 8, 9, 16, 17])
def test_padded_parts_hold_every_entry_once(count):
    array = np.arange(count)
    parts = [second_order._padded(array, first, 8) for first in range(0, count, 8)]
    assert all(len(part) == 8 for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts)[:count], array)


def test_working_set_holds_the_hardest_and_keeps_the_total_weight(key, rng):
    pool = make_pool(key, 100)
    weights = rng.uniform(0.5, 1.5, 100) / 100
    pool = Pool(pool.examples, weights / weights.sum())
    losses = rng.exponential(size=100)
    part, chosen = second_order._working_set(losses, pool, 30, 10, rng)
    worst = np.argsort(-losses)[:10]
    np.testing.assert_array_equal(part.moments.S[:10], pool.examples.moments.S[worst])
    np.testing.assert_array_equal(chosen[:10], pool.weights[worst])
    assert len(np.unique(np.asarray(part.moments.S)[:, 0, 0])) == 30
    np.testing.assert_allclose(chosen.sum(), 1, rtol=1e-12)


def test_the_mean_of_losses_does_not_overflow_in_float32(key):
    """A model with a pole: each of its losses is a float32, their sum is none."""
    model = LinearTransformer.diag(3, 1, key=key, context=6, label_scale=0.5)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model)
    examples = draw_many(LinearRegression(3, 6, "uniform(0,2)"), "bayes", key, 4096)
    examples = jax.tree.map(lambda leaf: leaf.astype(np.float32), examples)
    losses = second_order.pool_losses(model, examples)
    scale = np.float32(np.sqrt(1e38 / losses.max()))
    huge = second_order.unflat(model, second_order.flat(model) * np.sqrt(scale))
    with np.errstate(all="raise"):
        losses = second_order.pool_losses(huge, examples)
        mean = second_order.mean_loss(huge, examples)
    assert losses.dtype == np.float32 and np.isfinite(losses).all()
    assert losses.astype(float).sum() > np.finfo(np.float32).max
    assert mean == pytest.approx(losses.astype(float).mean(), rel=1e-12)
