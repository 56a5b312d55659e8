"""Linear transformers: token form = moment form = the definition in NumPy; and what symmetries prove."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.models.any_depth import AnyDepth
from innerloop.tasks import LinearRegression
from innerloop.types import Moments, Prompt
from reference.linear import implicit_weights, tokens_after_layers

DIM = 5
LAYERS = 4
KINDS = {
    "full, 1 head": lambda **rest: LinearTransformer.full(DIM, LAYERS, 1, **rest),
    "full, 2 heads": lambda **rest: LinearTransformer.full(DIM, LAYERS, 2, **rest),
    "diag, 1 head": lambda **rest: LinearTransformer.diag(DIM, LAYERS, 1, **rest),
    "diag, 2 heads": lambda **rest: LinearTransformer.diag(DIM, LAYERS, 2, **rest),
    "diag, 3 heads": lambda **rest: LinearTransformer.diag(DIM, LAYERS, 3, **rest),
    "gd++": lambda **rest: LinearTransformer.gd_plus_plus(DIM, LAYERS, **rest),
}
BLOCKWISE = [kind for kind in KINDS if not kind.startswith("full")]
DEFAULTS = {
    "full": lambda layers, key: LinearTransformer.full(10, layers, key=key),
    "diag, 1 head": lambda layers, key: LinearTransformer.diag(10, layers, key=key),
    "diag, 2 heads": lambda layers, key: LinearTransformer.diag(10, layers, 2, key=key),
    "gd++": lambda layers, key: LinearTransformer.gd_plus_plus(10, layers, key=key),
}


def make(kind: str, rng: np.random.Generator, *, layers: int = LAYERS, context: int = 20) -> Any:
    """A model far enough from its start that every parameter matters, near enough that nothing blows up."""
    start = KINDS[kind](key=jax.random.key(0, impl="rbg"), context=context, label_scale=0.4)

    def moved(leaf):
        return jnp.asarray(np.asarray(leaf)[:layers] + 0.1 * rng.normal(size=(layers, *leaf.shape[1:])))

    return jax.tree.map(moved, start)


def make_prompt(rng: np.random.Generator, n: int, *batch: int) -> Prompt:
    """Noisy regression prompts, in the default precision."""
    x, query, w = (rng.normal(size=(*batch, *shape)) for shape in [(n, DIM), (DIM,), (DIM,)])
    y = np.einsum("...ni,...i->...n", x, w) + rng.normal(size=(*batch, n))
    return Prompt(x=jnp.asarray(x), y=jnp.asarray(y), query=jnp.asarray(query))


class Answers(NamedTuple):
    """What a model makes of a prompt; the tests share its compiled programs, one per kind and shape."""

    tokens: np.ndarray
    transfer: np.ndarray
    final: np.ndarray
    P: np.ndarray
    Q: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        return -self.transfer[..., -1, :-1]


@eqx.filter_jit
def _ask(model: LinearTransformer, prompt: Prompt):
    moments = prompt.moments()
    return model.tokens(prompt), model.transfer(moments), model.final_weights(moments), *model.matrices()


def ask(model: LinearTransformer, prompt: Prompt) -> Answers:
    return Answers(*map(np.asarray, _ask(model, prompt)))


def assert_equal(got, expected, rtol=1e-10):
    """Equal up to `rtol` of the largest entry."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max())


def assert_follows_definition(answers: Answers, context: np.ndarray, query: np.ndarray):
    n = len(context)
    others = np.concatenate([np.eye(DIM + 1), np.append(query, 0)[None]])
    states = tokens_after_layers(answers.P, answers.Q, context, others)
    assert_equal(answers.tokens, np.delete(states, np.s_[n:-1], axis=1))
    assert_equal(answers.transfer, states[:, n:-1].swapaxes(1, 2))
    assert_equal(answers.final, -states[-1, n : n + DIM, -1])
    assert (np.abs(np.diff(answers.weights, axis=0)) > 1e-7).any(axis=1).all(), (
        "a layer did nothing: the test is empty"
    )


