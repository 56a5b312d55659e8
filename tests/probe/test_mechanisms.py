"""The implicit model, ablations, output scales and step sizes, against NumPy loops and against what must follow."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import innerloop as il
from innerloop.evaluation import Evaluation, evaluate_many
from innerloop.evaluation.losses import CHUNK
from innerloop.models import Diag
from innerloop.predictors import OLS, BayesOptimal, ConstRR, RidgeOracle
from innerloop.probe import ablate, ablations, implicit_model, output_scales, step_sizes
from innerloop.probe.mechanisms import _scales, _steps
from innerloop.tasks import LinearRegression
from innerloop.types import Moments
from reference.linear import tokens_after_layers
from reference.probe import least_squares, output_scale, steps

TASK = LinearRegression(3, 8, "uniform(0,3)")
# Trained on TASK: il.fit(LinearTransformer.diag(3, 3, 2, key=key(0), context=8), TASK, sample=512, steps=12, warm=False).
TRAINED = il.LinearTransformer.from_flows(
    np.array(
        [
            [[-2.0746e-02, 5.8033e-04], [-3.4545e-02, -3.9230e-04]],
            [[-1.1190e-01, -8.5099e-03], [-1.7724e-01, -9.3201e-03]],
            [[-1.8692e-03, -3.1046e-05], [-4.9742e-01, -9.1618e-03]],
        ]
    ),
    dim=3,
)


def draw(rng, n: int = 8) -> tuple[np.ndarray, np.ndarray, Moments]:
    x, w = rng.normal(size=(n, 3)), rng.normal(size=3)
    y = x @ w + rng.uniform(0, 3) * rng.normal(size=n)
    tokens = np.concatenate([x, y[:, None]], 1)
    return x, y, Moments(S=jnp.asarray(tokens.T @ tokens), n=n)


def test_every_public_name_is_found():
    assert il.probe.ablate is ablate
    assert all(hasattr(il.probe, name) for name in il.probe.__all__)


def f64(model):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), model)


def test_the_implicit_model_moves_every_token(x64, rng):
    """(M x + y u, a y - <w, x>) is what attention in NumPy makes of any token, after every layer: relative 1e-10."""
    P, Q = 0.1 * rng.normal(size=(2, 2, 2, 4, 4))
    model = il.LinearTransformer.from_matrices(P, Q)
    x, y, moments = draw(rng)
    other = rng.normal(size=4)
    expected = tokens_after_layers(P, Q, np.concatenate([x, y[:, None]], 1), other[None])[:, -1]
    found = implicit_model(model, moments)
    moved = found.M @ other[:3] + other[3] * found.u
    label = found.a * other[3] - found.w @ other[:3]
    np.testing.assert_allclose(moved, expected[:, :3], rtol=0, atol=1e-10 * np.abs(expected).max())
    np.testing.assert_allclose(label, expected[:, 3], rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("heads", [1, 3])
def test_ablating_sets_flows_to_zero_and_leaves_the_rest(rng, heads):
    """To float32's rounding."""
    p, q = rng.normal(size=(2, 3, heads, 2)).astype(np.float32)
    model = Diag(p=jnp.asarray(p), q=jnp.asarray(q), dim=3, context=8, label_scale=0.25)
    before = np.array(model.flows())
    np.testing.assert_allclose(ablate(model, []).flows(), before, rtol=1e-5, atol=1e-9)
    before[1:, 0, 1] = 0
    before[1:, 1, 1] = 0
    assert before.any(axis=(1, 2)).all()
    found = ablate(model, ["w_xy", "w_yy"], layers=[1, 2])
    np.testing.assert_allclose(found.flows(), before, rtol=1e-5, atol=1e-9)
    before[:, 1, 0] = 0
    np.testing.assert_allclose(ablate(found, "w_yx").flows(), before, rtol=1e-5, atol=1e-9)


def test_without_the_flows_that_read_labels_weights_are_linear_in_them(x64, rng):
    """w_hat = f(Sigma) alpha: labels twice as large, weights twice as large, to 1e-12; with either flow they are not."""
    x, y, _ = draw(rng)
    tokens = np.stack([np.concatenate([x, scale * y[:, None]], 1) for scale in (1, 2)])
    pair = Moments(S=jnp.asarray(tokens.swapaxes(1, 2) @ tokens), n=8)
    weights = eqx.filter_jit(lambda model: model.final_weights(pair))
    for without in (["w_xy", "w_yy"], ["w_yy"], ["w_xy"]):
        one, two = np.asarray(weights(f64(ablate(TRAINED, without))))
        linear = np.allclose(two, 2 * one, rtol=1e-12)
        assert linear == (len(without) == 2)


