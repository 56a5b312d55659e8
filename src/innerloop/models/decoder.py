"""A causal decoder on regression prompts: pre-LN transformer layers over interleaved tokens, with a mixer per layer.

A prompt of n points becomes 2 n tokens x_0, y_0, x_1, y_1, .. (Garg et al. 2022): the label stands in the first of `dim`
coordinates, the rest are zeros. Each token is mapped to `width` numbers and given its position's vector; then every layer
does

    h <- h + mix(norm(h)),    h <- h + mlp(norm(h))

and the prediction of y_i is read at the token of x_i, which has seen x_0, y_0, .., x_i and not y_i. One pass gives all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.models import garg
from innerloop.models.mixers import MIXERS, FeatureMap, Heads, features
from innerloop.types import Prompt

Activation = Literal["gelu_tanh", "gelu"]
Init = Literal["gpt2", "torch"]
Kind = str  # a name in `MIXERS`
Mixer = tuple[tuple[Kind, int], ...]  # kinds of one layer and how many heads each has

_EPSILON = 1e-5  # of every LayerNorm, as in GPT-2 and PyTorch
_GPT2_SPREAD = 0.02


class Affine(eqx.Module):
    """`x @ weight + bias`, with weight `(inputs, outputs)` and bias `(outputs,)` or None."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, "outputs"] | None

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        # Of a matrix: with several leading axes XLA's CPU takes half as long again for the weight's gradient.
        rows = x.reshape(-1, x.shape[-1]) @ self.weight
        product = rows.reshape(*x.shape[:-1], -1)
        return product if self.bias is None else product + _everywhere(self.bias, product)


class LayerNorm(eqx.Module):
    """`(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the last axis, the bias optional."""

    weight: Float[Array, "width"]
    bias: Float[Array, "width"] | None

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        # For the gradient x alone is kept: to compute the rest again is faster on a CPU than to read it.
        x = jax.checkpoint(_normalised)(x)
        x = x * _everywhere(self.weight, x)
        return x if self.bias is None else x + _everywhere(self.bias, x)


def _normalised(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _EPSILON)


class Block(eqx.Module):
    """One layer: its two norms, the projections of its mixer, and its multilayer perceptron."""

    norm_mix: LayerNorm
    qkv: Affine
    mixed: Affine
    norm_mlp: LayerNorm
    expand: Affine
    contract: Affine


