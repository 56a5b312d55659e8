"""The causal decoder = its definition in NumPy; causality; hybrids; initial values; and that it learns."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import innerloop as il
from innerloop.models import CausalDecoder, garg
from innerloop.models.decoder import Affine
from innerloop.models.mixers import MIXERS
from innerloop.types import Prompt
from reference import decoder as reference

DIM, POINTS, LAYERS = 3, 4, 2
KEY = jax.random.key(0, impl="rbg")  # compiled faster than the default


def make(**options) -> CausalDecoder:
    return CausalDecoder(
        DIM, POINTS, LAYERS, **{"width": 8, "heads": 2, "mlp_ratio": 2, "key": KEY, **options}
    )


def moved(model: CausalDecoder, rng: np.random.Generator) -> CausalDecoder:
    """Far enough from its start that every parameter matters, in float64 if that is on."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape)), model)


def draw(rng: np.random.Generator, *batch: int) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(rng.normal(size=(*batch, POINTS, DIM))), jnp.asarray(rng.normal(size=(*batch, POINTS)))


@pytest.mark.parametrize("sizes", [(3, 5), (5, 3)])
def test_the_gradient_of_a_map_is_that_of_its_product_and_sum(sizes, rng):
    """In float32 against XLA's own, contracted and summed another way: sums of 48 terms, so to 1e-5 of their size."""
    x, weight, bias, weighed = (
        jnp.asarray(rng.normal(size=size), jnp.float32)
        for size in ((8, 6, sizes[0]), sizes, sizes[1:], (8, 6, sizes[1]))
    )

    def gradients(mapped):
        return jax.grad(lambda *parts: (jnp.tanh(mapped(*parts)) * weighed).sum(), argnums=(0, 1, 2))(
            x, weight, bias
        )

    mine = gradients(lambda x, weight, bias: Affine(weight, bias)(x))
    theirs = gradients(lambda x, weight, bias: x @ weight + bias[None, None])
    for own, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5 * float(jnp.abs(other).max()))


