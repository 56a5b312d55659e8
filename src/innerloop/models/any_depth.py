"""Models of all depths in one compiled program."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from innerloop import lanes
from innerloop.models.linear import Blockwise, spread_flows
from innerloop.types import AnyArray


class AnyDepth(eqx.Module):
    """DIAG or GD++ with all of its numbers as data: models of all depths, scales and kinds run one compiled program.

    For what needs no derivative; what it computes is what the model computes.

    Attributes:
        flows: in inner scale, with zeros behind the last layer.
        layers: how many of them count.
        context, label_scale: as the model's.
    """

    flows: Float[AnyArray, "*models most 2 2"]
    layers: Int[AnyArray, "*models"]
    context: Float[AnyArray, "*models"]
    label_scale: Float[AnyArray, "*models"]

    @staticmethod
    def of(
        flows: Float[AnyArray, "layers 2 2"], context: int, label_scale: float, *, most: int = 0
    ) -> "AnyDepth":
        """The model of these flows, with room for `most` layers, or for a few more than it has."""
        values = np.asarray(flows)
        layers = len(values)
        most = max(4, 1 << (max(most, layers) - 1).bit_length())  # few sizes, so few programs
        return AnyDepth(
            flows=np.pad(values, ((0, most - layers), (0, 0), (0, 0))),
            layers=np.asarray(layers),
            context=np.asarray(context, values.dtype),
            label_scale=np.asarray(label_scale, values.dtype),
        )

    @staticmethod
    def of_model(model: Blockwise, *, most: int = 0) -> "AnyDepth":
        """`model`, with room for `most` layers, or for a few more than it has."""
        return AnyDepth.of(model.inner_flows(), model.context, model.label_scale, most=most)

    def scaled(self, S: Float[AnyArray, "N D D"]) -> Float[Array, "N D D"]:
        """Moments in inner scale."""
        token = jnp.ones(S.shape[-1], S.dtype).at[-1].set(self.label_scale)
        return jnp.asarray(S) * (token[:, None] * token[None, :] / self.context)[None]

    def final_weights(self, S: Float[AnyArray, "N D D"]) -> Float[Array, "N dim"]:
        """The implicit weights after the last layer."""
        rows = lanes.each(self._last_row_in_lanes, lanes.split(self.scaled(S)))
        return -lanes.join(rows, len(S)) / self.label_scale

    def _last_row_in_lanes(self, S: Float[Array, "D D lanes"]) -> Float[Array, "dim lanes"]:
        """The x part of the last row of `A_L .. A_1`, by loops of unknown length."""
        flows, dim = jnp.asarray(self.flows), len(S) - 1
        identity = jnp.eye(dim + 1, dtype=S.dtype)[:, :, None]

        def map_of(layer, S):
            return identity + spread_flows(flows[layer], dim)[:, :, None] * S

        def forward(layer, carry):
            S, maps = carry
            A = map_of(layer, S)
            return lanes.conjugate(A, S), maps.at[layer].set(A)

        def backward(step, row):
            return lanes.product(row, maps[last - 1 - step])

        last = self.layers - 1
        maps = jnp.zeros((len(flows) - 1, *S.shape), S.dtype)
        S, maps = jax.lax.fori_loop(0, last, forward, (S, maps))
        return jax.lax.fori_loop(0, last, backward, map_of(last, S)[-1:])[0, :-1]