class CausalDecoder(eqx.Module):
    """A pre-LN decoder that predicts every label of a prompt from the points before it.

    Args:
        dim: number of features of an input.
        points: the longest prompt; every position of its `2 * points` tokens has a learned vector.
        layers: depth.
        mixers: `"softmax"`, `"linear"` or another name in `innerloop.models.mixers.MIXERS`; or one entry a layer, as a list
            or separated by commas. Within a layer the heads may be shared: `"softmax:2+linear:2"` has two of each.
        width: size of a token inside, a multiple of `heads`.
        heads: attention heads a layer.
        mlp_ratio: size of the perceptron's inner layer in units of `width`.
        activation: `"gelu_tanh"`, GPT-2's approximation, or `"gelu"`, x Phi(x) itself.
        final_layer_norm: whether the last layer's tokens are normalised before the prediction is read.
        bias: whether maps and norms have biases.
        feature_map: of linear attention, see `innerloop.models.mixers.linear_attention`.
        init: `"gpt2"`, N(0, 0.02^2) for the layers' weights and the positions, divided by sqrt(2 layers) where a layer adds
            to its input, zero biases, and PyTorch's default where tokens are read in and out, as in Garg et al. (2022); or
            `"torch"`, PyTorch's defaults everywhere: U(-1/sqrt(inputs), 1/sqrt(inputs)), and N(0, 1) for the positions.
        key: for the initial values.

    Attributes:
        token_layout: how a prompt is written as tokens, for results to name.
        read_in, positions, blocks, final_norm, read_out: the parameters.

    Raises:
        ValueError: a size is not a whole number >= 1, `heads` does not divide `width`, a name is unknown, the entries of
            `mixers` are not as many as `layers`, or a shared layer's heads do not add up to `heads`.

    Sources: Radford et al. (2019) for the layers; Garg et al. (2022, arXiv 2208.01066) for the tokens.
    """

    token_layout: ClassVar[str] = "x0, y0, x1, y1, ..: two tokens a point, y in the first coordinate"

    read_in: Affine
    positions: Float[Array, "2*{self.points} width"]
    blocks: tuple[Block, ...]
    final_norm: LayerNorm | None
    read_out: Affine
    dim: int = eqx.field(static=True)
    points: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    mixers: tuple[Mixer, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    feature_map: FeatureMap = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        points: int,
        layers: int,
        *,
        mixers: str | Sequence[str] = "softmax",
        width: int = 256,
        heads: int = 4,
        mlp_ratio: int = 4,
        activation: Activation = "gelu_tanh",
        final_layer_norm: bool = True,
        bias: bool = True,
        feature_map: FeatureMap = "relu2",
        init: Init = "gpt2",
        key: PRNGKeyArray,
    ):
        sizes = {"dim": dim, "points": points, "layers": layers, "width": width, "heads": heads}
        for name, value in {**sizes, "mlp_ratio": mlp_ratio}.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width {width}, heads {heads}")
        _check_choice("activation", activation, Activation)
        _check_choice("init", init, Init)
        features(feature_map)  # a known one
        self.dim, self.points, self.heads = int(dim), int(points), int(heads)
        self.mixers = _parse_mixers(mixers, layers, heads)
        self.activation, self.feature_map = activation, feature_map

        key_ends, key_positions, key_blocks = jax.random.split(key, 3)
        self.read_in, self.read_out = _affines(key_ends, ((dim, width), (width, 1)), None, bias)
        self.positions = jax.random.normal(key_positions, (2 * points, width))
        if init == "gpt2":
            self.positions = self.positions * _GPT2_SPREAD
        adding = _GPT2_SPREAD / math.sqrt(2 * layers)
        spreads = (_GPT2_SPREAD, adding, _GPT2_SPREAD, adding) * layers if init == "gpt2" else None
        inner = width * mlp_ratio
        shapes = ((width, 3 * width), (width, width), (width, inner), (inner, width)) * layers
        maps = _affines(key_blocks, shapes, spreads, bias)
        self.blocks = tuple(
            Block(_norm(width, bias), qkv, mixed, _norm(width, bias), expand, contract)
            for qkv, mixed, expand, contract in zip(*(maps[i::4] for i in range(4)), strict=True)
        )
        self.final_norm = _norm(width, bias) if final_layer_norm else None

    @property
    def layers(self) -> int:
        return len(self.blocks)

    @property
    def width(self) -> int:
        return self.positions.shape[1]

    def __call__(
        self, xs: Float[Array, "*batch n {self.dim}"], ys: Float[Array, "*batch n"]
    ) -> Float[Array, "*batch n"]:
        """The prediction at every point: entry i from x_0, y_0, .., x_i.

        Args:
            xs: inputs, `(..., n, dim)` with n <= points.
            ys: labels, `(..., n)`; the last has no effect.

        Raises:
            ValueError: the shapes do not fit together or the model.
        """
        return self.read(self.hidden(xs, ys)[-1])

    def read(self, hidden: Float[Array, "*batch tokens width"]) -> Float[Array, "*batch n"]:
        """What is predicted at every point from tokens inside: those after the last layer, or, to look, any layer's."""
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return self.read_out(hidden[..., ::2, :])[..., 0]

    def hidden(
        self, xs: Float[Array, "*batch n {self.dim}"], ys: Float[Array, "*batch n"]
    ) -> list[Float[Array, "*batch 2*n width"]]:
        """All tokens inside, before the first layer and after each: `layers + 1` arrays; arguments as for a call."""
        tokens = self.tokens(xs, ys)
        *batch, length, dim = tokens.shape
        h = self.read_in(tokens.reshape(-1, length, dim))
        h = h + self.positions[None, :length]
        states = [h]
        for block, mixer in zip(self.blocks, self.mixers, strict=True):
            mixed = self._mix(*self.projections(block, h), mixer)
            h = h + block.mixed(mixed.reshape(h.shape))
            h = h + block.contract(self._activate(block.expand(block.norm_mlp(h))))
            states.append(h)
        return [h.reshape(*batch, length, self.width) for h in states]

    def projections(self, block: Block, h: Float[Array, "batch tokens width"]) -> tuple[Heads, Heads, Heads]:
        """The queries, keys and values that a layer makes of the tokens before it."""
        batch, tokens, _ = h.shape
        parts = jnp.split(block.qkv(block.norm_mix(h)), 3, axis=-1)
        q, k, v = (part.reshape(batch, tokens, self.heads, -1) for part in parts)
        return q, k, v

    def tokens(
        self, xs: Float[Array, "*batch n {self.dim}"], ys: Float[Array, "*batch n"]
    ) -> Float[Array, "*batch 2*n {self.dim}"]:
        """The prompt as interleaved tokens; arguments as for a call."""
        if xs.ndim < 2 or xs.shape[-1] != self.dim or not 1 <= xs.shape[-2] <= self.points:
            raise ValueError(
                f"xs must have shape (..., n, {self.dim}) with n from 1 to {self.points}, got {xs.shape}"
            )
        if ys.shape != xs.shape[:-1]:
            raise ValueError(
                f"ys must have shape {xs.shape[:-1]} beside xs of shape {xs.shape}, got {ys.shape}"
            )
        labels = jnp.zeros_like(xs).at[..., 0].set(ys)
        *batch, n, dim = xs.shape
        return jnp.stack([xs, labels], axis=-2).reshape(*batch, 2 * n, dim)

    def predict(self, prompt: Prompt) -> Float[Array, "*batch"]:
        """The prediction at the prompt's query, its last point: a context of at most `points - 1` examples."""
        xs = jnp.concatenate([prompt.x, prompt.query[..., None, :]], axis=-2)
        ys = jnp.concatenate([prompt.y, jnp.zeros_like(prompt.y[..., :1])], axis=-1)
        return self(xs, ys)[..., -1]

    def parameter_count(self) -> int:
        """How many numbers are learned. GPT-2's token embedding, which nothing reads here, is not part of the model."""
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(self, eqx.is_array)))

    @staticmethod
    def from_garg(state_dict: Mapping[str, Any], *, heads: int = 4) -> "CausalDecoder":
        """The model of a state dict in the layout of Garg et al.'s public code, a softmax decoder.

        Args:
            state_dict: `_read_in.*`, `_backbone.*` of transformers' GPT2Model and `_read_out.*`, as torch tensors or NumPy
                arrays. GPT-2's token embedding and stored causal masks may be there and are not read.
            heads: attention heads a layer, which the arrays do not tell.

        Raises:
            ValueError: an array is missing, unknown, or of a shape that does not fit the others; `heads` does not divide
                the width.
        """
        arrays = garg.checked(state_dict)
        layers = garg.depth(arrays)
        positions, dim = arrays[garg.POSITIONS], arrays[garg.READ_IN + ".weight"].shape[1]
        ratio = arrays["_backbone.h.0.mlp.c_fc.weight"].shape[1] // positions.shape[1]
        shell = eqx.filter_eval_shape(
            lambda key: CausalDecoder(
                dim,
                len(positions) // 2,
                layers,
                width=positions.shape[1],
                heads=heads,
                mlp_ratio=ratio,
                key=key,
            ),
            jax.random.key(0),
        )
        return garg.filled(shell, arrays)

    def to_garg(self) -> dict[str, np.ndarray]:
        """The parameters as `from_garg` reads them: load them with `strict=False`, the token embedding is not among them.

        Raises:
            ValueError: the model is not one that this layout can hold: softmax throughout, `gelu_tanh`, biases and a final
                LayerNorm.
        """
        softmax = all(mixer == (("softmax", self.heads),) for mixer in self.mixers)
        whole = self.final_norm is not None and self.read_in.bias is not None
        if not (softmax and whole and self.activation == "gelu_tanh"):
            raise ValueError(
                "the layout of Garg et al. holds softmax decoders with activation='gelu_tanh', bias=True and"
                f" final_layer_norm=True, got mixers {self.mixers}, activation {self.activation!r},"
                f" bias {self.read_in.bias is not None}, final_layer_norm {self.final_norm is not None}"
            )
        return garg.exported(self)

    def _mix(self, q: Heads, k: Heads, v: Heads, mixer: Mixer) -> Heads:
        parts = []
        for kind, heads in shares(mixer):
            of_kind = [z[:, :, heads] for z in (q, k, v)]
            options = {"feature_map": self.feature_map} if kind == "linear" else {}
            parts.append(MIXERS[kind](*of_kind, **options))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=2)

    def _activate(self, x: Float[Array, "*batch inner"]) -> Float[Array, "*batch inner"]:
        # For the gradient x alone is kept: memory, and its page faults, cost more than to compute this again.
        return jax.checkpoint(jax.nn.gelu if self.activation == "gelu_tanh" else _gelu)(x)


