"""Checks of what every linear transformer does: they hold for all kinds, and fail for what is no linear transformer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.evaluation.losses import in_precision
from innerloop.models import Diag, Full, GDPlusPlus, LinearTransformer
from innerloop.probe import check_linear_map, check_momentum, check_no_quadratic, check_recursion
from innerloop.probe.check import Check
from innerloop.probe.recursions import descent_tokens, recursion_tokens
from innerloop.tasks import LinearRegression
from innerloop.types import Prompt
from reference.linear import tokens_after_layers

DIM, LAYERS = 4, 3
TASK = LinearRegression(DIM, 12, "uniform(0,2)")
SIZES: dict = {"dim": DIM, "context": 12, "label_scale": 0.4}
KINDS = ("full", "diag", "gd++")
EXACT_CHECKS: list[Any] = [check_linear_map, check_recursion, check_momentum]


def holds(check: Any, kind: str) -> bool:
    """Momentum is a matter of diagonal layers."""
    return check is not check_momentum or kind != "full"


def make(kind: str) -> Any:
    """A model whose every parameter matters, about one cautious gradient step a layer; seed 0 whatever the tests' seed."""
    rng = np.random.default_rng(0)

    def around(centre):
        values = np.broadcast_to(np.asarray(centre), (LAYERS, *np.shape(centre)))
        return jnp.asarray(values + 0.1 * rng.normal(size=values.shape), jnp.float32)

    if kind == "full":
        p = [0.1 * np.eye(DIM + 1), np.diag([0.0] * DIM + [1.0])]
        q = [np.diag([-0.2] * DIM + [0.0]), np.zeros((DIM + 1, DIM + 1))]
        return Full(P=around(p), Q=around(q), **SIZES)
    if kind == "diag":
        return Diag(p=around([[-0.1, -0.3], [0.0, 0.0]]), q=around(np.eye(2)), **SIZES)
    return GDPlusPlus(w=around([-0.1, -0.3]), **SIZES)


def f64(model: Any) -> Any:
    with jax.enable_x64(True):
        return in_precision(model, "float64")


def with_square(model: LinearTransformer, size: float) -> Callable[[Prompt], Any]:
    """The model's tokens, but every label after a layer also holds the square of its input's first coordinate."""
    exact = f64(model)

    def tokens(prompt):
        states = exact.tokens(prompt)
        extra = size * states[..., :1, :, 0] ** 2
        after = states.at[..., 1:, :, -1].add(jnp.broadcast_to(extra, states[..., 1:, :, -1].shape))
        return after

    return tokens


def attended(model: LinearTransformer) -> Callable[[Prompt], Any]:
    """The model if the query were one of the tokens that are attended to."""
    exact = f64(model)

    def tokens(prompt):
        label = jnp.zeros_like(prompt.y[..., :1])
        longer = Prompt(
            x=jnp.concatenate([prompt.x, prompt.query[..., None, :]], -2),
            y=jnp.concatenate([prompt.y, label], -1),
            query=prompt.query,
        )
        return exact.tokens(longer)[..., :-1, :]

    return tokens


def softmax(prompt: Prompt) -> Any:
    """Two layers of softmax attention with P = Q = I / 4."""

    def step(tokens):
        attention = jax.nn.softmax(tokens @ tokens[..., :-1, :].swapaxes(-1, -2) / 4, axis=-1)
        return tokens + attention @ tokens[..., :-1, :] / 4

    query = jnp.concatenate([prompt.query, jnp.zeros_like(prompt.query[..., :1])], -1)
    first = jnp.concatenate([prompt.tokens, query[..., None, :]], -2)
    second = step(first)
    return jnp.stack([first, second, step(second)], -3)


def numpy_tokens(model: LinearTransformer, rng, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple]:
    """A context, a query and all tokens after every layer by the definition; and the model's P and Q."""
    P, Q = (np.asarray(matrix, np.float64) for matrix in model.matrices())
    context, query = rng.normal(size=(n, DIM + 1)), rng.normal(size=DIM)
    return context, query, tokens_after_layers(P, Q, context, np.append(query, 0)[None]), (P, Q)


@pytest.mark.parametrize(
    ("check", "kind"), [(check, kind) for check in EXACT_CHECKS for kind in KINDS if holds(check, kind)]
)
def test_what_holds_exactly(check, kind):
    """To 1e-8 of the largest token, as the checks claim; float64 gives 1e-14."""
    found = check(make(kind), TASK, sequences=4)
    assert isinstance(found, Check) and found.verdict
    assert found.measured < 1e-12
    # Depths 0 to 3, x and y, context and query: the measured number is the largest of all.
    assert found.data.height == 4 * (LAYERS + 1)
    assert found.data["error"].max() == found.measured


