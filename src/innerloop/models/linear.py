"""Linear transformers on regression prompts: FULL, DIAG and GD++, in token form and in moment form.

A layer moves every token e_i = (x_i, y_i), the query (x_t, 0) included, by linear attention over the context
(Vladymyrov et al. 2024, equations 2-5), with S = sum_i e_i e_i^T over the context:

    e_i <- e_i + sum_k P_k S Q_k e_i = A e_i

so the layer is one linear map A for all tokens, the statistics move as S <- A S A^T, and after several layers token i is
T e_i with T <- A T. The moment form runs on (S, T) alone: its cost does not depend on the context length. The prediction
is minus the query's last coordinate, `<w, x_t>` with implicit weights w = -T[y, x].

Inside, y is multiplied by `label_scale` and S by `1 / context`, so that everything is of order one whatever the noise and
the context length; `matrices()` folds both back into the paper's convention.
"""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from innerloop import lanes
from innerloop.types import Moments, Prompt, check_key, check_moments, check_prompt

_INIT_SPREAD = 0.003  # larger starts of deep models blow up at sigma = 5: the loss has degree 2 * 3^layers


class LinearTransformer(eqx.Module):
    """Common to all kinds; make one with `.full`, `.diag`, `.gd_plus_plus`, `.from_matrices` or `.from_flows`."""

    dim: int = eqx.field(static=True)
    context: int = eqx.field(static=True)
    label_scale: float = eqx.field(static=True)

    @staticmethod
    def full(
        dim: int,
        layers: int,
        heads: int = 1,
        *,
        key: PRNGKeyArray,
        context: int = 20,
        label_scale: float = 0.25,
    ) -> "Full":
        """FULL: every head has its own dense P and Q, each `(dim + 1, dim + 1)`.

        Args:
            dim, layers, heads: sizes, all >= 1.
            key: for the initial values, small around one cautious gradient step a layer.
            context: context length at which attention is normalised inside; a scale, not a limit.
            label_scale: factor that brings labels to order one; about `1 / sqrt(E y^2)`.

        Raises:
            ValueError: a size is not a whole number >= 1, `label_scale` is not positive, or `key` is no JAX key.
        """
        scales = _scales(dim, layers, heads, context, label_scale)
        check_key(key)
        size = dim + 1
        key_p, key_q = jax.random.split(key)
        first = jnp.arange(heads) == 0
        on_y = jnp.arange(size) == dim
        # Later heads start with P = diag(0.1, ..), Q = 0: no effect yet, but Q's gradient is not zero.
        p = jnp.where(on_y[None, :] & first[:, None], 1.0, 0.1)
        q = jnp.where(~on_y[None, :] & first[:, None], -0.3 / layers, 0.0)
        shape = (layers, heads, size, size)
        return Full(
            P=jax.vmap(jnp.diag)(p)[None] + _INIT_SPREAD * _normals(key_p, shape),
            Q=jax.vmap(jnp.diag)(q)[None] + _INIT_SPREAD * _normals(key_q, shape),
            **scales,
        )

    @staticmethod
    def diag(
        dim: int,
        layers: int,
        heads: int = 1,
        *,
        key: PRNGKeyArray,
        context: int = 20,
        label_scale: float = 0.25,
    ) -> "Diag":
        """DIAG: P = diag(p_x, .., p_x, p_y), Q = diag(q_x, .., q_x, q_y), four numbers a head.

        One head ties the four flows of information by w_xx w_yy = w_xy w_yx; two heads or more set them freely.
        Arguments and errors as for `full`.
        """
        scales = _scales(dim, layers, heads, context, label_scale)
        check_key(key)
        key_p, key_q = jax.random.split(key)
        p = jnp.zeros((heads, 2)).at[0].set(jnp.array([-0.02, -0.3 / layers]))
        # The first head reads x, the second y, any others nothing yet.
        q = jnp.eye(heads, 2)
        shape = (layers, heads, 2)
        return Diag(
            p=p[None] + _INIT_SPREAD * _normals(key_p, shape),
            q=q[None] + _INIT_SPREAD * _normals(key_q, shape),
            **scales,
        )

    @staticmethod
    def gd_plus_plus(
        dim: int, layers: int, *, key: PRNGKeyArray, context: int = 20, label_scale: float = 0.25
    ) -> "GDPlusPlus":
        """GD++ of von Oswald et al. (2023): w_xx and w_yx only, preconditioned gradient descent.

        Arguments and errors as for `full`.
        """
        scales = _scales(dim, layers, 1, context, label_scale)
        check_key(key)
        w = jnp.array([[-0.02, -0.3 / layers]]) + _INIT_SPREAD * _normals(key, (layers, 2))
        return GDPlusPlus(w=w, **scales)

    @staticmethod
    def from_matrices(P: ArrayLike, Q: ArrayLike) -> "Full":
        """The FULL model with matrices P and Q `(layers, heads, D, D)` in the paper's convention.

        Raises:
            ValueError: the shapes differ or are not `(layers, heads, D, D)` with D >= 2, or a value is not finite.
        """
        p, q = jnp.asarray(P, dtype=float), jnp.asarray(Q, dtype=float)
        if p.shape != q.shape or p.ndim != 4 or p.shape[-1] != p.shape[-2] or p.shape[-1] < 2 or 0 in p.shape:
            raise ValueError(
                f"P and Q must both have shape (layers, heads, D, D), got {p.shape} and {q.shape}"
            )
        if not (np.isfinite(p).all() and np.isfinite(q).all()):
            raise ValueError("P and Q must be finite, got NaN or infinity")
        return Full(P=p, Q=q, dim=p.shape[-1] - 1, context=1, label_scale=1.0)

    @staticmethod
    def from_flows(flows: ArrayLike, dim: int) -> "Diag":
        """The two-head DIAG model with the four flows `[[w_xx, w_xy], [w_yx, w_yy]]` of each layer, `(layers, 2, 2)`.

        Raises:
            ValueError: the shape is not `(layers, 2, 2)`, or a value is not finite.
        """
        values = np.asarray(flows, dtype=np.float64)
        if values.ndim != 3 or values.shape[1:] != (2, 2):
            raise ValueError(f"flows must have shape (layers, 2, 2), got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("flows must be finite, got NaN or infinity")
        # In NumPy: nothing is compiled for a model of a new depth.
        p, q = values.swapaxes(1, 2), np.broadcast_to(np.eye(2), values.shape)
        return Diag(p=jnp.asarray(p, float), q=jnp.asarray(q, float), **_scales(dim, len(values), 2, 1, 1.0))

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind's name in specs: "full", "diag" or "gd++"."""

    @property
    @abstractmethod
    def heads(self) -> int: ...

    @property
    def layers(self) -> int:
        return jax.tree.leaves(self)[0].shape[0]

    def matrices(self) -> tuple[Float[Array, "layers heads D D"], Float[Array, "layers heads D D"]]:
        """P and Q in the paper's convention: S is the plain sum, y is not scaled."""
        p, q = self._internal_matrices()
        scale = self._token_scale(p.dtype)  # e' = scale * e
        ratio = (scale[None, :] / scale[:, None])[None, None]
        return p * ratio, q * (scale[:, None] * scale[None, :])[None, None] / self.context

    def transfer(self, moments: Moments) -> Float[Array, "*batch {self.layers}+1 D D"]:
        """T after 0, 1, .. layers: token i has become `T e_i` (Theorem 4.1: T = [[M, u], [-w^T, a]])."""

        def one(S):
            def step(carry, layer):
                S, T = carry
                A = jnp.eye(self.dim + 1, dtype=S.dtype) + self._increment(layer, S)
                carry = (A @ S @ A.T, A @ T)
                return carry, carry[1]

            start = jnp.eye(self.dim + 1, dtype=S.dtype)
            _, after = jax.lax.scan(step, (self._scaled(S), start), self._stack(S.dtype))
            scale = self._token_scale(S.dtype)
            return jnp.concatenate([start[None], after]) * (scale[None, :] / scale[:, None])[None]

        return jnp.vectorize(one, signature="(i,i)->(l,i,i)")(self._checked(moments).S)

    def implicit_weights(self, moments: Moments) -> Float[Array, "*batch {self.layers}+1 dim"]:
        """The weights w with which the prediction after 0, 1, .. layers is `<w, query>`.

        Raises:
            ValueError: the moments are of another dimension than the model.
        """
        return -self.transfer(moments)[..., -1, :-1]

    def final_weights(self, moments: Moments) -> Float[Array, "*batch dim"]:
        """The last of `implicit_weights`, without forming T: only its y row is needed, a vector-matrix product a layer."""
        S = self._checked(moments).S
        return self._final_weights(S.reshape(-1, *S.shape[-2:])).reshape(*S.shape[:-2], self.dim)

    def _final_weights(self, S: Float[Array, "N D D"]) -> Float[Array, "N dim"]:
        return lanes.join(lanes.each(self._weights_in_lanes, lanes.split(S)), len(S))

    def _weights_in_lanes(self, S: Float[Array, "D D lanes"]) -> Float[Array, "dim lanes"]:
        identity = jnp.eye(self.dim + 1, dtype=S.dtype)[:, :, None]
        scale = self._token_scale(S.dtype)
        stack = self._stack(S.dtype)

        def forward(S, layer):
            A = identity + self._increment_in_lanes(layer, S)
            return lanes.conjugate(A, S), A

        S = S * (scale[:, None] * scale[None, :] / self.context)[:, :, None]
        S, maps = jax.lax.scan(forward, S, jax.tree.map(lambda leaf: leaf[:-1], stack))
        last = identity + self._increment_in_lanes(jax.tree.map(lambda leaf: leaf[-1], stack), S)
        row, _ = jax.lax.scan(lambda row, A: (lanes.product(row, A), None), last[-1:], maps, reverse=True)
        return -row[0, :-1] / self.label_scale

    def predict(self, prompt: Prompt) -> Float[Array, "*batch"]:
        """The prediction at the query, in moment form."""
        check_prompt(prompt)
        return (self.final_weights(prompt.moments()) * prompt.query).sum(-1)

    def tokens(self, prompt: Prompt) -> Float[Array, "*batch {self.layers}+1 {prompt.x.shape[-2]}+1 D"]:
        """All tokens after 0, 1, .. layers, the query last, as the paper runs the model: cost grows with n."""

        def one(context, query):
            tokens = (
                jnp.concatenate([context, jnp.append(query, 0)[None]])
                * self._token_scale(context.dtype)[None]
            )

            def step(tokens, layer):
                S = tokens[:-1].T @ tokens[:-1] / self.context
                tokens = tokens + tokens @ self._increment(layer, S).T
                return tokens, tokens

            _, after = jax.lax.scan(step, tokens, self._stack(context.dtype))
            return jnp.concatenate([tokens[None], after]) / self._token_scale(context.dtype)[None, None]

        return jnp.vectorize(one, signature="(n,i),(d)->(l,m,i)")(prompt.tokens, prompt.query)

    @abstractmethod
    def _stack(self, dtype) -> Any:
        """Per-layer parameters as a pytree with a leading axis of layers."""

    @abstractmethod
    def _increment(self, layer, S: Float[Array, "D D"]) -> Float[Array, "D D"]:
        """sum_k P_k S Q_k of one layer, in inner scale."""

    @abstractmethod
    def _increment_in_lanes(self, layer, S: Float[Array, "D D lanes"]) -> Float[Array, "D D lanes"]:
        """The same for many sequences, the last axis."""

    @abstractmethod
    def _internal_matrices(self) -> tuple[Float[Array, "layers heads D D"], Float[Array, "layers heads D D"]]:
        """P and Q in inner scale."""

    @abstractmethod
    def restart(self, layers: int, *, key: PRNGKeyArray) -> Self:
        """A fresh initial model of this kind, heads and scales, with `layers` layers."""

    def coordinates(self) -> tuple[Float[Array, "p"], Callable[[Float[Array, "p"]], Self]]:
        """The parameters as one vector, for second-order training, and the function that makes a model of such a vector."""
        return ravel_pytree(self)

    @abstractmethod
    def _idle_layers(self) -> list[Self]:
        """One-layer models that do nothing, but whose gradient is not zero; several if that can be in several ways."""

    def insert_idle_layer(self, position: int) -> list[Self]:
        """Models one layer deeper, with a layer of no effect before layer `position`: where to start a deeper one.

        There is one for each direction that the new layer may first move in.
        """

        def inserted(idle: Self) -> Self:
            return jax.tree.map(
                lambda leaf, new: jnp.concatenate([leaf[:position], new, leaf[position:]]), self, idle
            )

        return [inserted(idle) for idle in self._idle_layers()]

    def without_layer(self, position: int) -> Self:
        """The model of the other layers, one fewer.

        Raises:
            ValueError: there is no layer `position`, counted from 0, or no other.
        """
        if self.layers < 2:
            raise ValueError("layers must be at least 2 for one to be left out, got 1")
        if not 0 <= position < self.layers:
            raise ValueError(f"position must be from 0 to {self.layers - 1}, got {position!r}")
        return jax.tree.map(lambda leaf: jnp.delete(leaf, position, axis=0), self)

    def as_full(self) -> "Full":
        """The FULL model with the same predictions and scales, P and Q of one norm in every layer and head."""
        P, Q = self._internal_matrices()
        norms = [jnp.linalg.norm(each, axis=(-2, -1), keepdims=True) for each in (P, Q)]
        idle = (norms[0] == 0) | (norms[1] == 0)
        ratio = jnp.sqrt(jnp.where(idle, 1, norms[1]) / jnp.where(idle, 1, norms[0]))
        return Full(P=P * ratio, Q=Q / ratio, **self._sizes())

    def with_label_scale(self, label_scale: float | Float[Array, ""]) -> Self:
        """The same parameters under another inner scale of y, which may be traced: for compiled programs that serve
        models of several scales."""
        other = object.__new__(type(self))
        for name, value in vars(self).items():
            object.__setattr__(other, name, label_scale if name == "label_scale" else value)
        return other

    def _sizes(self) -> dict:
        return {"dim": self.dim, "context": self.context, "label_scale": self.label_scale}

    def _token_scale(self, dtype) -> Float[Array, "D"]:
        return jnp.ones(self.dim + 1, dtype).at[-1].set(self.label_scale)

    def _scaled(self, S: Float[Array, "D D"]) -> Float[Array, "D D"]:
        scale = self._token_scale(S.dtype)
        return S * (scale[:, None] * scale[None, :] / self.context)

    def _checked(self, moments: Moments) -> Moments:
        check_moments(moments)
        if moments.dim != self.dim:
            raise ValueError(f"the model has dim {self.dim}, the data has dim {moments.dim}")
        return moments


class Full(LinearTransformer):
    """See `LinearTransformer.full`. `P` and `Q` are `(layers, heads, D, D)`, in inner scale."""

    P: Float[Array, "layers heads D D"]
    Q: Float[Array, "layers heads D D"]

    @property
    def kind(self):
        return "full"

    @property
    def heads(self):
        return self.P.shape[1]

    def _stack(self, dtype):
        return self.P.astype(dtype), self.Q.astype(dtype)

    def _increment(self, layer, S):
        p, q = layer
        return functools.reduce(jnp.add, [p[head] @ S @ q[head] for head in range(len(p))])

    def _increment_in_lanes(self, layer, S):
        # S Q = (Q^T S)^T: products from the left run along the lanes.
        pairs = [(p, lanes.transpose(lanes.mix(q.T, S))) for p, q in zip(*layer, strict=True)]
        return lanes.total(lanes.mix(p, right) for p, right in pairs)

    def _internal_matrices(self):
        return self.P, self.Q

    def restart(self, layers, *, key):
        return LinearTransformer.full(layers=layers, heads=self.heads, key=key, **self._sizes())

    def _idle_layers(self):
        p = jnp.zeros_like(self.P[:1])
        q = jnp.zeros_like(self.Q[:1]).at[:, 0].set(jnp.eye(self.dim + 1, dtype=self.Q.dtype))
        return [eqx.tree_at(lambda model: (model.P, model.Q), self, (p, q))]


class Blockwise(LinearTransformer):
    """A kind whose P and Q are multiples of the identity on x: A - I is S with its four blocks scaled."""

    @abstractmethod
    def inner_flows(self) -> Float[Array, "layers 2 2"]:
        """`[[w_xx, w_xy], [w_yx, w_yy]]` of each layer in inner scale."""

    def flows(self) -> Float[Array, "layers 2 2"]:
        """`[[w_xx, w_xy], [w_yx, w_yy]]` of each layer, in the paper's convention."""
        flows = self.inner_flows()
        # P is diagonal, so the scales act on Q alone: q_y takes the label's scale twice.
        scale = jnp.array([1.0, self.label_scale], flows.dtype)
        return flows * (scale[None, :] * scale[None, :])[None] / self.context

    def freed(self) -> "Diag":
        """The same function as a DIAG with two heads, which can be any four flows."""
        flows = self.inner_flows()
        q = jnp.broadcast_to(jnp.eye(2, dtype=flows.dtype), flows.shape)
        return Diag(p=flows.swapaxes(1, 2), q=q, **self._sizes())

    def at_dim(self, dim: int) -> Self:
        """The same flows for inputs of `dim` features, in the problem that is to `dim` what the model's own was to its dim.

        That is, with as many examples and as much energy of labels a feature: where S / context has the spectrum, and the
        scaled labels have the size, that the flows were made for. They tend to those of the same limit as both dims grow.
        """
        ratio = dim / self.dim
        context = max(1, round(self.context * ratio))
        return replace(self, dim=dim, context=context, label_scale=self.label_scale / math.sqrt(ratio))

    def _stack(self, dtype):
        return self.inner_flows().astype(dtype)

    def _increment(self, layer, S):
        return spread_flows(layer, self.dim) * S

    def _increment_in_lanes(self, layer, S):
        return spread_flows(layer, self.dim)[:, :, None] * S


class Diag(Blockwise):
    """See `LinearTransformer.diag`. `p` and `q` are `(layers, heads, 2)`: p_x, p_y and q_x, q_y, in inner scale."""

    p: Float[Array, "layers heads 2"]
    q: Float[Array, "layers heads 2"]

    @property
    def kind(self):
        return "diag"

    @property
    def heads(self):
        return self.p.shape[1]

    def inner_flows(self):
        return jnp.einsum("lha,lhb->lab", self.p, self.q)

    def _internal_matrices(self):
        return _diagonal(self.p, self.dim), _diagonal(self.q, self.dim)

    def coordinates(self):
        if self.heads == 1:
            return super().coordinates()
        # Any four flows are two heads' p with q = (1, 0) and (0, 1): half as many numbers.
        theta, unravel = ravel_pytree(self.inner_flows())
        q = jnp.broadcast_to(jnp.eye(self.heads, 2, dtype=self.q.dtype), self.q.shape)

        def build(theta):
            p = jnp.zeros_like(self.p).at[:, :2].set(unravel(theta).swapaxes(1, 2))
            return eqx.tree_at(lambda model: (model.p, model.q), self, (p, q))

        return theta, build

    def restart(self, layers, *, key):
        return LinearTransformer.diag(layers=layers, heads=self.heads, key=key, **self._sizes())

    def _idle_layers(self):
        # One head must choose what to read, x or y or both; two read both.
        reads = jnp.array([[1, 0], [0, 1], [1, 1]]) if self.heads == 1 else jnp.eye(self.heads, 2)[None]
        q = reads.astype(self.q.dtype).reshape(-1, 1, self.heads, 2)
        return [
            eqx.tree_at(lambda model: (model.p, model.q), self, (jnp.zeros_like(self.p[:1]), one))
            for one in q
        ]


class GDPlusPlus(Blockwise):
    """See `LinearTransformer.gd_plus_plus`. `w` is `(layers, 2)`: w_xx and w_yx, in inner scale."""

    w: Float[Array, "layers 2"]

    @property
    def kind(self):
        return "gd++"

    @property
    def heads(self):
        return 1

    def inner_flows(self):
        return jnp.stack([self.w, jnp.zeros_like(self.w)], axis=-1)

    def _internal_matrices(self):
        reads_x = jnp.zeros_like(self.w).at[:, 0].set(1)
        return _diagonal(self.w[:, None], self.dim), _diagonal(reads_x[:, None], self.dim)

    def restart(self, layers, *, key):
        return LinearTransformer.gd_plus_plus(layers=layers, key=key, **self._sizes())

    def _idle_layers(self):
        return [eqx.tree_at(lambda model: model.w, self, jnp.zeros_like(self.w[:1]))]


def _normals(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """`jax.random.normal` of the key and shape, by one compiled program for all shapes of so many hundreds of numbers."""
    size = math.prod(shape)
    return jax.random.normal(key, (-(-size // 256) * 256,))[:size].reshape(shape)


def spread_flows(flows: Float[Array, "2 2"], dim: int) -> Float[Array, "D D"]:
    """The D x D matrix whose x and y blocks hold the four flows."""
    block = (jnp.arange(dim + 1) == dim).astype(int)
    return flows[block[:, None], block[None, :]]


def _diagonal(values: Float[Array, "layers heads 2"], dim: int) -> Float[Array, "layers heads D D"]:
    """diag(v_x, .., v_x, v_y) for every layer and head."""
    entries = jnp.concatenate([jnp.repeat(values[..., :1], dim, axis=-1), values[..., 1:]], axis=-1)
    return jnp.vectorize(jnp.diag, signature="(i)->(i,i)")(entries)


def _scales(dim: int, layers: int, heads: int, context: int, label_scale: float) -> dict:
    for name, value in {"dim": dim, "layers": layers, "heads": heads, "context": context}.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    if not (np.isfinite(label_scale) and label_scale > 0):
        raise ValueError(f"label_scale must be positive, got {label_scale!r}")
    return {"dim": int(dim), "context": int(context), "label_scale": float(label_scale)}
