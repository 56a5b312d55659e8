"""Inside arms: attention averaged as said, and layers held against what they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import innerloop as il
from innerloop.models import CausalDecoder
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.papers.goel2026.inside import LEAST_SQUARES, attended, best_step, descent, distances
from innerloop.predictors import GradientDescent
from innerloop.probe import attention_weights

TOKENS = 2 * POINTS


@pytest.fixture(scope="module")
def models() -> list[CausalDecoder]:
    """Of two seeds, large enough that attention is not even."""
    found = [
        CausalDecoder(
            DIM,
            POINTS,
            2,
            mixers=["softmax:1+linear:2+softmax:1", "linear"],
            width=16,
            heads=4,
            mlp_ratio=1,
            key=jax.random.key(seed, impl="rbg"),
        )
        for seed in (0, 1)
    ]
    return [jax.tree.map(lambda leaf: 10 * leaf, model) for model in found]


def test_attention_is_the_mean_over_sequences_and_heads_of_a_kind(models, rng):
    xs = jnp.asarray(rng.normal(size=(2, 3, POINTS, DIM)), float)
    ys = jnp.asarray(rng.normal(size=(2, 3, POINTS)), float)
    frame = attended(models[0], xs, ys)
    assert frame.select("layer", "kind").unique(maintain_order=True).rows() == [
        (1, "softmax"),
        (1, "linear"),
        (2, "linear"),
    ]
    assert len(frame) == 3 * TOKENS * (TOKENS + 1) / 2
    weights = np.asarray(attention_weights(models[0], xs.reshape(6, POINTS, DIM), ys.reshape(6, POINTS)))
    for layer, kind, heads in [(1, "softmax", [0, 3]), (1, "linear", [1, 2]), (2, "linear", [0, 1, 2, 3])]:
        by_sequence = weights[layer - 1][:, heads].mean(1)[:, 17, 4]
        row = frame.filter(layer=layer, kind=kind, token=17, attended=4).row(0, named=True)
        assert row["weight"] == pytest.approx(by_sequence.mean(), rel=1e-4)
        assert row["standard_error"] == pytest.approx(by_sequence.std(ddof=1) / 6**0.5, rel=1e-3)


def test_layers_are_held_against_every_target_after_both_contexts(models):
    frame = distances(*models, steps=[1, 2], sequences=64)
    targets = [descent(1), descent(2), LEAST_SQUARES, "label"]
    assert targets[:2] == ["gradient descent, 1 step", "gradient descent, 2 steps"]
    keys = frame.select("examples", "model", "layer", "target")
    assert len(keys.unique()) == len(keys) == 2 * 2 * 3 * len(targets)
    assert set(keys["target"]) == set(targets) and set(keys["examples"]) == {3, POINTS - 1}
    # Least squares is the label once there are `dim` examples, and not before.
    exact, label = (frame.filter(target=name)["probe"].to_numpy() for name in (LEAST_SQUARES, "label"))
    after_all = frame.filter(target="label")["examples"].to_numpy() == POINTS - 1
    np.testing.assert_allclose(exact[after_all], label[after_all], rtol=1e-3)
    assert np.abs(exact - label)[~after_all].max() > 0.01
    # The two models differ, and so does what is in them but for the query itself.
    trained, untrained = (frame.filter(model=name, layer=2)["probe"] for name in ("trained", "untrained"))
    assert (trained != untrained).all()


def test_the_best_step_is_that_of_general_tuning():
    """On samples of 20 000 of their own; the minimum is flat."""
    task = il.LinearRegression(DIM, POINTS - 1, "fixed(0)")
    assert best_step(POINTS - 1, 4) == pytest.approx(GradientDescent(task, 4).step_size, rel=0.02)


def test_the_best_single_step_is_in_closed_form():
    """E tr Sigma / n over E tr (Sigma / n)^2 = 1 / (1 + (dim + 1) / n), to four standard errors of 20 000 sequences."""
    for context in (3, 9):
        assert best_step(context, 1) == pytest.approx(1 / (1 + (DIM + 1) / context), rel=0.02)
