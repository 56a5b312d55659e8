"""The linear model that a linear transformer carries through its layers (Vladymyrov et al. 2024, Theorem 4.1)."""

from typing import NamedTuple

from jaxtyping import Array, Float

from innerloop.models.linear import LinearTransformer
from innerloop.types import Moments


class ImplicitModel(NamedTuple):
    """The blocks of `T = [[M, u], [-w^T, a]]` after 0, 1, .. layers: token (x, y) has become `(M x + y u, a y - <w, x>)`.

    Attributes:
        M: what the inputs have been multiplied by, `(..., layers + 1, dim, dim)`; the identity at the start.
        u: what a label has added to its input, `(..., layers + 1, dim)`; zero at the start.
        w: the implicit weights, `(..., layers + 1, dim)`: the prediction is `<w, query>`; zero at the start.
        a: what the labels have been multiplied by, `(..., layers + 1)`; one at the start.
    """

    M: Float[Array, "*batch depths dim dim"]
    u: Float[Array, "*batch depths dim"]
    w: Float[Array, "*batch depths dim"]
    a: Float[Array, "*batch depths"]


def implicit_model(model: LinearTransformer, moments: Moments) -> ImplicitModel:
    """The blocks of `model.transfer(moments)`, after every layer.

    Raises:
        ValueError: the moments are of another dimension than the model.
    """
    T = model.transfer(moments)
    return ImplicitModel(M=T[..., :-1, :-1], u=T[..., :-1, -1], w=-T[..., -1, :-1], a=T[..., -1, -1])
