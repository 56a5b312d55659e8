"""Causal mixers: each form = the definition in NumPy, in outputs and gradients; and what causality proves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models.mixers import LinearState, linear_attention, linear_attention_step, softmax_attention
from reference import decoder as reference

TOKENS = 7  # no multiple of the chunk
MAPS = ["relu2", "elu1", "identity", "exp"]
FORMS = {
    "chunked": {"form": "chunked", "chunk": 3},
    "one chunk": {"form": "chunked", "chunk": 64},
    "recurrent": {"form": "recurrent"},
}


def draw(rng: np.random.Generator, tokens: int = TOKENS) -> list[jax.Array]:
    return [jnp.asarray(rng.normal(size=(2, tokens, 2, 3))) for _ in range(3)]


def by_definition(attention, q, k, v):
    """Every sequence and head on its own."""
    out = np.zeros(v.shape)
    for batch, head in np.ndindex(v.shape[0], v.shape[2]):
        out[batch, :, head] = attention(*(np.asarray(z)[batch, :, head] for z in (q, k, v)))
    return out


@pytest.mark.usefixtures("x64")
def test_softmax_is_the_definition(rng):
    q, k, v = draw(rng)
    expected = by_definition(reference.softmax_attention, q, k, v)
    np.testing.assert_allclose(jax.jit(softmax_attention)(q, k, v), expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("feature_map", MAPS)
def test_linear_is_the_definition_in_every_form(feature_map, rng):
    q, k, v = draw(rng)
    expected = by_definition(partial(reference.linear_attention, feature_map=feature_map), q, k, v)
    forms = {"parallel": {"form": "parallel"}, **FORMS}

    @jax.jit
    def all_forms(q, k, v):
        return {
            name: linear_attention(q, k, v, feature_map=feature_map, **form) for name, form in forms.items()
        }

    for name, out in all_forms(q, k, v).items():
        np.testing.assert_allclose(out, expected, atol=1e-12, err_msg=name)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("feature_map", ["relu2", "identity"])
def test_forms_agree_in_gradients(feature_map, rng):
    q, k, v = draw(rng)
    target = jnp.asarray(rng.normal(size=v.shape))

    @jax.jit
    def gradients(q, k, v):
        def loss(qkv, form):
            return (linear_attention(*qkv, feature_map=feature_map, **form) * target).sum()

        return {
            name: jax.grad(loss)((q, k, v), form)
            for name, form in {"": {"form": "parallel"}, **FORMS}.items()
        }

    found = gradients(q, k, v)
    for name in FORMS:
        for one, other in zip(found[name], found[""], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.usefixtures("x64")
def test_single_steps_are_the_whole_sequence(rng):
    q, k, v = draw(rng)
    step = jax.jit(linear_attention_step)
    state, outs = LinearState.empty(v), []
    for i in range(TOKENS):
        state, out = step(state, *(z[:, i : i + 1] for z in (q, k, v)))
        outs.append(out)
    np.testing.assert_allclose(jnp.concatenate(outs, 1), linear_attention(q, k, v), atol=1e-12)
    np.testing.assert_allclose(state.weight, LinearState.empty(v).weight + _features(k).sum(1), atol=1e-12)


def _features(k):
    return jnp.asarray(reference.phi(np.asarray(k) / np.sqrt(k.shape[-1]), "relu2"))


def test_denominator_is_clamped(rng):
    # No key answers this query: both sums are near the square of 1e-6, and the clamp, not their ratio, decides.
    q = jnp.full((1, 2, 1, 3), -1.0)
    v = jnp.ones((1, 2, 1, 3))
    out = linear_attention(q, q, v)
    np.testing.assert_allclose(np.asarray(out)[0, :, 0, 0], np.array([3e-12, 6e-12]) / 1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_map": "relu"}, "feature_map must be one of relu2, elu1, identity, exp, got 'relu'"),
        ({"form": "fast"}, "form must be one of parallel, chunked, recurrent, got 'fast'"),
        ({"chunk": 0}, "chunk must be a whole number >= 1, got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_named(options, message, rng):
    with pytest.raises(ValueError, match=message):
        linear_attention(*draw(rng), **options)


def test_identity_has_no_single_steps(rng):
    q, k, v = draw(rng)
    with pytest.raises(
        ValueError, match="feature_map must be relu2, elu1 or exp for single steps, got 'identity'"
    ):
        linear_attention_step(LinearState.empty(v), q, k, v, feature_map="identity")
