"""Adam and Muon, against the same algorithms written out in NumPy, and against what their docstrings promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train.first_order import FirstOrder, _ceiling, _tempered
from innerloop.train.objectives import draw

_DIM, _CONTEXT = 3, 6
_TASK = LinearRegression(_DIM, _CONTEXT, "uniform(0,2)")
_CORRELATED = LinearRegression(
    _DIM,
    _CONTEXT,
    "uniform(0,2)",
    np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.3]]),
    np.array([[1.0, -0.3, 0.0], [-0.3, 0.5, 0.2], [0.0, 0.2, 1.0]]),
)


def make_model(key, kind: str = "diag", layers: int = 2) -> LinearTransformer:
    if kind == "full":
        return LinearTransformer.full(_DIM, layers, 1, key=key, context=_CONTEXT, label_scale=0.5)
    return LinearTransformer.diag(_DIM, layers, 2, key=key, context=_CONTEXT, label_scale=0.5)


def run(trainer: FirstOrder):
    """The final state and the rows of all intervals."""
    state, rows = trainer.start(), []
    while not trainer.finished(state):
        state, row = trainer.advance(state)
        rows.append(row)
    return state, rows


def flat(model) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(model)])


def learning_rate(update: int, peak: float, steps: int) -> float:
    """Linear over a twentieth of the steps, then a cosine down to a thousandth."""
    warm = steps // 20
    if update < warm:
        return peak * update / warm
    share = (update - warm) / (steps - warm)
    return peak * (0.001 + 0.999 * (1 + np.cos(np.pi * share)) / 2)


@pytest.mark.parametrize(
    "objective, guard, beyond, task",
    [("bayes", 0.0, 0, _TASK), ("sampled", 0.5, 4, _TASK), ("bayes", 0.0, 0, _CORRELATED)],
    ids=["bayes", "guarded", "correlated"],
)
def test_adam_is_adam_on_batches_that_are_functions_of_seed_and_step(
    x64, key, seed, objective, guard, beyond, task
):
    """40 updates, tempering off, against Kingma and Ba's algorithm in NumPy with its gradient from one draw a step.

    With a guard, an eighth as many sequences beyond the tail are drawn after the batch, and weigh as much as it says.
    """
    steps, batch, peak = 40, 32, 0.02
    model = make_model(key)
    options = {
        "objective": objective,
        "steps": steps,
        "batch": batch,
        "learning_rate": peak,
        "data_seed": seed,
        "guard": guard,
    }
    state, _ = run(FirstOrder(model, task, **options, temper=None, interval=15))
    theta, build = jax.flatten_util.ravel_pytree(model)

    @jax.jit
    def gradient(theta, step):
        own = jax.random.fold_in(jax.random.key(seed), step)
        examples = draw(task, objective, own, batch + beyond, beyond=beyond)

        def loss(theta):
            losses = examples.losses(build(theta).final_weights(examples.moments))
            return losses[:batch].mean() + (guard * losses[batch:].mean() if beyond else 0)

        return jax.grad(loss)(theta)

    theta = np.asarray(theta)
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for update in range(steps):
        g = np.asarray(gradient(theta, update))
        g = g / max(1.0, float(np.linalg.norm(g)))
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        move = first / (1 - 0.9 ** (update + 1)) / (np.sqrt(second / (1 - 0.999 ** (update + 1))) + 1e-8)
        theta = theta - learning_rate(update, peak, steps) * move
    np.testing.assert_allclose(flat(state.carry[0]), theta, rtol=1e-5, atol=1e-8)
    assert np.abs(theta - flat(model)).max() > 0.05


def test_results_do_not_depend_on_the_reporting_interval(key):
    model = make_model(key)
    ends = [run(FirstOrder(model, _TASK, steps=60, batch=32, interval=interval)) for interval in (7, 20)]
    np.testing.assert_array_equal(*(flat(state.carry[0]) for state, _ in ends))
    assert [len(rows) for _, rows in ends] == [9, 3]
    # The same batches, so the same mean loss over all updates.
    counts = [[7] * 8 + [4], [20] * 3]
    means = [
        np.average([row["loss"] for row in rows], weights=count)
        for (_, rows), count in zip(ends, counts, strict=True)
    ]
    np.testing.assert_allclose(*means, rtol=1e-5)


def test_another_seed_gives_other_batches(key):
    model = make_model(key)
    ends = [
        run(FirstOrder(model, _TASK, steps=20, batch=32, interval=20, data_seed=seed))[0] for seed in (0, 1)
    ]
    assert np.abs(flat(ends[0].carry[0]) - flat(ends[1].carry[0])).max() > 1e-4


def test_updates_that_are_not_finite_are_skipped_and_counted(key):
    """Parameters of 1e12 overflow float32 in two layers, in the loss or in its gradient."""
    model = jax.tree.map(lambda leaf: leaf * 1e12, make_model(key))
    trainer = FirstOrder(model, _TASK, steps=25, batch=16, interval=10)
    start = trainer.start()
    state, rows = run(trainer)
    assert [row["skipped"] for row in rows] == [10, 20, 25]
    for before, after in zip(jax.tree.leaves(start.carry[:2]), jax.tree.leaves(state.carry[:2]), strict=True):
        np.testing.assert_array_equal(before, after)
    _, rows = run(FirstOrder(make_model(key), _TASK, steps=25, batch=16, interval=10))
    assert [row["skipped"] for row in rows] == [0, 0, 0]


def test_one_bad_update_does_not_stop_training(key, monkeypatch):
    """Batches 4 and 5 hold a NaN: two updates are skipped, and the others are those of Adam without these batches."""
    from innerloop.train import first_order

    def poisoned(task, objective, key, batch, **options):
        examples = draw(task, objective, key, batch, **options)
        bad = jnp.array(
            [jax.random.key_data(jax.random.fold_in(jax.random.key(11), step)) for step in (4, 5)]
        )
        is_bad = (jax.random.key_data(key)[None] == bad).all(1).any()
        factor = jnp.where(is_bad, jnp.nan, 1.0).astype(examples.target.dtype)
        return type(examples)(examples.moments, examples.target * factor, examples.probes)

    monkeypatch.setattr(first_order, "draw", poisoned)
    state, rows = run(FirstOrder(make_model(key), _TASK, steps=12, batch=16, interval=6, data_seed=11))
    assert [row["skipped"] for row in rows] == [2, 2]
    assert np.isfinite(flat(state.carry[0])).all()
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert np.abs(flat(state.carry[0]) - flat(make_model(key))).max() > 1e-3


def test_tempering():
    """Below the ceiling nothing, above it ceiling (1 + log(loss / ceiling)): continuous, and so is its slope."""
    losses = jnp.array([0.0, 0.3, 2.0, 2.0 * np.e, 2e30])
    expected = [0.0, 0.3, 2.0, 4.0, 2 * (1 + 30 * np.log(10))]
    np.testing.assert_allclose(_tempered(losses, jnp.asarray(2.0)), expected, rtol=1e-6)
    np.testing.assert_array_equal(_tempered(losses, None), losses)
    slopes = jax.vmap(jax.grad(lambda loss: _tempered(loss[None], jnp.asarray(2.0))[0]))(losses)
    np.testing.assert_allclose(slopes, [1, 1, 1, np.exp(-1), 1e-30], rtol=1e-6)


def test_the_ceiling_is_the_loss_of_predicting_zero(x64, key):
    """Measured on 20,000 prompts from `--seed`, within 4 standard errors."""
    label = np.asarray(_CORRELATED.sample_prompts(key, 20_000).label)
    losses = label**2 / 2
    error = losses.std() / len(losses) ** 0.5
    assert 4 * error < 0.1 * losses.mean()
    ceiling = _ceiling(FirstOrder(make_model(key), _CORRELATED, temper=3.0))
    assert ceiling is not None
    assert abs(ceiling / 3 - losses.mean()) < 4 * error


def test_temper_changes_the_path_only_where_losses_are_high(key):
    model = make_model(key)

    def end(temper):
        return flat(run(FirstOrder(model, _TASK, steps=20, batch=64, interval=20, temper=temper))[0].carry[0])

    np.testing.assert_array_equal(end(1e6), end(None))  # a ceiling that no loss meets
    assert np.abs(end(0.01) - end(None)).max() > 1e-4


@pytest.mark.parametrize("layers", [1, 2])
def test_muon_orthogonalises_every_matrix(x64, key, rng, layers):
    """A second update with the same gradient U diag(s) V^T (the first has learning rate zero) is -rate U diag(s') V^T,

    where the Newton-Schulz iteration of Jordan (2024) brings every s' into [0.65, 1.25] but not to one.
    """
    steps = 100
    model = make_model(key, "full", layers)
    trainer = FirstOrder(model, _TASK, optimizer="muon", steps=steps)
    rule = trainer._transformation()

    def random_matrices(leaf):
        left, right = (np.linalg.qr(rng.normal(size=leaf.shape))[0] for _ in range(2))
        s = rng.uniform(0.2, 1.0, size=leaf.shape[:-1])
        return jnp.asarray(left * s[..., None, :] @ right.swapaxes(-1, -2))

    gradient = jax.tree.map(random_matrices, model)
    state = rule.init(model)
    with jax.numpy_dtype_promotion(
        "standard"
    ):  # as in training: Optax multiplies floats by whole-number counts
        nothing, state = rule.update(gradient, state, model)
        updates, _ = rule.update(gradient, state, model)
    assert np.abs(flat(nothing)).max() == 0
    rate = learning_rate(1, 1.0, steps)  # training multiplies by the run's own
    for leaf, update in zip(jax.tree.leaves(gradient), jax.tree.leaves(updates), strict=True):
        for matrix, moved in zip(np.reshape(leaf, (-1, 4, 4)), np.reshape(update, (-1, 4, 4)), strict=True):
            U, _, Vt = np.linalg.svd(matrix)
            core = -U.T @ moved @ Vt.T / rate
            assert (np.diag(core) > 0.65).all() and (np.diag(core) < 1.25).all()
            np.testing.assert_allclose(core - np.diag(np.diag(core)), 0, atol=1e-9)


def test_training_full_by_muon_lowers_the_loss(key):
    """By a third at least in the median of 2048 sequences, which one sequence near a pole does not move."""
    start = make_model(key, "full")
    state, _ = run(FirstOrder(start, _TASK, optimizer="muon", steps=200, batch=64, interval=50))
    examples = draw(_TASK, "bayes", jax.random.fold_in(key, 1), 2048)
    before, after = (
        np.median(examples.losses(model.final_weights(examples.moments))) for model in (start, state.carry[0])
    )
    assert after < before * 2 / 3


def test_pack_and_unpack_go_on_as_if_unbroken(key):
    for optimizer, kind in (("adam", "diag"), ("muon", "full")):
        trainer = FirstOrder(
            make_model(key, kind), _TASK, optimizer=optimizer, steps=30, batch=16, interval=10
        )
        state, _ = trainer.advance(trainer.start())
        again = trainer.unpack(trainer.pack(state))
        assert again.step == state.step == 10
        for _ in range(2):
            state, again = trainer.advance(state)[0], trainer.advance(again)[0]
        np.testing.assert_array_equal(flat(again.carry[0]), flat(state.carry[0]))
        assert trainer.finished(again)


def test_a_last_interval_may_be_short(key):
    trainer = FirstOrder(make_model(key), _TASK, steps=25, batch=16, interval=10)
    state = trainer.start()
    seen = []
    while not trainer.finished(state):
        state, _ = trainer.advance(state)
        seen.append((state.step, trainer.progress(state)))
    assert seen == [(10, 0.4), (20, 0.8), (25, 1.0)]