@pytest.fixture(scope="module")
def ablated() -> pl.DataFrame:
    return ablations(TRAINED, TASK, sequences=CHUNK)


@pytest.fixture(scope="module")
def judged() -> dict[str, Evaluation]:
    """On the sequences of `ablated`; no f(Sigma) alpha beats ridge with E sigma^2."""
    constant = ConstRR(TASK, sigma=TASK.noise.second_moment**0.5)
    several = {"without w_xy": ablate(TRAINED, "w_xy"), "constant": constant}
    return evaluate_many(several, TASK, sequences=CHUNK, per_layer=False)


def test_every_combination_is_judged_on_the_same_sequences(ablated, judged):
    """Exactly the numbers of an evaluation of its own; and differences of means are means of differences."""
    names = ["", "w_yy", "w_xy", "w_xx", "w_yy+w_xy", "w_yy+w_xx", "w_xy+w_xx", "w_yy+w_xy+w_xx"]
    assert ablated["without"].to_list() == names
    assert (ablated["floor"] == ablated["floor"][0]).all()
    alone, row = judged["without w_xy"], ablated.row(2, named=True)
    assert row["regret"] == pytest.approx(alone.regret.value, rel=1e-9)
    assert row["regret_se"] == pytest.approx(alone.regret.standard_error, rel=1e-9)
    lost = ablated["regret"] - ablated["regret"][0]
    np.testing.assert_allclose(ablated["difference"], lost, rtol=1e-6, atol=1e-15)
    assert ablated["difference"][0] == ablated["difference_se"][0] == ablated["difference_median"][0] == 0


def test_the_trained_model_needs_every_flow(ablated):
    """16 384 shared sequences: each difference is over 10 standard errors, and pairing makes these smaller."""
    lost = ablated[1:]
    assert (lost["difference"] > 10 * lost["difference_se"]).all()
    assert (lost["difference_se"] < lost["regret_se"] + ablated["regret_se"][0]).all()


def test_label_flows_are_what_beats_the_best_constant_level(ablated, judged):
    """The trained model is far better than ridge with E sigma^2; without w_xy and w_yy no model can be."""
    bound = judged["constant"].regret.value
    regret = dict(zip(ablated["without"], ablated["regret"], strict=True))
    assert regret[""] < 0.5 * bound
    assert regret["w_yy+w_xy"] > bound


def test_scales_and_steps_follow_their_definition(x64, rng):
    """Relative 1e-9 against loops over examples, sequence by sequence; the measures have one line each in JAX."""
    path_of = eqx.filter_jit(f64(TRAINED).implicit_weights)
    posterior_of = eqx.filter_jit(TASK.posterior)
    for _ in range(5):
        x, y, moments = draw(rng)
        path = path_of(moments)
        ols, variance = least_squares(x, y)
        assert float(posterior_of(moments).rss) / 5 == pytest.approx(variance, rel=1e-9)
        scale = _scales(path, moments, jnp.asarray(ols))
        assert float(scale) == pytest.approx(output_scale(x, y, np.asarray(path)[-1]), rel=1e-9)
        found = _steps(path, moments, jnp.asarray(ols))
        np.testing.assert_allclose(found, steps(x, y, np.asarray(path)), rtol=1e-9)


@pytest.fixture(scope="module")
def scales() -> pl.DataFrame:
    predictors = {
        "model": TRAINED,
        "without w_yy": ablate(TRAINED, "w_yy"),
        "ols": OLS(TASK),
        "bayes": BayesOptimal(TASK),
        "ridge": RidgeOracle(TASK),
    }
    return output_scales(predictors, TASK, bins=5, sequences=4096)


def numpy_scales(rng, count: int) -> np.ndarray:
    """Residual variance, and the output scales of the trained model and of ridge, of prompts drawn by NumPy."""
    P, Q = (np.asarray(matrix, np.float64) for matrix in TRAINED.matrices())
    rows = []
    for _ in range(count):
        x, w, sigma = rng.normal(size=(8, 3)), rng.normal(size=3), rng.uniform(0, 3)
        y = x @ w + sigma * rng.normal(size=8)
        context = np.concatenate([x, y[:, None]], 1)
        ours = -tokens_after_layers(P, Q, context, np.eye(4)[:3])[-1, 8:, -1]
        ridge = np.linalg.solve(x.T @ x + sigma**2 * np.eye(3), x.T @ y)
        rows.append([least_squares(x, y)[1], output_scale(x, y, ours), output_scale(x, y, ridge)])
    return np.array(rows)


