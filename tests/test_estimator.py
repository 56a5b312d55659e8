"""Trained models as scikit-learn regressors: scikit-learn's own checks, moments, units, and what they should learn."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression as LeastSquares
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import innerloop as il
from innerloop.models.linear import Blockwise
from innerloop.standard import Running, Standard, nearest_ridge
from innerloop.types import Moments

FREE = il.pretrained("diag-4-uniform5")


@parametrize_with_checks([il.InContextRegressor(), il.InContextRegressor("gd++-4-uniform5")])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def problem(rng, rows: int, features: int, sigma: float = 1.0, outputs: int | None = None):
    """Rows of the model's own problem, and the weights."""
    X = rng.normal(size=(rows, features))
    weights = rng.normal(size=(features,) if outputs is None else (features, outputs))
    y = X @ weights
    return X, y + sigma * rng.normal(size=y.shape), weights


def test_moments_are_those_of_all_rows(rng):
    """Against a two-pass computation, with means a million times the spread; more rows than a chunk has."""
    Z = rng.normal(size=(20_000, 4)) + 1e6
    running = Running.of(Z[:, :3], Z[:, 3:])
    np.testing.assert_allclose(running.mean, Z.mean(0), rtol=1e-14)
    centred = Z - Z.mean(0)
    np.testing.assert_allclose(running.scatter, centred.T @ centred, rtol=1e-6, atol=1e-3)
    assert running.count == 20_000