@pytest.mark.parametrize("broken", ["attended query", "square", "softmax"])
def test_a_linear_map_is_found_missing(broken):
    """Far above the bound of 1e-8, and above 1e-4 where the update is not small."""
    model = make("diag")
    tokens = {"attended query": attended(model), "square": with_square(model, 1e-3), "softmax": softmax}
    found = check_linear_map(tokens[broken], TASK, sequences=4)
    assert not found.verdict
    assert found.measured > 1e-4
    start = found.data.filter(layer=0)["error"]
    assert start.max() < 1e-12, "before the first layer nothing is wrong"


def test_the_deviation_from_a_linear_map_is_as_large_as_what_causes_it():
    """The map is refitted, but least squares is linear: twice the square term, twice the deviation, to 1 per cent."""
    model = make("gd++")
    one, two = (check_linear_map(with_square(model, c), TASK, sequences=4).measured for c in (1e-6, 2e-6))
    assert one > 1e-8
    assert two / one == pytest.approx(2, rel=0.01)


def test_a_short_context_fits_any_map():
    with pytest.raises(ValueError, match=r"context must be at least dim \+ 2 = 6, .* got context 5"):
        check_linear_map(make("diag"), LinearRegression(DIM, 5, "fixed(1)"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_linear_transformer_makes_squares(kind):
    """At n = 10 000; and no cosine is above what any linear map of the tokens reaches, a bound from the data alone."""
    found = check_no_quadratic(make(kind), TASK, sequences=2)
    assert found.verdict and found.bound == 0.1
    assert found.data.height == 2 * (LAYERS + 1) * DIM
    assert (found.data["cosine"].abs() <= found.data["any_model"] + 1e-12).all()
    assert found.measured <= found.data["any_model"].max() * 1.01
    after = found.data.filter(found.data["layer"] > 0)["cosine"].abs()
    assert after.max() > 1e-4, "the layers did something"


def test_squares_need_contexts_much_longer_than_dim():
    """At the context length of training the claim is false, for an honest linear transformer: n >> d is an assumption."""
    assert not check_no_quadratic(make("diag"), TASK, examples=12, sequences=4).verdict


def test_a_square_is_seen_where_there_is_one():
    model = make("diag")
    scaled = with_square(LinearTransformer.from_flows(np.zeros((1, 2, 2)), DIM), 1.0)
    assert check_no_quadratic(model, TASK, sequences=2).verdict
    found = check_no_quadratic(scaled, TASK, sequences=2)
    assert not found.verdict
    worst = found.data.filter(found.data["cosine"].abs() == found.data["cosine"].abs().max())
    assert worst["coordinate"].to_list() == [0] and worst["layer"].to_list() == [1]


def test_what_any_model_reaches(seed):
    """n E[cosine^2] of the best model tends to dim + 4 without noise, and the noise adds 1, on the same inputs.

    For long contexts n cosine^2 is 5 chi^2 + chi^2, of variance 52, in dim 2; the noise adds a chi^2, of variance 2. Over 2
    coordinates and 100 sequences, 4 standard errors.
    """

    def noisy(prompt):
        return jnp.concatenate([prompt.tokens, jnp.append(prompt.query, 0)[None]])[None]

    def clean(prompt):
        return noisy(prompt).at[0, :-1, -1].set(prompt.x @ prompt.weights)

    task, reached = LinearRegression(2, 2, "fixed(1)"), []
    for tokens in (clean, noisy):
        found = check_no_quadratic(tokens, task, examples=1000, sequences=100, seed=seed)
        reached.append(1000 * (found.data["any_model"].to_numpy().reshape(100, 2) ** 2).mean(1))
    for draws, expected, variance in ((reached[0], 6, 52), (reached[1] - reached[0], 1, 2)):
        assert abs(draws.mean() - expected) < 4 * (variance / 200) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_both_recursions_follow_the_definition(rng, kind):
    """Relative 1e-10 against attention token by token in NumPy."""
    model = make(kind)
    context, query, expected, (P, Q) = numpy_tokens(model, rng, 7)
    found = [recursion_tokens(P, Q, context[None], query[None])[0]]
    if kind != "full":
        found.append(descent_tokens(np.asarray(model.flows(), np.float64), context[None], query[None])[0])
    for tokens in found:
        # flows() is float32 and so is its rounding: 1e-6 there.
        tolerance = 1e-10 if tokens is found[0] else 1e-5
        np.testing.assert_allclose(tokens, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("check", [check_recursion, check_momentum])
def test_recursions_tell_a_model_from_its_neighbour(check):
    """One parameter off by 1e-6 is enough; so is a query that is attended to."""
    model = make("diag")
    with jax.enable_x64(True):
        near = jax.tree.map(lambda leaf: leaf.at[1].multiply(1 + 1e-6), f64(model))
    assert check(model, TASK, tokens=f64(model).tokens, sequences=4).verdict
    for tokens in (near.tokens, attended(model), with_square(model, 1e-6)):
        found = check(model, TASK, tokens=tokens, sequences=4)
        assert not found.verdict and found.measured > 1e-8
    blown = LinearTransformer.from_flows(np.full((LAYERS, 2, 2), 1e30), DIM)
    assert not check(blown, TASK, sequences=4).verdict, "what overflows shows nothing"


def test_momentum_is_of_diagonal_layers():
    with pytest.raises(ValueError, match="model must be of kind diag or gd\\+\\+, .* got full"):
        check_momentum(make("full"), TASK)


def test_step_alone_is_gradient_descent(rng):
    """With w_yx only, w after l steps of size eta is (I - (I - eta Sigma)^l) Sigma^-1 alpha: relative 1e-12."""
    eta, x, w = 0.03, rng.normal(size=(9, DIM)), rng.normal(size=DIM)
    context = np.concatenate([x, (x @ w + rng.normal(size=9))[:, None]], 1)
    flows = np.zeros((5, 2, 2))
    flows[:, 1, 0] = -eta
    gram, alpha = x.T @ x, x.T @ context[:, -1]
    shrink = np.linalg.matrix_power(np.eye(DIM) - eta * gram, 5)
    expected = (np.eye(DIM) - shrink) @ np.linalg.solve(gram, alpha)
    query = rng.normal(size=(1, DIM))
    predicted = -descent_tokens(flows, context[None], query)[0, -1, -1, -1]
    np.testing.assert_allclose(predicted, query[0] @ expected, rtol=1e-12)


def span_residual(flows: np.ndarray, rng) -> tuple[float, float]:
    """How far `w' - w + w_yx g` is from the span of earlier gradients, and how long it is, at the worst of all layers."""
    dim, n = 8, 30
    x = rng.normal(size=(n, dim))
    context = np.concatenate([x, (x @ rng.normal(size=dim) + rng.normal(size=n))[:, None]], 1)
    queries = np.eye(dim)
    tokens = descent_tokens(flows, np.repeat(context[None], dim, 0), queries)
    path = -tokens[:, :, -1, -1].T  # (layers + 1, dim): the answers to unit queries
    residuals = tokens[0, :, :-1, -1]
    gradients = residuals @ x
    outside, length = [], []
    for layer in range(1, len(flows)):
        rest = path[layer + 1] - path[layer] + flows[layer, 1, 0] * gradients[layer]
        earlier = np.linalg.qr(gradients[:layer].T)[0]
        outside.append(np.linalg.norm(rest - earlier @ (earlier.T @ rest)))
        length.append(np.linalg.norm(rest))
    return max(outside) / max(length), min(length)


def test_without_preconditioning_a_step_is_a_heavy_balls(rng):
    """Every step is -w_yx g plus a combination of earlier gradients, to 1e-10, if w_xx = 0, and is not if w_xx is on."""
    flows = np.tile([[0.0, -0.002], [-0.012, -0.001]], (5, 1, 1)) * rng.uniform(0.5, 1.5, (5, 2, 2))
    outside, length = span_residual(flows, rng)
    assert outside < 1e-10
    assert length > 1e-4, "there is momentum"
    flows[:, 0, 0] = -0.004
    assert span_residual(flows, rng)[0] > 1e-3


@pytest.mark.parametrize("check", [*EXACT_CHECKS, check_no_quadratic])
def test_mistakes_are_named(unchecked, check):
    with pytest.raises(ValueError, match="the model has dim 4, the task has dim 3"):
        check(make("diag"), LinearRegression(3, 12, "fixed(1)"))
    with pytest.raises(ValueError, match="sequences must be a whole number >= 1, got 0"):
        check(make("diag"), TASK, sequences=0)


def test_tokens_of_another_shape():
    with pytest.raises(ValueError, match=r"must have shape \(4, layers \+ 1, 13, 5\), got \(4, 13, 5\)"):
        check_linear_map(lambda prompt: softmax(prompt)[..., 0, :, :], TASK, sequences=4)
    with pytest.raises(
        ValueError, match=r"must have shape \(4, 4, 13, 5\) as the model's have, got \(4, 3, 13, 5\)"
    ):
        check_recursion(make("diag"), TASK, tokens=softmax, sequences=4)


def test_a_check_is_a_function_of_its_seed():
    model = make("gd++")
    runs = [check_no_quadratic(model, TASK, examples=12, sequences=4, seed=s).data for s in (0, 0, 1)]
    assert runs[0].equals(runs[1]) and not runs[0].equals(runs[2])