def test_output_scales_are_those_of_prompts(scales, rng):
    """400 NumPy prompts against 4096 sequences, in the mean over all bins, 4 combined standard errors; OLS has 1."""
    slow = numpy_scales(rng, 400)
    assert scales["count"].sum() == 5 * 4096
    for column, method in ((1, "model"), (2, "ridge")):
        mine = scales.filter(method=method)
        mean = (mine["value"] * mine["count"]).sum() / 4096
        error = np.hypot(slow[:, column].std() / 20, (mine["standard_error"] ** 2).sum() ** 0.5 / 5)
        assert abs(mean - slow[:, column].mean()) < 4 * error, method
    variance = scales.filter(method="ols")
    assert abs((variance["residual_variance"]).mean() - slow[:, 0].mean()) < 4 * slow[:, 0].std() / 20
    np.testing.assert_allclose(variance["value"], 1, rtol=1e-9)


def test_the_trained_model_shrinks_with_the_noise_as_the_optimal_predictor_does(scales):
    """Every bin is lower than the one before, by more than 4 standard errors; within 0.1 of the optimum."""
    value = {name: scales.filter(method=name)["value"].to_numpy() for name in scales["method"].unique()}
    error = scales.filter(method="model")["standard_error"].to_numpy()
    assert (np.diff(value["model"]) < -4 * np.hypot(error[1:], error[:-1])).all()
    assert np.abs(value["model"] - value["bayes"]).max() < 0.1
    assert np.abs(value["without w_yy"] - value["bayes"]).max() > 0.1
    levels = scales.filter(method="model")["residual_variance"].to_list()
    assert levels == sorted(levels)


@pytest.fixture(scope="module")
def moves() -> pl.DataFrame:
    descent = il.LinearTransformer.from_flows(np.array([[[0, 0], [-0.03, 0]], [[0, 0], [-0.02, 0]]]), dim=3)
    models = {"model": TRAINED, "without": ablate(TRAINED, ["w_xy", "w_yy"]), "descent": descent}
    return step_sizes(models, TASK, bins=4, sequences=4096)


def test_gradient_descent_has_one_step_size_in_every_bin(moves):
    """-n w_yx, all of it along the gradient, for every residual variance: relative 1e-6, the flows being float32."""
    found = moves.filter(method="descent")
    assert found.select("layer", "bin").rows() == list(itertools.product([1, 2], range(4)))
    for layer, step in ((1, 8 * 0.03), (2, 8 * 0.02)):
        np.testing.assert_allclose(found.filter(layer=layer)["value"], step, rtol=1e-6)
    np.testing.assert_allclose(found["along"], 1, rtol=1e-9)
    assert found["count"].to_list() == [1024] * 8


def test_label_flows_adapt_the_step_to_the_noise(moves):
    """In the trained model's second layer the step falls with the residual variance, by more than 4 standard errors, and
    without w_xy and w_yy it does not depend on it: by less than a fifth of that."""
    change = {}
    for name in ("model", "without"):
        mine = moves.filter(method=name, layer=2)
        change[name] = mine["value"][-1] - mine["value"][0]
        if name == "model":
            assert change[name] < -4 * np.hypot(mine["standard_error"][-1], mine["standard_error"][0])
    assert abs(change["without"]) < 0.2 * abs(change["model"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ablate(TRAINED, "w_zz"), "flows must be among w_xx, w_xy, w_yx, w_yy, got 'w_zz'"),
        (lambda: ablate(TRAINED, "w_yy", layers=[3]), "layers must be whole numbers from 0 to 2, got 3"),
        (lambda: ablations(TRAINED, TASK, flows=["w"]), "flows must be among .*, got 'w'"),
        (
            lambda: output_scales({}, LinearRegression(3, 3, "fixed(1)")),
            "needs context > dim, got context=3, dim=3",
        ),
        (lambda: output_scales({"m": TRAINED}, TASK, bins=0), "bins must be a whole number >= 1, got 0"),
        (lambda: output_scales({"m": TRAINED}, TASK, bins=9, sequences=17), "bins must be at most half"),
        (lambda: step_sizes({"m": OLS(TASK)}, TASK), "models must be linear transformers, got OLS for 'm'"),
        (
            lambda: output_scales({"m": TRAINED}, TASK, precision="float16"),
            "precision must be float32 or float64",
        ),
    ],
)
def test_mistakes_are_named(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_dense_matrices_have_no_flows(unchecked):
    full = il.LinearTransformer.from_matrices(*np.zeros((2, 1, 1, 4, 4)))
    with pytest.raises(ValueError, match="model must be of kind diag or gd\\+\\+, .* got full"):
        ablate(full, "w_yy")