@pytest.mark.parametrize("cuts", [[1, 2, 3], [7, 50, 51], [100]])
def test_chunks_are_as_good_as_all_rows_at_once(rng, cuts):
    X, y, _ = problem(rng, 120, 6)
    X, y = X * 10.0 ** np.arange(6) + 100, y * 30 - 5
    whole = il.InContextRegressor(FREE.model).fit(X, y)
    streamed = il.InContextRegressor(FREE.model)
    for rows in np.split(np.arange(120), cuts):
        streamed.partial_fit(X[rows], y[rows])
    np.testing.assert_allclose(streamed.moments_.scatter, whole.moments_.scatter, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(streamed.coef_, whole.coef_, rtol=1e-8)
    np.testing.assert_allclose(streamed.noise_, whole.noise_, rtol=1e-4)
    assert streamed.n_samples_seen_ == whole.n_samples_seen_ == 120


def test_fit_forgets_the_rows_of_before(rng):
    X, y, _ = problem(rng, 40, 3)
    again = il.InContextRegressor(FREE.model).fit(X[::-1] * 3, y).fit(X, y)
    np.testing.assert_array_equal(again.coef_, il.InContextRegressor(FREE.model).fit(X, y).coef_)


def test_it_is_the_model_on_standardised_data(x64, rng):
    """With as many rows as training had, and one for the means: standardised by hand, for one well-conditioned data set."""
    X, y, _ = problem(rng, 21, 10)
    orthogonal = np.linalg.qr(X - X.mean(0))[0] * np.sqrt(20)  # nothing to whiten
    regressor = il.InContextRegressor("diag-4-uniform5").fit(5 * orthogonal + 2, 3 * y - 1)
    scale = np.sqrt(10 + 25 / 3) / y.std(ddof=1)
    prompt = np.column_stack([orthogonal, scale * (y - y.mean())])
    moments = Moments(S=jnp.asarray(prompt.T @ prompt), n=20)
    expected = np.asarray(il.pretrained("diag-4-uniform5").model.implicit_weights(moments)) / scale
    np.testing.assert_allclose(regressor.coef_path_, expected * 3 / 5, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(regressor.coef_path_[-1], regressor.coef_)
    means = 3 * y.mean() - 1 - regressor.coef_path_ @ (5 * orthogonal + 2).mean(0)
    np.testing.assert_allclose(regressor.intercept_path_, means, rtol=1e-9)


def test_units_do_not_matter(rng):
    """X and y in other units, about other means: the same predictions in those units."""
    X, y, _ = problem(rng, 30, 5)
    queries = rng.normal(size=(7, 5))
    plain = il.InContextRegressor(FREE.model).fit(X, y)
    units, shift = np.array([1e-3, 1.0, 50.0, 1e4, 7.0]), np.arange(5) * 10.0
    other = il.InContextRegressor(FREE.model).fit(X * units + shift, 1e5 * y - 300)
    np.testing.assert_allclose(other.predict(queries * units + shift), 1e5 * plain.predict(queries) - 300)
    np.testing.assert_allclose(other.noise_, 1e5 * plain.noise_, rtol=1e-4)
    np.testing.assert_allclose(other.coef_ * units, 1e5 * plain.coef_, rtol=1e-7)


def test_the_order_of_rows_and_of_features_does_not_matter(rng):
    X, y, _ = problem(rng, 30, 5)
    plain = il.InContextRegressor(FREE.model).fit(X, y)
    rows, features = rng.permutation(30), rng.permutation(5)
    moved = il.InContextRegressor(FREE.model).fit(X[rows][:, features], y[rows])
    np.testing.assert_allclose(moved.coef_, plain.coef_[features], rtol=1e-7)


def test_outputs_are_learned_one_by_one(rng):
    X, Y, _ = problem(rng, 25, 4, outputs=3)
    together = il.InContextRegressor(FREE.model).fit(X, Y)
    assert together.coef_.shape == (3, 4) and together.predict(X).shape == (25, 3)
    assert together.coef_path_.shape == (5, 3, 4) and together.intercept_path_.shape == (5, 3)
    for index in range(3):
        alone = il.InContextRegressor(FREE.model).fit(X, Y[:, index])
        np.testing.assert_allclose(together.coef_[index], alone.coef_, rtol=1e-10)
        np.testing.assert_allclose(together.noise_[index], alone.noise_, rtol=1e-10)


def test_what_does_not_vary_has_no_weight(rng):
    X, y, _ = problem(rng, 30, 4)
    constant = np.column_stack([X, np.full(30, 0.1)])
    regressor = il.InContextRegressor(FREE.model).fit(constant, y)
    assert regressor.coef_[4] == 0 and (regressor.coef_[:4] != 0).all()
    flat = il.InContextRegressor(FREE.model).fit(X, np.full(30, 0.1))
    np.testing.assert_allclose(flat.predict(X), 0.1)
    assert flat.noise_ == 0
    one = il.InContextRegressor(FREE.model).fit(X[:1], y[:1])
    np.testing.assert_allclose(one.predict(X), y[0])


def test_copies_of_a_feature_share_its_weight(rng):
    X, y, _ = problem(rng, 60, 3)
    regressor = il.InContextRegressor(FREE.model).fit(X[:, [0, 0, 1, 2]], y)
    np.testing.assert_allclose(regressor.coef_[0], regressor.coef_[1], rtol=1e-6)
    assert np.isfinite(regressor.predict(X[:, [0, 0, 1, 2]])).all()


@pytest.mark.parametrize("rows", [100, 1000])
def test_many_rows_lead_to_least_squares(rng, rows):
    """Fewer examples with less noise stand for many rows: no shrinkage is left that the data do not ask for.

    The model inverts to within some per cent; a plain rescaling of the moments would shrink by sigma^2 / (20 + sigma^2).
    """
    X, y, _ = problem(rng, rows, 10, sigma=3.0)
    regressor = il.InContextRegressor("diag-7-uniform5").fit(X, y)
    best = LeastSquares().fit(X, y).coef_
    slope = regressor.coef_ @ best / (best @ best)
    assert 1 - 9 / rows * 2 - 0.03 < slope < 1.03


def test_noise_is_that_of_the_problem(rng):
    """The mean of noise_ over data sets of the trained size, at a level in the middle of the law.

    A context leaves ten degrees of freedom, hence a standard deviation of sigma / sqrt(20) of an estimate, and the model's
    prior draws less than that towards the middle.
    """
    found = []
    for _ in range(100):
        X, y, _ = problem(rng, 21, 10, sigma=2.5)
        found.append(il.InContextRegressor("diag-7-uniform5").fit(X, y).noise_)
    assert abs(np.mean(found) / 2.5 - 1) < 0.2
    assert np.std(found) < 2.5 * 0.5


@pytest.mark.parametrize("penalty", [0.0, 0.3, 20.0])
def test_the_nearest_ridge_of_a_ridge_is_itself(rng, penalty):
    X, y, _ = problem(rng, 30, 5)
    Z = np.column_stack([X, y])
    S = Z.T @ Z
    weights = np.linalg.solve(S[:5, :5] + penalty * np.eye(5), S[:5, 5])
    np.testing.assert_allclose(nearest_ridge(S, weights), penalty, rtol=1e-4, atol=1e-5)


def test_fewer_examples_have_the_posterior_of_many_rows(rng):
    """With sigma^2 n / m in place of sigma^2, to rounding; and the residual variance becomes that, too."""
    X, y, _ = problem(rng, 501, 4, sigma=2.0)
    running = Running.of(X, y[:, None])
    given = {"energy": 10.0, "edge": np.inf}
    many = Standard.of(running, 4, context=500, **given)
    few = Standard.of(running, 4, context=20, **given)

    def ridge(S, variance):
        return np.linalg.solve(S[:4, :4] + variance * np.eye(4), S[:4, 4])

    def residual_variance(S, n):
        return (S[4, 4] - S[:4, 4] @ ridge(S, 0)) / (n - 4)

    np.testing.assert_allclose(ridge(few.S[0], 0.1), ridge(many.S[0], 0.1 * 25), rtol=1e-10)
    np.testing.assert_allclose(residual_variance(few.S[0], 20) * 25, residual_variance(many.S[0], 500))
    assert few.noise_ratio == 25


def test_labels_have_the_energy_of_training_and_inputs_its_spectrum(rng):
    """Whatever their correlations are: here one direction carries nearly everything."""
    X = rng.normal(size=(40, 1)) + 0.05 * rng.normal(size=(40, 10))
    y = X[:, 0] * 1e-4 + 7
    standard = Standard.of(Running.of(X, y[:, None]), 10, context=39, energy=18.0, edge=2.9)
    np.testing.assert_allclose(standard.S[0, -1, -1] / 39, 18)
    assert np.linalg.eigvalsh(standard.S[0, :-1, :-1])[-1] / 39 <= 2.9 * (1 + 1e-12)


def test_flows_at_another_dim_are_those_of_the_model():
    """In the paper's convention a DIAG's flows act on any dim; at_dim keeps the inner ones, for 2 d examples."""
    assert isinstance(FREE.model, Blockwise)
    other = FREE.model.at_dim(30)
    assert (other.dim, other.context) == (30, 60)
    np.testing.assert_array_equal(other.inner_flows(), FREE.model.inner_flows())
    np.testing.assert_allclose(other.label_scale**2 * 30, FREE.model.label_scale**2 * 10)


def test_it_pickles_and_clones(rng):
    X, y, _ = problem(rng, 30, 5)
    fitted = il.InContextRegressor(FREE.model, task=FREE.task).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    again.partial_fit(X, y)
    assert again.n_samples_seen_ == 60
    copy = clone(fitted)
    assert not hasattr(copy, "coef_")
    np.testing.assert_array_equal(copy.fit(X, y).coef_, fitted.coef_)


def test_it_searches_in_a_pipeline():
    X, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(MinMaxScaler(), il.InContextRegressor())
    names = ["diag-4-uniform5", "gd++-4-uniform5"]
    search = GridSearchCV(pipeline, {"incontextregressor__model": names}, cv=3).fit(X, y)
    assert search.best_score_ > 0.4  # scikit-learn's Ridge has 0.48
    assert search.best_estimator_[-1].coef_.shape == (10,)


DECODER = il.CausalDecoder(3, 12, 1, width=8, heads=2, key=jax.random.key(0))


def test_a_decoder_is_asked_with_the_rows_as_its_prompt(rng):
    """In chunks too, and query by query; labels have a mean square of dim."""
    X, y, _ = problem(rng, 9, 3)
    X = np.linalg.qr(X - X.mean(0))[0] * np.sqrt(8)  # nothing to whiten
    queries = rng.normal(size=(70, 3))
    regressor = il.InContextRegressor(DECODER).partial_fit(X[:4], y[:4]).partial_fit(X[4:], y[4:])
    scale = np.sqrt(3) / y.std(ddof=1)
    ys = jnp.asarray(np.append(scale * (y - y.mean()), 0), jnp.float32)
    for index in (0, 69):
        xs = jnp.asarray(np.vstack([X, queries[index]]), jnp.float32)
        expected = float(DECODER(xs, ys)[-1]) / scale + y.mean()
        np.testing.assert_allclose(regressor.predict(queries)[index], expected, rtol=1e-4, atol=1e-4)
    assert not hasattr(regressor, "coef_")


def test_another_kind_of_model_takes_the_place_of_the_first(rng):
    """With set_params and fit; a linear transformer leaves no weights to a decoder, and that no prompt to it."""
    X, y, _ = problem(rng, 9, 3)
    regressor = il.InContextRegressor(DECODER).fit(X, y).set_params(model=FREE.model).fit(X, y)
    np.testing.assert_array_equal(
        regressor.predict(X), il.InContextRegressor(FREE.model).fit(X, y).predict(X)
    )
    regressor.set_params(model=DECODER).fit(X, y)
    assert not hasattr(regressor, "coef_") and not hasattr(regressor, "noise_")
    np.testing.assert_array_equal(regressor.predict(X), il.InContextRegressor(DECODER).fit(X, y).predict(X))


FULL = il.LinearTransformer.full(10, 1, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("model", "task", "rows", "features", "message"),
    [
        ("diag-4-uniform", None, 9, 3, "no shipped model 'diag-4-uniform'; did you mean diag-4-uniform"),
        (3, None, 9, 3, "model must be a linear transformer, a decoder, or the name .* got int"),
        (FULL, None, 9, 3, "a FULL model of dim 10 cannot read 3 features"),
        (DECODER, None, 9, 4, "a decoder of dim 3 cannot read 4 features"),
        (DECODER, None, 12, 3, "holds 11 rows and a query, got 12 rows"),
        (il.LinearTransformer.from_flows(np.zeros((1, 2, 2)), 10), None, 9, 3, "say by task="),
        (
            FREE.model,
            il.LinearRegression(3, 20, "fixed(1)"),
            9,
            3,
            "task must be that of training, with dim 10",
        ),
    ],
)
def test_what_cannot_be_is_said(unchecked, rng, model, task, rows, features, message):
    X, y, _ = problem(rng, rows, features)
    with pytest.raises(ValueError, match=message):
        il.InContextRegressor(model, task=task).fit(X, y)


def test_weights_that_blow_up_are_not_returned(rng):
    huge = il.LinearTransformer.from_flows(np.full((7, 2, 2), 1e20), 3)
    X, y, _ = problem(rng, 9, 3)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="not finite on these data"):
        il.InContextRegressor(huge, task=il.LinearRegression(3, 6, "fixed(1)")).fit(X, y)


def test_outputs_stay_as_many(rng):
    X, Y, _ = problem(rng, 9, 3, outputs=2)
    regressor = il.InContextRegressor(FREE.model).fit(X, Y)
    with pytest.raises(ValueError, match=r"y must have 2 outputs, as before, got shape \(9,\)"):
        regressor.partial_fit(X, Y[:, 0])


def test_scikit_learn_is_needed_by_the_regressor_only():
    """Without it the package works, and the regressor says what to install."""
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None\n"
        "import innerloop as il; il.LinearRegression(3, 5, 'fixed(1)'); il.pretrained()\n"
        "try: il.InContextRegressor\n"
        "except ImportError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "innerloop[estimator]"' in found.stdout
