"""An `Algorithm` as text, Markdown and LaTeX; SymPy does the algebra, and this module spells what comes out."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import sympy as sp

from innerloop.evaluation.losses import Estimate
from innerloop.probe import algebra
from innerloop.probe.algorithm import Algorithm, Layer, Term
from innerloop.probe.readings import number

_WORDS = (
    "Token i is (x_i, y_i), the query's has y = 0, and the prediction is <w, query>.\n"
    "Sigma, alpha and lam are the sums of x x^T, y x and y^2 over the examples as they stand before the layer.\n"
    "After the layers so far a token (x, y) has become (M x + y u, a y - <w, x>)."
)
_MATHS = (
    r"Token $i$ is $(x_i, y_i)$, the query's has $y = 0$, and the prediction is $\langle w, x\rangle$ at the query $x$. "
    r"$\Sigma$, $\alpha$ and $\lambda$ are the sums of $x x^\top$, $y x$ and $y^2$ over the examples as they stand "
    r"before the layer. After the layers so far a token $(x, y)$ has become $(M x + y u,\; a y - \langle w, x\rangle)$."
)
_LATEX_SIGNS = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "~": r"$\sim$", "±": r"$\pm$"}


def text(algorithm: Algorithm) -> str:
    """For a terminal, without formulas that need typesetting."""
    lines = [*_head(algorithm), "", _WORDS]
    for layer, token, implicit in _steps(algorithm):
        lines += ["", f"Layer {layer.number}: {layer.reading}{_explained(layer)}"]
        lines += [f"    {_spelt(each, _PLAIN)}" for each in token]
        starts = ["so  ", *["    "] * len(implicit)]
        lines += [f"    {start}{_spelt(each, _PLAIN)}" for start, each in zip(starts, implicit, strict=False)]
        rows = [[term.flow, number(term.value), term.reading, _cost(term)] for term in layer.kept]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines += [f"  left out: {left}" for left in [_left_out(layer)] if left]
    return "\n".join(lines) + "\n"


def markdown(algorithm: Algorithm) -> str:
    """A heading a layer, its equations, and a table of its terms."""
    title, *head = _head(algorithm)
    lines = [f"## {title}", "", " ".join(head), "", _MATHS]
    for layer, token, implicit in _steps(algorithm):
        lines += ["", f"### Layer {layer.number}: {layer.reading}", ""]
        lines += [f"{_explained(layer).removeprefix(', ').capitalize()}.", ""] if layer.explained else []
        if shown := token + implicit:
            body = " \\\\\n".join(_spelt(each, _TYPESET) for each in shown)
            lines += ["$$", r"\begin{aligned}", body, r"\end{aligned}", "$$", ""]
        lines += ["| term | value | reading | loss without it |", "| --- | ---: | --- | ---: |"]
        lines += [
            f"| $w_{{{term.flow[2:]}}}$ | {number(term.value)} | {_row_reading(term)} | {_cost(term)} |"
            for term in layer.terms
        ]
    return "\n".join(lines) + "\n"


def latex(algorithm: Algorithm) -> str:
    """A paragraph a layer, its equations in `align*`, and a `tabular` of its terms."""
    lines = [r"% \usepackage{amsmath,booktabs}", _tex(" ".join(_head(algorithm))), "", _MATHS]
    for layer, token, implicit in _steps(algorithm):
        lines += ["", rf"\paragraph{{Layer {layer.number}}} {_tex(layer.reading + _explained(layer))}."]
        if shown := token + implicit:
            body = " \\\\\n".join(_spelt(each, _TYPESET) for each in shown)
            lines += [r"\begin{align*}", body, r"\end{align*}"]
        lines += [r"\begin{tabular}{lrp{0.6\linewidth}r}", r"\toprule"]
        lines += [r"term & value & reading & loss without it \\", r"\midrule"]
        for term in layer.terms:
            cells = [_tex(_row_reading(term)), _tex(_cost(term))]
            lines.append(
                f"$w_{{{term.flow[2:]}}}$ & {_TYPESET.number(term.value)} & {' & '.join(cells)} \\\\"
            )
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _head(algorithm: Algorithm) -> list[str]:
    """What the model is, how well it does, and what the description leaves out."""
    depth = len(algorithm.layers)
    title = f"{algorithm.kind}, {depth} layer{'s' if depth > 1 else ''}"
    if algorithm.loss is None or algorithm.left_out is None or algorithm.floor is None:
        return [f"{title}, d = {algorithm.dim}"]
    lines = [
        f"{title}, {algorithm.problem}",
        f"Adjusted loss {_estimate(algorithm.loss)}, Bayes floor {_estimate(algorithm.floor)}.",
    ]
    if algorithm.kind == "full":
        lines.append(
            "Its P and Q are dense: what follows is the DIAG model whose layers move tokens most nearly as its own do."
        )
    shown = sum(len(layer.kept) for layer in algorithm.layers)
    there = sum(term.value != 0 for layer in algorithm.layers for term in layer.terms)
    if shown < there:
        cost = f"leaving out the rest costs {_estimate(algorithm.left_out)} of adjusted loss"
        lines.append(f"{shown} of {there} terms are shown; {cost}.")
    if algorithm.kind == "full" and algorithm.described_loss is not None:
        lines.append(
            f"What is described has adjusted loss {_estimate(algorithm.described_loss)} when it runs itself."
        )
    return lines


def _explained(layer: Layer) -> str:
    if layer.explained is None:
        return ""
    of_x, of_y = (f"{100 * share:.1f} %" for share in layer.explained)
    return f", the four terms explain {of_x} of what moves x and {of_y} of what moves y"


def _row_reading(term: Term) -> str:
    return term.reading if term.kept or not term.value else f"{term.reading} (left out)"


def _left_out(layer: Layer) -> str:
    """The terms that are not zero and not shown."""
    left = [term for term in layer.terms if term.value and not term.kept]
    return ", ".join(f"{term.flow} = {number(term.value)} ({_cost(term) or term.reading})" for term in left)


def _cost(term: Term) -> str:
    if term.cost is None:
        return ""
    if not math.isfinite(term.cost.value):
        return "not finite"
    return f"{term.cost.value:+.2g} ± {term.cost.standard_error:.1g}"


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} ± {estimate.standard_error:.1g}"


def _tex(words: str) -> str:
    return "".join(_LATEX_SIGNS.get(sign, sign) for sign in words)


class _Equation(NamedTuple):
    target: Any
    update: Any


class _Step(NamedTuple):
    """A layer, and what it does to a token and to the implicit model: only what changes and is read again."""

    layer: Layer
    token: list[_Equation]
    implicit: list[_Equation]


def _steps(algorithm: Algorithm) -> Iterator[_Step]:
    untouched = set(algebra.START)
    one = sp.Identity(1)
    for layer in algorithm.layers:
        update = algebra.layer_update(layer.flows, untouched=untouched)
        before = algebra.layer_update([[0, 0], [0, 0]], untouched=untouched)
        targets = [algebra.X, algebra.Y * one, algebra.W, algebra.M, algebra.U, algebra.SCALE * one]
        changes = [
            [_Equation(target, getattr(update, name))]
            if getattr(update, name) != getattr(before, name)
            else []
            for target, name in zip(targets, "xywMua", strict=True)
        ]
        if layer.number == len(algorithm.layers):  # what is read after it is the prediction
            changes[0] = changes[3] = changes[4] = changes[5] = []
        yield _Step(layer, sum(changes[:2], []), sum(changes[2:], []))
        untouched &= algebra.still_untouched(update)


class _Plain:
    arrow, space = " <- ", " "

    @staticmethod
    def number(value: float) -> str:
        return number(value)

    @staticmethod
    def name(symbol: Any) -> str:
        return symbol.name

    @staticmethod
    def transposed(name: str) -> str:
        return f"{name}^T"

    @staticmethod
    def inner(left: str, right: str) -> str:
        return f"<{left}, {right}>"


class _Typeset(_Plain):
    arrow, space = r" &\leftarrow ", r"\,"

    @staticmethod
    def number(value: float) -> str:
        mantissa, e, exponent = number(value).partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e else mantissa

    @staticmethod
    def name(symbol: Any) -> str:
        return sp.latex(sp.Symbol("lambda" if symbol == algebra.LABEL_ENERGY else symbol.name))

    @staticmethod
    def transposed(name: str) -> str:
        return rf"{name}^\top"

    @staticmethod
    def inner(left: str, right: str) -> str:
        return rf"\langle {left}, {right}\rangle"


_PLAIN, _TYPESET = _Plain(), _Typeset()


def _spelt(equation: _Equation, style: _Plain) -> str:
    """`x_i <- x_i - 0.02 Sigma x_i + 0.001 y_i alpha`: the target itself first, then the shortest summand."""
    [(_, *own)] = algebra.terms(equation.target)
    target = _product(own[0], own[1], style)
    summands = sorted(algebra.terms(equation.update), key=lambda term: ([*term[1:]] != own, *_size(term)))
    right = ""
    for value, symbols, factors in summands:
        if right:
            right += " - " if value < 0 else " + "
        elif value < 0:
            right = "-"
        product = _product(symbols, factors, style)
        spelt = style.number(abs(value)) if abs(value) != 1 or not product else ""
        right += style.space.join(part for part in (spelt, product) if part)
    return f"{target}{style.arrow}{right or '0'}"


def _size(term: tuple[float, list, list]) -> tuple[int, int]:
    """How many factors a summand has, an identity being none; among equals matrices come first."""
    _, symbols, factors = term
    return len(symbols) + sum(not isinstance(factor, sp.Identity) for factor in factors), len(symbols)


def _product(symbols: list, factors: list, style: _Plain) -> str:
    names = [style.name(symbol) for symbol in symbols]
    if len(factors) == 2 and factors[0].shape[0] == factors[1].shape[1] == 1:
        return style.space.join([*names, style.inner(style.name(factors[0].T), style.name(factors[1]))])
    for factor in factors:
        if isinstance(factor, sp.Identity):
            names.append("I")
        elif isinstance(factor, sp.Transpose):
            names.append(style.transposed(style.name(factor.arg)))
        else:
            names.append(style.name(factor))
    return style.space.join(names)