CASES = {
    "as the published softmax model": ({}, [["softmax"] * 2] * 2),
    "as the published linear model": (
        {"mixers": "linear", "activation": "gelu", "final_layer_norm": False, "init": "torch"},
        [["linear"] * 2] * 2,
    ),
    "layers of both": (
        {"mixers": "softmax,linear", "feature_map": "elu1"},
        [["softmax"] * 2, ["linear"] * 2],
    ),
    "heads of both, no biases": (
        {"mixers": ["linear:1+softmax:1", "softmax"], "bias": False, "feature_map": "exp"},
        [["linear", "softmax"], ["softmax"] * 2],
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_is_the_definition(case, rng):
    options, kinds = CASES[case]
    model = moved(make(**options), rng)
    xs, ys = draw(rng, 2)
    expected = [
        reference.predictions(
            garg.exported(model),
            kinds,
            np.asarray(x),
            np.asarray(y),
            feature_map=options.get("feature_map", "relu2"),
            tanh=options.get("activation") != "gelu",
        )
        for x, y in zip(xs, ys, strict=True)
    ]
    np.testing.assert_allclose(eqx.filter_jit(model)(xs, ys), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mixers", ["softmax", "linear", "softmax:1+linear:1"])
def test_later_tokens_change_nothing_earlier(mixers, rng):
    model = moved(make(mixers=mixers), rng)
    xs, ys = draw(rng)
    sensitivity = jax.jit(jax.jacobian(model, argnums=(0, 1)))(xs, ys)
    to_x, to_y = np.abs(sensitivity[0]).sum(-1), np.abs(sensitivity[1])
    # Prediction i sees x_0 .. x_i and y_0 .. y_{i-1}, and all of them.
    assert (np.triu(to_x, 1) == 0).all() and (to_x[np.tril_indices(POINTS)] > 0).all()
    assert (np.triu(to_y) == 0).all() and (to_y[np.tril_indices(POINTS, -1)] > 0).all()


def test_hybrids_of_one_kind_are_that_kind(rng):
    xs, ys = draw(rng, 2)
    for kind in ("softmax", "linear"):
        plain = make(mixers=kind)
        for spelling in (f"{kind},{kind}", [kind, f"{kind}:2"], [f"{kind}:1+{kind}:1", kind]):
            np.testing.assert_allclose(make(mixers=spelling)(xs, ys), plain(xs, ys), rtol=1e-5, atol=1e-6)


def test_short_prompts_are_the_start_of_long_ones(rng):
    model, (xs, ys) = make(), draw(rng, 2)
    np.testing.assert_allclose(model(xs[:, :2], ys[:, :2]), model(xs, ys)[:, :2], rtol=1e-5, atol=1e-6)
    prompt = Prompt(x=xs[:, :2], y=ys[:, :2], query=xs[:, 2])
    np.testing.assert_allclose(model.predict(prompt), model(xs, ys)[:, 2], rtol=1e-5, atol=1e-6)


def test_parameters_are_counted():
    # By hand: 5 -> 256 in, 20 positions, 6 layers of 12 width^2 + 13 width, a norm, 256 -> 1 out.
    model = eqx.filter_eval_shape(lambda key: CausalDecoder(5, 10, 6, key=key), KEY)
    by_hand = 6 * 256 + 20 * 256 + 6 * (12 * 256**2 + 13 * 256) + 2 * 256 + 257
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == by_hand == 4_745_985
    assert (
        make(bias=False, final_layer_norm=False).parameter_count()
        == 3 * 8 + 8 * 8 + 2 * (8 * 8 * 8 + 2 * 8) + 8
    )


def test_initial_values_have_the_published_spread():
    gpt2 = CausalDecoder(5, 10, 2, width=64, key=KEY)
    torch = CausalDecoder(5, 10, 2, width=64, init="torch", key=KEY)
    for spread, array in [
        (0.02, gpt2.blocks[0].qkv.weight),
        (0.02 / 2, gpt2.blocks[1].contract.weight),
        (0.02, gpt2.positions),
        (1 / np.sqrt(3 * 5), gpt2.read_in.weight),
        (1 / np.sqrt(3 * 256), torch.blocks[0].contract.weight),
        (1.0, torch.positions),
    ]:
        # The sample's deviation is off by 1 / sqrt(2 n) of itself.
        assert abs(float(jnp.std(array)) / spread - 1) < 5 / np.sqrt(2 * array.size)
    assert float(jnp.abs(torch.blocks[0].qkv.weight).max()) <= 1 / 8
    assert not gpt2.blocks[0].qkv.bias.any() and torch.blocks[0].qkv.bias.any()


def test_layout_of_garg_there_and_back(rng):
    model = moved(make(), rng)
    state = model.to_garg()
    stored = {"_backbone.wte.weight": np.zeros((9, 8)), "_backbone.h.0.attn.bias": np.ones((1, 1, 8, 8))}
    back = CausalDecoder.from_garg({**state, **stored}, heads=2)
    assert jax.tree.structure(back) == jax.tree.structure(model)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert state["_read_in.weight"].shape == (8, DIM) and state["_read_out.weight"].shape == (1, 8)


def test_what_the_layout_cannot_hold_is_refused():
    for options in (
        {"mixers": "linear"},
        {"bias": False},
        {"final_layer_norm": False},
        {"activation": "gelu"},
    ):
        with pytest.raises(ValueError, match="holds softmax decoders with"):
            make(**options).to_garg()


def test_bad_state_dicts_are_named():
    state = make().to_garg()
    gone = {name: array for name, array in state.items() if name != "_backbone.h.1.ln_2.bias"}
    for bad, message in [
        (gone, r"must have '_backbone.h.1.ln_2.bias'"),
        ({}, r"must have '_read_in.weight', got nothing"),
        (
            {**state, "_backbone.h.0.attn.c_fast.bias": np.ones(3)},
            r"entries that the layout has not: .*c_fast.bias",
        ),
        (
            {**state, "_read_out.weight": np.ones((2, 8))},
            r"_read_out.weight must have shape \(1, 8\), got \(2, 8\)",
        ),
        ({**state, "_backbone.wpe.weight": np.ones((7, 8))}, "two rows a point, got 7 rows"),
    ]:
        with pytest.raises(ValueError, match=message):
            CausalDecoder.from_garg(bad, heads=2)
    with pytest.raises(ValueError, match="width must be a multiple of heads, got width 8, heads 3"):
        CausalDecoder.from_garg(state, heads=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 9}, "width must be a multiple of heads, got width 9, heads 2"),
        ({"mlp_ratio": 0}, "mlp_ratio must be a whole number >= 1, got 0"),
        ({"activation": "relu"}, "activation must be one of gelu_tanh, gelu, got 'relu'"),
        ({"init": "zero"}, "init must be one of gpt2, torch, got 'zero'"),
        ({"feature_map": "cos"}, "feature_map must be one of relu2, elu1, identity, exp, got 'cos'"),
        ({"mixers": "hyena"}, 'must be "softmax", "linear", .* got \'hyena\''),
        ({"mixers": ["softmax"] * 3}, "one entry for each of the 2 layers, got 3"),
        ({"mixers": "softmax:2+linear:2"}, "must add up to 2, got 'softmax:2\\+linear:2'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.usefixtures("unchecked")
def test_prompts_that_do_not_fit_are_refused(rng):
    model, (xs, ys) = make(), draw(rng)
    with pytest.raises(
        ValueError, match=r"xs must have shape \(..., n, 3\) with n from 1 to 4, got \(4, 2\)"
    ):
        model(xs[:, :2], ys)
    with pytest.raises(
        ValueError, match=r"ys must have shape \(4,\) beside xs of shape \(4, 3\), got \(3,\)"
    ):
        model(xs, ys[:3])


@pytest.mark.parametrize("mixers", ["softmax", "linear"])
def test_learns_to_beat_averaging(mixers):
    # One feature, fresh noise-free sequences: averaging, y = <sum_i y_i x_i / n, x>, loses 2 / n = 1/2 at n = 4; the start
    # loses 1.
    task = il.LinearRegression(1, 4, "fixed(0)")
    model = CausalDecoder(1, 5, 1, width=32, heads=2, mixers=mixers, key=KEY)
    optimizer = optax.adam(3e-3)

    def loss(model, key):
        prompt = task.sample_prompts(key, 64)
        xs = jnp.concatenate([prompt.x, prompt.query[:, None]], 1)
        ys = jnp.concatenate([prompt.y, prompt.query * prompt.weights], 1)
        return jnp.square(model(xs, ys) - ys).mean()

    @jax.jit
    def trained(model):
        def update(carry, key):
            model, state = carry
            with jax.numpy_dtype_promotion("standard"):  # Optax counts steps in integers
                updates, state = optimizer.update(jax.grad(loss)(model, key), state)
            return (optax.apply_updates(model, updates), state), None

        keys = jax.random.split(jax.random.fold_in(KEY, 1), 2000)
        return jax.lax.scan(update, (model, optimizer.init(model)), keys)[0][0]

    prompts = task.sample_prompts(jax.random.fold_in(KEY, 2), 4000)
    averaging = (prompts.x[..., 0] * prompts.y).mean(1) * prompts.query[:, 0]
    bar = float(jnp.square(averaging - prompts.label).mean())
    assert float(jnp.square(eqx.filter_jit(trained(model).predict)(prompts) - prompts.label).mean()) < bar


def test_a_registered_mixer_is_one_like_the_others(rng, monkeypatch, tmp_path):
    """Equal weights on all earlier tokens are softmax attention with queries of zero."""

    def mean_attention(q, k, v):
        count = 1 + jnp.arange(v.shape[1], dtype=v.dtype)
        return jnp.cumsum(v, axis=1) / count[None, :, None, None]

    monkeypatch.setitem(MIXERS, "mean", mean_attention)
    xs, ys = draw(rng, 2)

    def without_queries(model):
        zero = [block.qkv.weight.at[:, : model.width].set(0) for block in model.blocks]
        return eqx.tree_at(lambda model: [block.qkv.weight for block in model.blocks], model, zero)

    ours, like = (make(mixers=names) for names in ("mean:1+linear:1,mean", "softmax:1+linear:1,softmax"))
    ours, like = without_queries(ours), without_queries(like)
    np.testing.assert_allclose(ours(xs, ys), like(xs, ys), atol=1e-6)
    assert np.abs(ours(xs, ys) - make(mixers="linear")(xs, ys)).max() > 1e-3
    with pytest.raises(
        ValueError, match="need softmax or linear attention in every layer, got the mixer 'mean'"
    ):
        il.probe.attention_weights(ours, xs, ys)
    with pytest.raises(ValueError, match="exported files need softmax or linear attention"):
        il.export(ours, tmp_path / "model.py")
    with pytest.raises(ValueError, match=r'must be "softmax", "linear", "mean", or their heads'):
        make(mixers="median")
