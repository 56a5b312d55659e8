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

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.models.linear import spread_flows


def weights_and_jacobian(
    flows: Float[Array, "layers 2 2"], S: Float[Array, "batch D D"], probes: Float[Array, "*batch dim r"]
) -> tuple[Float[Array, "batch dim"], Float[Array, "batch r layers*4"]]:
    """The row's first `dim` entries, and the derivative of `row @ probes` in the flattened flows (xx, xy, yx, yy a layer).

    Everything is in the model's inner scale: implicit weights are the row divided by `-label_scale`.
    """
    batch, size, _ = S.shape
    layers, dim, r = len(flows), size - 1, probes.shape[-1]
    spread = [spread_flows(layer, dim)[None] for layer in flows]
    identity = jnp.eye(size, dtype=S.dtype)
    states, maps, transfers = [], [], [jnp.broadcast_to(identity, S.shape)]
    for layer in range(layers):
        A = identity[None] + spread[layer] * S
        states.append(S)
        maps.append(A)
        if layer < layers - 1:
            S = A @ S @ A.swapaxes(1, 2)
            transfers.append(A @ transfers[-1])

    rows = [jnp.broadcast_to(identity[-1:], (batch, 1, size))]  # u_L, u_{L-1}, .., and the whole product last
    for A in reversed(maps):
        rows.append(rows[-1] @ A)

    def tall(x):
        return x.reshape(batch, r * size, size)

    def stacked(x):
        return x.reshape(batch, r, size, size)

    pulled: list[Float[Array, "batch r 4"]] = []
    cotangent: Float[Array, "batch r D D"] | None = None
    for layer in reversed(range(layers)):
        A, S = maps[layer], states[layer]
        column = (transfers[layer][:, :, :dim] @ probes).swapaxes(1, 2)  # t_l: (batch, r, D)
        d_map = rows[layers - 1 - layer][:, :, :, None] * column[:, :, None, :]  # (batch, r, D, D)
        through = None
        if cotangent is not None:
            half = tall(cotangent) @ A
            d_map = d_map + 2 * stacked(half @ S)
            # A^T G A is symmetric, so the right product of the transpose will do.
            through = stacked(tall(stacked(half).swapaxes(2, 3)) @ A) if layer > 0 else None
        pulled.append(_block_sums(d_map * S[:, None]))
        direct = spread[layer][None] * d_map
        direct = (direct + direct.swapaxes(2, 3)) / 2
        cotangent = direct if through is None else direct + through
    return rows[-1][:, 0, :dim], jnp.concatenate(pulled[::-1], axis=-1)


def _block_sums(x: Float[Array, "batch r D D"]) -> Float[Array, "batch r 4"]:
    xx = x[..., :-1, :-1].sum((-1, -2))
    return jnp.stack([xx, x[..., :-1, -1].sum(-1), x[..., -1, :-1].sum(-1), x[..., -1, -1]], axis=-1)
