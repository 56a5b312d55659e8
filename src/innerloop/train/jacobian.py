"""The derivative of DIAG's and GD++'s implicit weights in their flows, by hand.

For the kinds whose layer is `A_l = I + W_l o S_l` (o: entrywise; W_l holds the four flows in blocks) with
`S_{l+1} = A_l S_l A_l^T`, the implicit weights are minus the last row of `A_L .. A_1`. For a probe z, the scalar
`<row, z>` is pulled back through the layers with the cotangent G_l of S_l,

    u_l = e_y^T A_L .. A_{l+1},   t_l = A_{l-1} .. A_1 z
    dA_l = u_l^T t_l^T + 2 G_{l+1} A_l S_l,    dW_l = block sums of dA_l o S_l
    G_l = sym(W_l o dA_l) + A_l^T G_{l+1} A_l,   G_{L+1} = 0

so that one sequence costs three products of D x D matrices per layer and probe, all probes of a sequence being one tall
matrix, whatever the number of parameters.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from innerloop.models.linear import spread_flows


def weights_and_jacobian(
    flows: Float[Array, "most 2 2"],
    layers: Int[Array, ""],
    S: Float[Array, "batch D D"],
    probes: Float[Array, "*batch dim r"],
) -> tuple[Float[Array, "batch dim"], Float[Array, "batch r most*4"]]:
    """The row's first `dim` entries, and the derivative of `row @ probes` in the flattened flows (xx, xy, yx, yy a layer).

    Only the first `layers` of the flows count, and the derivative in the others is zero: one compiled program serves all
    depths. Everything is in the model's inner scale: implicit weights are the row divided by `-label_scale`.
    """
    batch, size, _ = S.shape
    most, dim, r = len(flows), size - 1, probes.shape[-1]
    identity = jnp.eye(size, dtype=S.dtype)

    def forward(layer, carry):
        S, T, states, maps, transfers = carry
        A = identity[None] + spread_flows(flows[layer], dim)[None] * S
        kept = (states.at[layer].set(S), maps.at[layer].set(A), transfers.at[layer].set(T))
        return A @ S @ A.swapaxes(1, 2), A @ T, *kept

    empty = jnp.zeros((most, *S.shape), S.dtype)
    start = (S, jnp.broadcast_to(identity, S.shape), empty, empty, empty)
    _, _, states, maps, transfers = jax.lax.fori_loop(0, layers, forward, start)

    def tall(x):
        return x.reshape(batch, r * size, size)

    def stacked(x):
        return x.reshape(batch, r, size, size)

    def pulled_through(layer, cotangent: Float[Array, "batch r D D"]):
        """What the cotangent of S_{l+1} adds to that of A_l, and to that of S_l beyond that."""
        A, S = maps[layer], states[layer]
        half = tall(cotangent) @ A
        # A^T G A is symmetric, so the right product of the transpose will do.
        return 2 * stacked(half @ S), stacked(tall(stacked(half).swapaxes(2, 3)) @ A)

    def backward(step, carry):
        row, cotangent, pulled = carry  # u_l, G_{l+1}, and the derivatives so far
        layer = layers - 1 - step
        column = (transfers[layer][:, :, :dim] @ probes).swapaxes(1, 2)  # t_l: (batch, r, D)
        d_map = row[:, :, :, None] * column[:, :, None, :]  # (batch, r, D, D)
        # Nothing comes from above the last layer.
        more, through = jax.lax.cond(step > 0, pulled_through, lambda _, zero: (zero, zero), layer, cotangent)
        d_map = d_map + more
        pulled = pulled.at[layer].set(_block_sums(d_map * states[layer][:, None]))
        direct = spread_flows(flows[layer], dim)[None, None] * d_map
        return row @ maps[layer], (direct + direct.swapaxes(2, 3)) / 2 + through, pulled

    start = (
        jnp.broadcast_to(identity[-1:], (batch, 1, size)),
        jnp.zeros((batch, r, size, size), S.dtype),
        jnp.zeros((most, batch, r, 4), S.dtype),
    )
    row, _, pulled = jax.lax.fori_loop(0, layers, backward, start)
    return row[:, 0, :dim], jnp.moveaxis(pulled, 0, 2).reshape(batch, r, most * 4)


def _block_sums(x: Float[Array, "batch r D D"]) -> Float[Array, "batch r 4"]:
    xx = x[..., :-1, :-1].sum((-1, -2))
    return jnp.stack([xx, x[..., :-1, -1].sum(-1), x[..., -1, :-1].sum(-1), x[..., -1, -1]], axis=-1)