def shares(mixer: Mixer) -> Iterator[tuple[Kind, slice]]:
    """The kinds of a layer, and which of its heads each has."""
    first = 0
    for kind, heads in mixer:
        yield kind, slice(first, first + heads)
        first += heads


def check_ours(model: CausalDecoder, what: str) -> None:
    """Refuse a decoder whose mixers are not all of this package: `what` needs to know how they mix.

    Raises:
        ValueError: a mixer is another one.
    """
    for kind, _ in (head for mixer in model.mixers for head in mixer):
        if kind not in ("softmax", "linear"):
            raise ValueError(
                f"{what} need softmax or linear attention in every layer, got the mixer {kind!r}"
            )


def _gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """`x Phi(x)` by erf, as PyTorch has it; `jax.nn.gelu(x, approximate=False)` takes erfc, which is slower."""
    return x / 2 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _everywhere(
    vector: Float[Array, "size"], like: Float[Array, "*batch size"]
) -> Float[Array, "*batch size"]:
    """The vector at every place of `like`: a product with ones, so that its gradient is a product too.

    The sum over all places, which is the gradient of broadcasting, takes XLA's CPU longer.
    """
    ones = jnp.ones((math.prod(like.shape[:-1]), 1), vector.dtype)
    return jnp.matmul(ones, vector[None], precision=jax.lax.Precision.HIGHEST).reshape(like.shape)


