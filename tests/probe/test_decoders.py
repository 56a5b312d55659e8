"""Inside a decoder: tokens and weights are those of the definition, and what is mixed is made of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import CausalDecoder, garg
from innerloop.models.mixers import (
    FeatureMap,
    linear_attention,
    linear_weights,
    softmax_attention,
    softmax_weights,
)
from innerloop.probe import attention_weights, residual_stream
from reference import decoder as reference

DIM, POINTS, TOKENS, HEADS = 3, 4, 8, 4
MIXERS = "softmax:1+linear:3,linear,softmax"
KINDS = [["softmax", *["linear"] * 3], ["linear"] * 4, ["softmax"] * 4]
MAPS: tuple[FeatureMap, ...] = ("relu2", "elu1", "identity", "exp")


def moved(rng: np.random.Generator, feature_map: FeatureMap = "relu2") -> CausalDecoder:
    """A hybrid, by head and by layer, far enough from its start that every parameter matters."""
    model = CausalDecoder(
        DIM,
        POINTS,
        len(KINDS),
        mixers=MIXERS,
        width=16,
        heads=HEADS,
        mlp_ratio=1,
        feature_map=feature_map,
        key=jax.random.key(0, impl="rbg"),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape)), model)


def draw(rng: np.random.Generator, *batch: int) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(rng.normal(size=(*batch, POINTS, DIM))), jnp.asarray(rng.normal(size=(*batch, POINTS)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("feature_map", MAPS)
def test_tokens_and_weights_are_those_of_the_definition(feature_map, rng):
    model, (xs, ys) = moved(rng, feature_map), draw(rng, 2)
    stream = eqx.filter_jit(residual_stream)(model, xs, ys)
    weights = eqx.filter_jit(attention_weights)(model, xs, ys)
    assert stream.shape == (len(KINDS) + 1, 2, TOKENS, 16)
    assert weights.shape == (len(KINDS), 2, HEADS, TOKENS, TOKENS)
    for sequence, (x, y) in enumerate(zip(xs, ys, strict=True)):
        states, attended = reference.inside(
            garg.exported(model), KINDS, np.asarray(x), np.asarray(y), feature_map=feature_map, tanh=True
        )
        np.testing.assert_allclose(stream[:, sequence], states, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(weights[:, sequence], attended, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["softmax", *MAPS])
def test_weights_times_values_are_what_a_head_mixes(kind, rng):
    q, k, v = jnp.asarray(rng.normal(size=(3, 2, 7, HEADS, 5)))
    if kind == "softmax":
        weights, mixed = softmax_weights(q, k), softmax_attention(q, k, v)
    else:
        weights = linear_weights(q, k, feature_map=kind)
        mixed = linear_attention(q, k, v, feature_map=kind, form="recurrent")  # which forms no weights
    np.testing.assert_allclose(jnp.einsum("bhij,bjhe->bihe", weights, v), mixed, rtol=1e-9, atol=1e-11)


def test_rows_sum_to_one_and_look_at_no_later_token(rng):
    """In single precision; relu2's sum to less where the denominator is clamped."""
    xs, ys = draw(rng, 3)
    for feature_map in ("elu1", "relu2"):
        weights = np.asarray(attention_weights(moved(rng, feature_map), xs, ys))
        assert (np.triu(weights, 1) == 0).all() and (weights >= 0).all()
        sums = weights.sum(-1)
        assert (sums < 1 + 1e-5).all()
        np.testing.assert_allclose(sums if feature_map == "elu1" else sums[2], 1, atol=1e-5)


def test_the_last_tokens_give_the_predictions(rng):
    model, (xs, ys) = moved(rng), draw(rng)
    stream = residual_stream(model, xs, ys)
    np.testing.assert_array_equal(model.read(stream[-1]), model(xs, ys))
    assert np.abs(model.read(stream[0]) - model(xs, ys)).max() > 0.1


def test_a_prompt_alone_is_as_in_a_batch(rng):
    model, (xs, ys) = moved(rng), draw(rng, 2)
    for inside in (residual_stream, attention_weights):
        np.testing.assert_allclose(
            inside(model, xs[1], ys[1]), inside(model, xs, ys)[:, 1], rtol=1e-4, atol=1e-5
        )


@pytest.mark.usefixtures("unchecked")
def test_prompts_that_do_not_fit_are_refused(rng):
    xs, ys = draw(rng)
    for inside in (residual_stream, attention_weights):
        with pytest.raises(ValueError, match=r"xs must have shape \(..., n, 3\) .* got \(3,\)"):
            inside(moved(rng), xs[0], ys)
