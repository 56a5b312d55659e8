"""Linear probes: known answers, scikit-learn's, and what a decoder's first layer cannot know."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression as SklearnLeastSquares
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import innerloop as il
from innerloop.models import CausalDecoder
from innerloop.models.decoder import Affine
from innerloop.predictors import OLS, Averaging, GradientDescent
from innerloop.probe import layer_distances, probe_shares

FITTED, JUDGED, WIDTH = 2000, 1500, 6


def halves(rng: np.random.Generator, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Features of the fitting and of the judging half, of different means and sizes."""
    return tuple(3 + np.arange(1, width + 1) * rng.normal(size=(n, width)) for n in (FITTED, JUDGED))  # pyright: ignore[reportReturnType]


def test_what_is_in_the_features_is_found_and_noise_is_not(rng):
    """1 - R^2 of targets that are none, a half, or all noise of variance one: 0, 1/2 and 1 to four standard errors."""
    features = halves(rng)
    weights = rng.normal(size=WIDTH) / np.arange(1, WIDTH + 1)
    weights /= np.linalg.norm(weights * np.arange(1, WIDTH + 1))  # the signal's variance is one, too
    targets = []
    for half in features:
        signal, noise = half @ weights + 5, rng.normal(size=len(half))
        targets.append(np.stack([signal, signal + noise, noise], axis=1))
    known, half, nothing = probe_shares(features[0], targets[0], features[1], targets[1])
    assert known.value < 1e-9
    # A probe of p features that is fitted to n noises loses 1 + p / n of their variance.
    assert abs(half.value - 0.5 * (1 + WIDTH / FITTED)) < 4 * half.standard_error
    assert abs(nothing.value - (1 + WIDTH / FITTED)) < 4 * nothing.standard_error + 1e-3
    # With signal s and noise n, (n^2 - (s + n)^2 / 2) / 2 has variance 1/2.
    assert half.standard_error == pytest.approx(np.sqrt(0.5 / JUDGED), rel=0.15)


@pytest.mark.parametrize("ridge", [1e-6, 0.3])
def test_is_scikit_learns_ridge(ridge, rng):
    features = halves(rng)
    targets = [np.stack([half[:, 0] ** 2, half.sum(1) + rng.normal(size=len(half))], 1) for half in features]
    found = probe_shares(features[0], targets[0], features[1], targets[1], ridge=ridge)
    centred = features[0] - features[0].mean(0)
    alpha = ridge * (centred**2).sum() / WIDTH
    expected = Ridge(alpha=alpha, solver="cholesky").fit(features[0], targets[0]).predict(features[1])
    for column, estimate in enumerate(found):
        assert estimate.value == pytest.approx(
            1 - r2_score(targets[1][:, column], expected[:, column]), rel=1e-9
        )


def test_the_default_is_least_squares(rng):
    features = halves(rng)
    targets = [half @ rng.normal(size=(WIDTH, 1)) + np.sin(half[:, :1]) for half in features]
    (found,) = probe_shares(features[0], targets[0], features[1], targets[1])
    expected = SklearnLeastSquares().fit(features[0], targets[0]).predict(features[1])
    assert found.value == pytest.approx(1 - r2_score(targets[1], expected), rel=1e-4)


def test_standard_errors_are_the_spread_over_samples(rng):
    """Of 300 judging halves; the sample's deviation is off by 1 / sqrt(600), 4 %."""
    features, _ = halves(rng)
    targets = features[:, :1] + np.exp(rng.normal(size=(FITTED, 1)))
    found = []
    for _ in range(300):
        judged = halves(rng)[1][:300]
        found += probe_shares(features, targets, judged, judged[:, :1] + np.exp(rng.normal(size=(300, 1))))
    values, errors = np.array([(each.value, each.standard_error) for each in found]).T
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.25)


DIM, CONTEXT = 3, 5
TASK = il.LinearRegression(DIM, CONTEXT, "fixed(0)")


@pytest.fixture(scope="module")
def distances():
    model = CausalDecoder(
        DIM, CONTEXT + 1, 2, width=16, heads=2, mlp_ratio=1, key=jax.random.key(0, impl="rbg")
    )
    larger = jax.tree.map(lambda leaf: 3 * leaf, model)
    targets = {
        "one step": GradientDescent(TASK, 1, step_size=0.7),
        "averaging": Averaging(TASK),
        "least squares": OLS(TASK),
    }
    return layer_distances(larger, TASK, targets, sequences=1024)


def test_before_any_layer_the_query_says_nothing(distances):
    """The label's mean given x alone is zero, and so is that of every predictor that the signs of all w leave alone."""
    first = distances.filter(layer=0)
    assert (np.abs(first["probe"] - 1) < 4 * first["probe_se"] + 16 / 1024).all()


def test_targets_that_are_proportional_or_equal_have_equal_probes(distances):
    """One step of gradient descent is averaging times the step; noise-free, least squares is the label."""
    one, averaging, exact, label = (
        distances.filter(target=name) for name in ("one step", "averaging", "least squares", "label")
    )
    for column in ("probe", "probe_se"):
        np.testing.assert_allclose(one[column], averaging[column], rtol=1e-4)
        np.testing.assert_allclose(exact[column], label[column], rtol=1e-3)
    np.testing.assert_allclose(exact["read_out"], label["read_out"], rtol=1e-3)


def test_a_read_out_that_is_a_constant_is_off_by_its_square():
    """E (c - y)^2 / Var(y) = 1 + c^2 / dim after every layer, for y of variance dim."""
    model = CausalDecoder(DIM, CONTEXT + 1, 1, width=8, heads=1, key=jax.random.key(0, impl="rbg"))
    constant = Affine(jnp.zeros((8, 1)), jnp.array([2.0]))
    found = layer_distances(eqx.tree_at(lambda m: m.read_out, model, constant), TASK, {}, sequences=2048)
    assert (np.abs(found["read_out"] - (1 + 4 / DIM)) < 4 * found["read_out_se"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": il.LinearRegression(2, 3, "fixed(0)")}, "must have dim 3 and a context shorter than 6"),
        ({"task": il.LinearRegression(3, 6, "fixed(0)")}, "a context shorter than 6 .* got dim 3, context 6"),
        ({"predictors": {"label": OLS(TASK)}}, "no predictor may be named 'label'"),
        ({"sequences": 1}, "sequences must be a whole number >= 2, got 1"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    model = CausalDecoder(DIM, CONTEXT + 1, 1, width=8, heads=1, key=jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match=message):
        layer_distances(model, **{"task": TASK, "predictors": {}, **changes})


def test_a_bad_ridge_is_named(rng):
    features = halves(rng)
    with pytest.raises(ValueError, match="ridge must be a finite number > 0, got 0"):
        probe_shares(features[0], features[0], features[1], features[1], ridge=0)
