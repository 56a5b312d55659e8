"""What mixes tokens in a causal decoder: softmax attention, and kernelised linear attention in three equal forms.

All take queries, keys and values of shape `(batch, tokens, heads, head_dim)` and return the mixed values in that shape;
token i attends to tokens j <= i.

Linear attention (Katharopoulos et al. 2020) replaces exp(<q, k>) by <phi(q), phi(k)> with a feature map phi >= 0:

    out_i = phi(q_i)^T (sum_{j<=i} phi(k_j) v_j^T) / (phi(q_i)^T sum_{j<=i} phi(k_j))

The two sums are all that token i needs of those before it, so it can run in three ways: *parallel*, all pairs of tokens
under a causal mask; *recurrent*, token by token with the two sums as its state; *chunked*, pairs within chunks and the
state between them, with time and memory that grow as the number of tokens.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FeatureMap = Literal["relu2", "elu1", "identity", "exp"]
Form = Literal["parallel", "chunked", "recurrent"]
Heads = Float[Array, "batch tokens heads head_dim"]
Weights = Float[Array, "batch heads tokens tokens"]

_CLAMP = 1e-6  # Goel et al. (2026): the least value of a denominator
_CHUNK = 64
_PARALLEL = 256  # up to so many tokens all pairs cost no more than chunks

_FEATURES: dict[FeatureMap, Callable[[Array], Array]] = {
    "relu2": lambda z: jnp.square(jax.nn.relu(z)) + 1e-6,  # Goel et al. (2026)
    "elu1": lambda z: jax.nn.elu(z) + 1,  # Katharopoulos et al. (2020)
    "identity": lambda z: z,
    "exp": jnp.exp,
}


def softmax_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """Causal scaled dot-product attention, softmax_j(<q_i, k_j> / sqrt(head_dim)).

    On a GPU, half precision (float16, bfloat16) runs cuDNN's fused kernel, whose memory grows as the number of tokens;
    there is none for float32 and float64, whose scores of all pairs are formed.
    """
    if q.dtype in (jnp.float16, jnp.bfloat16) and jax.default_backend() == "gpu":
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
    # Not that function's own plain form: under strict dtype promotion it refuses float64.
    return _mixed(softmax_weights(q, k), v)


def softmax_weights(q: Heads, k: Heads) -> Weights:
    """softmax_j(<q_i, k_j> / sqrt(head_dim)) over j <= i: softmax attention sums v_j with these weights."""
    scores = _products(q * q.shape[-1] ** -0.5, k)
    earlier = jnp.tril(jnp.ones(scores.shape[-2:], bool))[None, None]
    return jax.nn.softmax(jnp.where(earlier, scores, -jnp.inf))


def linear_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    *,
    feature_map: FeatureMap = "relu2",
    form: Form | None = None,
    chunk: int = _CHUNK,
) -> Heads:
    """Causal linear attention: the equation at the top of this module, with q and k each divided by sqrt(head_dim).

    Args:
        feature_map: `"relu2"`, max(z, 0)^2 + 1e-6; `"elu1"`, elu(z) + 1; `"exp"`; or `"identity"`. The denominator is at
            least 1e-6. The identity's would have no sign: there it is i, the number of tokens attended to.
        form: how to compute it; None takes the parallel form for short sequences and the chunked one for long.
        chunk: tokens in a chunk of the chunked form.

    Raises:
        ValueError: the feature map or the form is unknown, or `chunk` is not a whole number >= 1.
    """
    phi = features(feature_map)
    if form is None:
        form = "parallel" if q.shape[1] <= _PARALLEL else "chunked"
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk must be a whole number >= 1, got {chunk!r}")
    if form == "parallel":
        return _mixed(linear_weights(q, k, feature_map=feature_map), v)
    # The recurrent form is the chunked one with a token a chunk.
    size = 1 if form == "recurrent" else min(chunk, q.shape[1])
    scale = q.shape[-1] ** -0.5
    total, weight = _chunked(phi(q * scale), phi(k * scale), v, size)
    return total / _denominators(weight, feature_map)[..., None]


def linear_weights(q: Heads, k: Heads, *, feature_map: FeatureMap = "relu2") -> Weights:
    """The weights w_ij, j <= i, with which linear attention sums v_j: <phi(q_i), phi(k_j)> over its denominator.

    They are to linear attention what `softmax_weights` are to softmax attention, but need not sum to one: where the
    denominator is clamped they sum to less, and the identity's may be negative.
    Arguments and errors as for `linear_attention`.
    """
    phi, scale = features(feature_map), q.shape[-1] ** -0.5
    scores = _scores(phi(q * scale), phi(k * scale))
    denominators = _denominators(jnp.moveaxis(scores.sum(-1), 1, 2), feature_map)
    return scores / jnp.moveaxis(denominators, 1, 2)[..., None]


def _denominators(
    weight: Float[Array, "batch tokens heads"], feature_map: FeatureMap
) -> Float[Array, "batch tokens heads"]:
    """By what the sums of every token and head are divided, from the sums of <phi(q_i), phi(k_j)> over j."""
    if feature_map == "identity":
        count = jnp.arange(1, weight.shape[1] + 1, dtype=weight.dtype)
        return jnp.broadcast_to(count[None, :, None], weight.shape)
    return jnp.maximum(weight, _CLAMP)


def features(feature_map: FeatureMap) -> Callable[[Array], Array]:
    """The feature map of that name.

    Raises:
        ValueError: there is none.
    """
    if feature_map not in _FEATURES:
        raise ValueError(f"feature_map must be one of {', '.join(_FEATURES)}, got {feature_map!r}")
    return _FEATURES[feature_map]


class LinearState(NamedTuple):
    """What linear attention remembers of the tokens so far, whatever their number.

    Attributes:
        total: sum_j phi(k_j) v_j^T, `(batch, heads, head_dim, head_dim)`.
        weight: sum_j phi(k_j), `(batch, heads, head_dim)`.
    """

    total: Float[Array, "batch heads head_dim head_dim"]
    weight: Float[Array, "batch heads head_dim"]

    @classmethod
    def empty(cls, v: Heads) -> "LinearState":
        """No token yet, for values like `v`."""
        batch, _, heads, size = v.shape
        return cls(jnp.zeros((batch, heads, size, size), v.dtype), jnp.zeros((batch, heads, size), v.dtype))


# The numerator of every token and its denominator, from features of queries and keys.
_Sums = tuple[Heads, Float[Array, "batch tokens heads"]]


# Heads are moved beside the batch by hand: in an einsum XLA's CPU takes longer over the products' gradients.
def _products(q: Heads, k: Heads) -> Weights:
    """<q_i, k_j> of every head."""
    return jnp.einsum("bhid,bhjd->bhij", jnp.moveaxis(q, 2, 1), jnp.moveaxis(k, 2, 1))


def _mixed(weights: Weights, v: Heads) -> Heads:
    """sum_j weights_ij v_j of every head."""
    return jnp.moveaxis(jnp.einsum("bhij,bhje->bhie", weights, jnp.moveaxis(v, 2, 1)), 1, 2)


def _scores(q: Heads, k: Heads) -> Weights:
    return jnp.tril(_products(q, k))


def _step(state: LinearState, qkv: tuple[Heads, Heads, Heads]) -> tuple[LinearState, _Sums]:
    """The sums of one chunk, and the state after it."""
    q, k, v = qkv
    scores = _scores(q, k)
    total = _mixed(scores, v) + jnp.einsum("bihd,bhde->bihe", q, state.total)
    weight = jnp.moveaxis(scores.sum(-1), 1, 2) + jnp.einsum("bihd,bhd->bih", q, state.weight)
    after = LinearState(state.total + jnp.einsum("bjhd,bjhe->bhde", k, v), state.weight + k.sum(1))
    return after, (total, weight)


def _chunked(q: Heads, k: Heads, v: Heads, size: int) -> _Sums:
    tokens = q.shape[1]
    chunks = -(-tokens // size)

    def split(z: Heads) -> Float[Array, "chunks batch size heads head_dim"]:
        # Zero features after the last token add nothing to the sums.
        z = jnp.pad(z, ((0, 0), (0, chunks * size - tokens), (0, 0), (0, 0)))
        return jnp.moveaxis(z.reshape(z.shape[0], chunks, size, *z.shape[2:]), 1, 0)

    def join(z):
        return jnp.moveaxis(z, 0, 1).reshape(z.shape[1], chunks * size, *z.shape[3:])[:, :tokens]

    # The scores within a chunk are computed again for the gradient: what is kept of a chunk is the state before it.
    _, (total, weight) = jax.lax.scan(
        jax.checkpoint(_step), LinearState.empty(v), (split(q), split(k), split(v))
    )
    return join(total), join(weight)


def linear_attention_step(
    state: LinearState, q: Heads, k: Heads, v: Heads, *, feature_map: FeatureMap = "relu2"
) -> tuple[LinearState, Heads]:
    """Linear attention for the tokens after those that `state` remembers: one of them, or several.

    Arguments as for `linear_attention`; start from `LinearState.empty(v)`. The identity is not offered: its denominator is
    the number of tokens, which the state does not hold.

    Raises:
        ValueError: the feature map is unknown, or the identity.
    """
    phi, scale = features(feature_map), q.shape[-1] ** -0.5
    if feature_map == "identity":
        raise ValueError("feature_map must be relu2, elu1 or exp for single steps, got 'identity'")
    state, (total, weight) = _step(state, (phi(q * scale), phi(k * scale), v))
    return state, total / jnp.maximum(weight, _CLAMP)[..., None]


# What a decoder's `mixers` may name. To add one, register it: a function of queries, keys and values, as those above.
MIXERS: dict[str, Callable[..., Heads]] = {"softmax": softmax_attention, "linear": linear_attention}
