"""Inside a causal decoder: the tokens that its layers pass on, and the weights with which they attend."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.models.decoder import CausalDecoder, Mixer, check_ours, shares
from innerloop.models.mixers import Heads, Weights, linear_weights, softmax_weights


def residual_stream(
    model: CausalDecoder, xs: Float[Array, "*batch n dim"], ys: Float[Array, "*batch n"]
) -> Float[Array, "depths *batch tokens width"]:
    """All tokens inside, before the first layer and after each: `(layers + 1, ..., 2 n, width)`.

    The last ones, read by `model.read`, are the model's predictions; arguments and errors as for a call of the model.
    """
    return jnp.stack(model.hidden(xs, ys))


def attention_weights(
    model: CausalDecoder, xs: Float[Array, "*batch n dim"], ys: Float[Array, "*batch n"]
) -> Float[Array, "layers *batch heads tokens tokens"]:
    """The weights w_ij with which token i of every layer and head sums the values v_j of tokens j <= i.

    For softmax heads they are the attention weights; for linear ones the *effective* weights, <phi(q_i), phi(k_j)> over the
    denominator. Either way what a head mixes is `sum_j w_ij v_j`, so the two can be laid side by side.

    Args:
        xs, ys: as for a call of the model.

    Returns:
        Shape `(layers, ..., heads, 2 n, 2 n)`, zero for j > i.

    Raises:
        ValueError: the shapes do not fit together or the model, or a mixer is neither softmax nor linear attention.
    """
    check_ours(model, "attention weights")
    weights = []
    for block, h, mixer in zip(model.blocks, model.hidden(xs, ys)[:-1], model.mixers, strict=True):
        q, k, _ = model.projections(block, h.reshape(-1, *h.shape[-2:]))
        of_layer = _weights(model, q, k, mixer)
        weights.append(of_layer.reshape(*h.shape[:-2], *of_layer.shape[1:]))
    return jnp.stack(weights)


def _weights(model: CausalDecoder, q: Heads, k: Heads, mixer: Mixer) -> Weights:
    """Of one layer."""
    parts = []
    for kind, heads in shares(mixer):
        of_kind = q[:, :, heads], k[:, :, heads]
        if kind == "softmax":
            parts.append(softmax_weights(*of_kind))
        else:
            parts.append(linear_weights(*of_kind, feature_map=model.feature_map))
    return jnp.concatenate(parts, axis=1)