@partial(jax.jit, static_argnames=("sizes", "spreads", "bias"))
def _affines(
    key: PRNGKeyArray, sizes: tuple[tuple[int, int], ...], spreads: tuple[float, ...] | None, bias: bool
) -> list[Affine]:
    """Maps of these inputs and outputs: normal weights of these spreads and zero biases, or PyTorch's default.

    All come from one draw that is cut up, since each draw of its own shape takes long to compile.
    """
    weights = [inputs * outputs for inputs, outputs in sizes]
    biases = [outputs for _, outputs in sizes] if bias and spreads is None else []
    shape = (sum(weights) + sum(biases),)
    values = jax.random.uniform(key, shape, minval=-1) if spreads is None else jax.random.normal(key, shape)
    scales = [1 / math.sqrt(inputs) for inputs, _ in sizes] if spreads is None else spreads
    parts = jnp.split(values, np.cumsum([*weights, *biases])[:-1])
    offsets = parts[len(sizes) :] or [jnp.zeros(outputs) for _, outputs in sizes]
    return [
        Affine(scale * part.reshape(size), scale * offset if bias else None)
        for size, scale, part, offset in zip(sizes, scales, parts, offsets, strict=False)
    ]


def _norm(width: int, bias: bool) -> LayerNorm:
    return LayerNorm(jnp.ones(width), jnp.zeros(width) if bias else None)


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def _parse_mixers(mixers: str | Sequence[str], layers: int, heads: int) -> tuple[Mixer, ...]:
    entries = [entry.strip() for entry in mixers.split(",")] if isinstance(mixers, str) else list(mixers)
    if isinstance(mixers, str) and len(entries) == 1:
        entries = entries * layers
    if len(entries) != layers:
        raise ValueError(
            f"mixers must have one entry for each of the {layers} layers, got {len(entries)}: {mixers!r}"
        )
    return tuple(_parse_mixer(entry, heads) for entry in entries)


def _parse_mixer(entry: str, heads: int) -> Mixer:
    """`softmax` -> ((softmax, heads),); `softmax:1+linear:3` -> ((softmax, 1), (linear, 3))."""
    names = ", ".join(f'"{name}"' for name in MIXERS)
    allowed = f'{names}, or their heads as in "softmax:1+linear:{max(heads - 1, 1)}"'
    if entry in MIXERS:
        return ((entry, heads),)
    parts = []
    for part in entry.split("+") if isinstance(entry, str) else [""]:
        kind, _, count = part.strip().partition(":")
        if kind not in MIXERS or not count.isdecimal() or int(count) < 1:
            raise ValueError(f"an entry of mixers must be {allowed}, got {entry!r}")
        parts.append((kind, int(count)))
    if sum(count for _, count in parts) != heads:
        raise ValueError(f"the heads of an entry of mixers must add up to {heads}, got {entry!r}")
    return tuple(parts)