@pytest.mark.parametrize(("n", "layers"), [(1, 4), (5, 4), (20, 4), (200, 4), (20, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_follow_the_definition(x64, rng, kind, n, layers):
    """Relative 1e-10 in float64 after every layer, n below, at and above the number of features."""
    model, prompt = make(kind, rng, layers=layers, context=n), make_prompt(rng, n)
    answers = ask(model, prompt)
    assert not answers.weights[0].any()
    assert_follows_definition(answers, np.asarray(prompt.tokens), np.asarray(prompt.query))
    # Theorem 4.1: the T that moves the query moves the context's tokens too.
    assert_equal(answers.tokens[-1, :-1], np.asarray(prompt.tokens) @ answers.transfer[-1].T)


@pytest.mark.parametrize("kind", KINDS)
def test_leading_axes_are_a_loop(x64, rng, kind):
    """Relative 1e-10 in float64, two layers, every prompt of a 2 x 3 batch against the definition."""
    model, prompts = make(kind, rng, layers=2, context=8), make_prompt(rng, 8, 2, 3)
    batched, tokens = ask(model, prompts), np.asarray(prompts.tokens)
    for index in np.ndindex(2, 3):
        one = batched._replace(
            tokens=batched.tokens[index], transfer=batched.transfer[index], final=batched.final[index]
        )
        assert_follows_definition(one, tokens[index], np.asarray(prompts.query)[index])


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_minus_the_label_of_the_query(x64, rng, kind):
    """To 1e-10: after every layer it is <w, query>, and `predict` gives the last."""
    model, prompts = make(kind, rng, layers=2, context=8), make_prompt(rng, 8, 2, 3)
    labels = ask(model, prompts).tokens[..., -1, -1]
    weights = eqx.filter_jit(lambda model, prompt: model.implicit_weights(prompt.moments()))(model, prompts)
    assert weights.shape == (2, 3, 3, DIM)
    assert_equal(np.einsum("...ld,...d->...l", weights, prompts.query), -labels)
    assert_equal(
        eqx.filter_jit(lambda model, prompt: model.predict(prompt))(model, prompts), -labels[..., -1]
    )


def test_a_single_prompt_needs_no_leading_axis(x64, rng):
    model, prompts = make("diag, 2 heads", rng, layers=2, context=8), make_prompt(rng, 8, 1)
    alone = Prompt(x=prompts.x[0], y=prompts.y[0], query=prompts.query[0])
    weights = model.implicit_weights(alone.moments())
    assert weights.shape == (3, DIM)
    assert_equal(weights, model.implicit_weights(prompts.moments())[0], rtol=1e-12)
    prediction = model.predict(alone)
    assert prediction.shape == ()
    assert float(prediction) == pytest.approx(float(model.predict(prompts)[0]), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_both_forms_agree(x64, rng, kind):
    """Three layers; the forms to 1e-10, central differences of the definition (step 1e-5) to 1e-6."""
    model, direction = (make(kind, rng, layers=3, context=7) for _ in range(2))
    prompt = make_prompt(rng, 7)
    cotangent = rng.normal(size=DIM)

    def by_moments(model, prompt):
        return cotangent @ model.final_weights(prompt.moments())

    def by_tokens(model, prompt):
        unit_queries = jax.vmap(lambda query: Prompt(x=prompt.x, y=prompt.y, query=query))(jnp.eye(DIM))
        return -cotangent @ model.tokens(unit_queries)[:, -1, -1, -1]

    @eqx.filter_jit
    def gradients(model, prompt):
        return eqx.filter_grad(by_moments)(model, prompt), eqx.filter_grad(by_tokens)(model, prompt)

    fast, slow = map(jax.tree.leaves, gradients(model, prompt))
    for one, other in zip(fast, slow, strict=True):
        assert_equal(one, other)

    def defined(step: float) -> float:
        moved = jax.tree.map(lambda leaf, shift: leaf + step * shift, model, direction)
        P, Q = map(np.asarray, moved.matrices())
        return float(cotangent @ implicit_weights(P, Q, np.asarray(prompt.tokens))[-1])

    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(fast, jax.tree.leaves(direction), strict=True))
    assert slope == pytest.approx((defined(1e-5) - defined(-1e-5)) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_from_matrices_inverts_matrices(x64, rng, kind):
    """Inner scales are a choice of units: without them, the same P and Q make the same function, to 1e-10."""
    model, prompt = make(kind, rng), make_prompt(rng, 20)
    answers = ask(model, prompt)
    twin = LinearTransformer.from_matrices(answers.P, answers.Q)
    assert (twin.context, twin.label_scale, twin.layers, twin.heads) == (1, 1.0, LAYERS, model.heads)
    for ours, theirs in zip(answers, ask(twin, prompt), strict=True):
        assert_equal(theirs, ours)


@pytest.mark.parametrize("kind", BLOCKWISE)
def test_from_flows_inverts_flows(x64, rng, kind):
    model, prompt = make(kind, rng), make_prompt(rng, 20)
    twin = LinearTransformer.from_flows(model.flows(), DIM)
    assert_equal(twin.flows(), model.flows(), rtol=1e-14)
    assert_equal(ask(twin, prompt).weights, ask(model, prompt).weights)


def test_inner_scales_are_units(x64, rng):
    """Any label scale and context inside: parameters in those units make the same function, to 1e-10."""
    prompt = make_prompt(rng, 20)
    P, Q = (0.02 * rng.normal(size=(LAYERS, 1, DIM + 1, DIM + 1)) for _ in range(2))
    plain = LinearTransformer.from_matrices(P, Q)
    unit = np.append(np.ones(DIM), 0.7)  # inside, e' = unit * e and S' = unit S unit / 50
    inner = KINDS["full, 1 head"](key=jax.random.key(0), context=50, label_scale=0.7)
    scaled = eqx.tree_at(
        lambda model: (model.P, model.Q),
        inner,
        (jnp.asarray(P * np.outer(unit, 1 / unit)), jnp.asarray(50 * Q / np.outer(unit, unit))),
    )
    for ours, theirs in zip(ask(plain, prompt), ask(scaled, prompt), strict=True):
        assert_equal(theirs, ours)


@pytest.mark.parametrize("kind", BLOCKWISE)
def test_flows_are_products_of_the_matrices(x64, rng, kind):
    """w_ab = sum over heads of p_a q_b, and P, Q are diagonal and constant on x."""
    model = make(kind, rng)
    diagonals = []
    for matrix in map(np.asarray, model.matrices()):
        diagonal = np.einsum("lhii->lhi", matrix)
        assert np.array_equal(matrix, diagonal[..., None] * np.eye(DIM + 1))
        assert np.array_equal(diagonal[..., :-1], np.repeat(diagonal[..., :1], DIM, axis=-1))
        diagonals.append(diagonal[..., [0, DIM]])
    assert_equal(model.flows(), np.einsum("lha,lhb->lab", *diagonals), rtol=1e-13)


def test_one_head_ties_the_flows_and_two_do_not(x64, rng):
    """w_xx w_yy = w_xy w_yx for one head, to rounding; GD++ has no flow out of y."""
    for kind, tied in {"diag, 1 head": True, "diag, 2 heads": False, "gd++": True}.items():
        flows = np.asarray(make(kind, rng).flows())
        ways = np.stack([flows[:, 0, 0] * flows[:, 1, 1], flows[:, 0, 1] * flows[:, 1, 0]])
        excess, size = np.abs(ways[0] - ways[1]), np.abs(ways).max(0)
        assert (excess <= 1e-13 * size).all() if tied else (excess > 1e-3 * size).all()
        assert flows[:, :, 1].any() == (kind != "gd++")


@pytest.mark.parametrize("kind", BLOCKWISE)
def test_one_program_runs_blockwise_models_of_all_depths(x64, rng, kind):
    moments = make_prompt(rng, 20, 70).moments()  # more than one block of lanes
    traced = []

    @jax.jit
    def weights(model: AnyDepth, S):
        traced.append(1)
        return model.final_weights(S)

    for layers in (1, 2, 3, 4):
        model = make(kind, rng, layers=layers)
        assert_equal(weights(AnyDepth.of_model(model), moments.S), model.implicit_weights(moments)[:, -1])
    assert len(traced) == 1


@pytest.mark.parametrize("layers, most, room", [(1, 0, 4), (4, 0, 4), (5, 0, 8), (2, 5, 8), (9, 8, 16)])
def test_depths_share_a_few_sizes(layers, most, room):
    model = AnyDepth.of(np.ones((layers, 2, 2)), 20, 0.4, most=most)
    assert model.flows.shape == (room, 2, 2) and model.flows.sum() == 4 * layers


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_layer_changes_nothing_and_can_learn(x64, rng, kind):
    """At every position, to 1e-13; and the gradient of the new layer's parameters is not zero."""
    whole, prompt = make(kind, rng), make_prompt(rng, 20)
    before = ask(whole, prompt).weights[:LAYERS]  # of the model without its last layer
    model = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[:-1]), whole)
    moments = prompt.moments()
    slope = eqx.filter_jit(eqx.filter_grad(lambda model: model.final_weights(moments).sum()))
    for position in range(LAYERS):
        ways = model.insert_idle_layer(position)
        assert len(ways) == (3 if kind == "diag, 1 head" else 1)
        deeper = ways[position % len(ways)]
        assert deeper.layers == LAYERS
        answers = ask(deeper, prompt)
        assert_equal(answers.weights, np.insert(before, position, before[position], axis=0), rtol=1e-13)
        assert_equal(answers.final, before[-1], rtol=1e-13)
        assert any(np.abs(leaf[position]).max() > 1e-7 for leaf in jax.tree.leaves(slope(deeper)))


@pytest.mark.parametrize("kind", KINDS)
def test_rotating_the_inputs_rotates_the_weights_of_blockwise_kinds_only(x64, rng, kind):
    """w_hat(x R^T, y) = R w_hat(x, y), to 1e-10: S with its blocks scaled turns as S does."""
    model, prompt = make(kind, rng), make_prompt(rng, 20)
    R = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    turned = Prompt(x=prompt.x @ R.T, y=prompt.y, query=jnp.asarray(R) @ prompt.query)
    expected, got = ask(model, prompt).weights @ R.T, ask(model, turned).weights
    if kind in BLOCKWISE:
        assert_equal(got, expected)
    else:
        assert np.abs(got - expected).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_the_context_permutes_its_tokens(x64, rng, kind):
    """The query's token, and so the prediction, stays; to 1e-10."""
    model, prompt = make(kind, rng), make_prompt(rng, 20)
    order = rng.permutation(20)
    answers, shuffled = ask(model, prompt), ask(model, Prompt(prompt.x[order], prompt.y[order], prompt.query))
    assert_equal(shuffled.tokens, answers.tokens[:, np.append(order, 20)])
    assert_equal(shuffled.weights, answers.weights)


def test_units_of_x_and_y_are_absorbed_by_the_flows(x64, rng):
    """Flows out of x divided by c_x^2, out of y by c_y^2, turn w_hat into w_hat c_y / c_x; to 1e-10."""
    flows = 0.02 * rng.normal(size=(LAYERS, 2, 2))
    prompt = make_prompt(rng, 20)
    c_x, c_y = 2.5, 0.3
    rescaled = Prompt(x=c_x * prompt.x, y=c_y * prompt.y, query=prompt.query)
    weights = ask(LinearTransformer.from_flows(flows, DIM), prompt).weights
    absorbed = LinearTransformer.from_flows(flows / np.array([c_x, c_y]) ** 2, DIM)
    assert_equal(ask(absorbed, rescaled).weights, weights * (c_y / c_x))


def test_gd_plus_plus_is_linear_in_the_labels_and_diag_is_only_odd(x64, rng):
    """Without flows out of y, y enters once; with them, still every term has an odd power of y. To 1e-10."""
    prompt = make_prompt(rng, 20)

    def weights(model: LinearTransformer, factor: float) -> np.ndarray:
        return ask(model, Prompt(x=prompt.x, y=factor * prompt.y, query=prompt.query)).weights

    linear, odd = make("gd++", rng), make("diag, 2 heads", rng)
    assert_equal(weights(linear, 2.0), 2 * weights(linear, 1.0))
    assert_equal(weights(odd, -1.0), -weights(odd, 1.0))
    assert np.abs(weights(odd, 2.0) - 2 * weights(odd, 1.0)).max() > 1e-3


@pytest.mark.parametrize("kind", BLOCKWISE)
def test_one_layer_is_one_gradient_step(x64, rng, kind):
    """w_hat = -w_yx alpha, the first step of gradient descent on least squares from w = 0."""
    model, prompt = make(kind, rng, layers=1), make_prompt(rng, 20)
    alpha = np.asarray(prompt.x).T @ np.asarray(prompt.y)
    assert_equal(ask(model, prompt).final, -float(model.flows()[0, 1, 0]) * alpha, rtol=1e-12)


@eqx.filter_jit
def _draw(task: LinearRegression, key: jax.Array) -> Moments:
    return task.sample_moments(key, 512)


@eqx.filter_jit
def _final_weights(model: LinearTransformer, moments: Moments) -> jax.Array:
    return model.final_weights(moments)


def _padded(leaf: np.ndarray, layers: int) -> np.ndarray:
    return np.pad(leaf, [(0, layers - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)])


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_default_start_is_no_worse_than_predicting_zero(seed, kind):
    """1..8 layers at the tables' noisiest problem, in float32 where larger starts overflow; 512 sequences."""
    key = jax.random.key(seed, impl="rbg")  # compiles five times faster than the default
    moments = _draw(LinearRegression(10, 20, "uniform(0,7)"), key)
    assert moments.weights is not None
    zero = 0.5 * (np.asarray(moments.weights) ** 2).sum(-1)
    for layers in range(1, 9):
        model = DEFAULTS[kind](layers, key)
        # Layers of zeros do nothing, and let all depths share one compiled program.
        padded = jax.tree.map(lambda leaf: jnp.asarray(_padded(np.asarray(leaf), 8)), model)
        weights = _final_weights(padded, moments)
        assert weights.dtype == jnp.float32
        loss = 0.5 * (np.asarray(weights - moments.weights) ** 2).sum(-1)
        assert np.isfinite(loss).all()
        assert loss.mean() < zero.mean()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 0}, "dim must be a whole number >= 1, got 0"),
        ({"layers": -1}, "layers must be a whole number >= 1, got -1"),
        ({"layers": 2.0}, r"layers must be a whole number >= 1, got 2\.0"),
        ({"heads": True}, "heads must be a whole number >= 1, got True"),
        ({"context": 0}, "context must be a whole number >= 1, got 0"),
        ({"label_scale": 0.0}, r"label_scale must be positive, got 0\.0"),
        ({"label_scale": float("nan")}, "label_scale must be positive, got nan"),
    ],
)
def test_bad_sizes_are_refused(unchecked, key, sizes, message):
    sizes = {"dim": 3, "layers": 2, "key": key, **sizes}
    for make_one in (LinearTransformer.full, LinearTransformer.diag):
        with pytest.raises(ValueError, match=message):
            make_one(**sizes)
    if "heads" not in sizes:
        with pytest.raises(ValueError, match=message):
            LinearTransformer.gd_plus_plus(**sizes)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 1, 4, 4), (2, 2, 4, 4)), r"same|must both have shape .*got \(2, 1, 4, 4\) and \(2, 2, 4, 4\)"),
        (((2, 4, 4), (2, 4, 4)), r"must both have shape \(layers, heads, D, D\)"),
        (((2, 1, 4, 3), (2, 1, 4, 3)), r"must both have shape \(layers, heads, D, D\)"),
        (((2, 1, 1, 1), (2, 1, 1, 1)), r"must both have shape \(layers, heads, D, D\)"),
    ],
)
def test_bad_matrices_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        LinearTransformer.from_matrices(*map(np.ones, shapes))


def test_values_that_are_not_finite_are_refused():
    P = np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match="P and Q must be finite"):
        LinearTransformer.from_matrices(P, np.full_like(P, np.nan))
    with pytest.raises(ValueError, match="flows must be finite"):
        LinearTransformer.from_flows(np.full((1, 2, 2), np.inf), 3)


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 3), (1, 4)])
def test_bad_flows_are_refused(shape):
    with pytest.raises(ValueError, match=r"flows must have shape \(layers, 2, 2\), got"):
        LinearTransformer.from_flows(np.ones(shape), 3)


def test_data_of_another_dimension_are_refused(key):
    model, moments = LinearTransformer.diag(3, 1, key=key), Moments(S=jnp.eye(6), n=4)
    for method in (model.implicit_weights, model.final_weights, model.transfer):
        with pytest.raises(ValueError, match="the model has dim 3, the data has dim 5"):
            method(moments)
