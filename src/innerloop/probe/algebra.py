"""One layer of four flows as SymPy expressions: what it does to a token, and to the implicit model `(M, u, w, a)`.

Sigma, alpha and lam are the sums of x x^T, y x and y^2 over the examples as they stand before the layer. The size d stays a
symbol, so the expressions hold for every dimension.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import sympy as sp

DIM = sp.Symbol("d", integer=True, positive=True)
GRAM = sp.MatrixSymbol("Sigma", DIM, DIM)
CORRELATION = sp.MatrixSymbol("alpha", DIM, 1)
LABEL_ENERGY = sp.Symbol("lam")
X, Y = sp.MatrixSymbol("x_i", DIM, 1), sp.Symbol("y_i")
M, U, W = sp.MatrixSymbol("M", DIM, DIM), sp.MatrixSymbol("u", DIM, 1), sp.MatrixSymbol("w", DIM, 1)
SCALE = sp.Symbol("a")

_ONE = sp.Identity(1)  # a scalar among matrices
START = {M: sp.Identity(DIM), U: sp.ZeroMatrix(DIM, 1), W: sp.ZeroMatrix(DIM, 1), SCALE: sp.S.One}
Pair = Sequence[Any]  # of numbers or symbols: the x part and the y part


class LayerUpdate(NamedTuple):
    """What a layer makes of a token `(x_i, y_i)` and of `T = [[M, u], [-w^T, a]]`; y and a are 1 x 1 matrices."""

    x: Any
    y: Any
    M: Any
    u: Any
    w: Any
    a: Any


def increment(heads: Sequence[tuple[Pair, Pair]]) -> Any:
    """sum_k P_k S Q_k in blocks, for heads `((p_x, p_y), (q_x, q_y))`."""
    S = sp.BlockMatrix([[GRAM, CORRELATION], [CORRELATION.T, LABEL_ENERGY * _ONE]])
    return sp.block_collapse(sum((_diagonal(p) * S * _diagonal(q) for p, q in heads), _diagonal((0, 0))))


def layer_update(flows: Sequence[Pair], *, untouched: Collection[Any] = ()) -> LayerUpdate:
    """The layer with flows `[[w_xx, w_xy], [w_yx, w_yy]]`, numbers or symbols, from A = I + P S Q.

    Args:
        untouched: those of M, u, w and a that are as before the first layer, see `START`.
    """
    (xx, xy), (yx, yy) = flows
    # Two heads, of which one reads x and one y, can be any four flows.
    A = _diagonal((1, 1)) + increment([((xx, yx), (1, 0)), ((xy, yy), (0, 1))])
    token = sp.block_collapse(A * sp.BlockMatrix([[X], [Y * _ONE]])).blocks
    T = sp.block_collapse(A * sp.BlockMatrix([[M, U], [-W.T, SCALE * _ONE]])).blocks
    parts = [token[0, 0], token[1, 0], T[0, 0], T[0, 1], -T[1, 0].T, T[1, 1]]
    if untouched:
        parts = [part.subs({symbol: START[symbol] for symbol in untouched}) for part in parts]
    return LayerUpdate(*(sp.expand(part).doit() for part in parts))


def still_untouched(update: LayerUpdate) -> set[Any]:
    """Those of M, u, w and a that are after the layer what they were before the first."""
    after = {M: update.M, U: update.u, W: update.w, SCALE: update.a}
    return {
        symbol for symbol, value in after.items() if value == (_ONE if symbol == SCALE else START[symbol])
    }


def terms(expression: Any) -> Iterator[tuple[float, list[Any], list[Any]]]:
    """The summands: a number, its symbols and its matrix factors; an identity of size one is left out."""
    summands: Any = sp.MatAdd.make_args(expression)
    for summand in summands:
        coefficient, product = summand.as_coeff_mmul()
        factors = [factor for factor in sp.MatMul.make_args(product) if factor != _ONE]
        if isinstance(product, sp.ZeroMatrix):
            continue
        for part in sp.Add.make_args(sp.expand(coefficient)):
            number, symbols = part.as_coeff_Mul()
            yield float(number), [symbol for symbol in sp.Mul.make_args(symbols) if symbol != 1], factors


def _diagonal(pair: Pair) -> Any:
    """diag(x, .., x, y)."""
    on_x, on_y = pair
    return sp.BlockMatrix(
        [[on_x * sp.Identity(DIM), sp.ZeroMatrix(DIM, 1)], [sp.ZeroMatrix(1, DIM), on_y * _ONE]]
    )
