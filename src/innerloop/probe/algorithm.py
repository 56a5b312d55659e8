"""The learned algorithm of a linear transformer: each layer's update in formulas, what each term is and is worth."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import jax
import numpy as np

from innerloop.evaluation.losses import CHUNK, Draws, Estimate, check_sequences, draw_losses, in_precision
from innerloop.models.linear import Blockwise, Diag, LinearTransformer
from innerloop.predictors.base import finite_number
from innerloop.probe.mechanisms import FLOWS, ablate
from innerloop.probe.nearest import nearest_diag, typical_moments
from innerloop.probe.readings import NO_EFFECT, effect, reading, role
from innerloop.tasks import LinearRegression

_Term = tuple[int, str]  # layer from 0, flow


@dataclass(frozen=True)
class Term:
    """One of a layer's four terms.

    Attributes:
        flow: "w_xx", "w_xy", "w_yx" or "w_yy".
        value: its number, in the paper's convention.
        cost: how much the adjusted loss rises if this term alone is left out; None without a task.
        kept: whether it is part of the algorithm as described.
        effect: what it does to a typical context, in numbers, see `innerloop.probe.readings.effect`.
        reading: the same in words.
    """

    flow: str
    value: float
    cost: Estimate | None
    kept: bool
    effect: dict[str, float]
    reading: str


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        number: from 1.
        terms: its four terms, in the order of `FLOWS`.
        explained: of a `FULL` model, the shares of its moves of x and of y that the four terms explain.
    """

    number: int
    terms: tuple[Term, ...]
    explained: tuple[float, float] | None

    @property
    def kept(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.kept)

    @property
    def flows(self) -> list[list[float]]:
        """`[[w_xx, w_xy], [w_yx, w_yy]]` of what is kept."""
        kept = {term.flow: term.value for term in self.kept}
        return [[kept.get(f"w_{to}{source}", 0.0) for source in "xy"] for to in "xy"]

    @property
    def reading(self) -> str:
        """What the layer is, the gradient step first: "gradient step + preconditioning"."""
        order = ["w_yx", "w_xx", "w_xy", "w_yy"]
        kept = sorted(self.kept, key=lambda term: order.index(term.flow))
        return " + ".join(role(term.flow, term.value) for term in kept) or "nothing"


@dataclass(frozen=True)
class Algorithm:
    """What a linear transformer computes; made by `describe`.

    Attributes:
        kind: "full", "diag" or "gd++". A `FULL` model is described by its nearest `DIAG`.
        problem: the task in words; "" without one.
        layers: one by one.
        loss: the model's adjusted loss; None without a task, like the two below.
        described_loss: that of the described algorithm: of the nearest `DIAG` for a `FULL` model, without what is left out.
        left_out: how much the adjusted loss rises by all terms that are left out, together.
        floor: the Bayes floor.
    """

    kind: str
    dim: int
    problem: str
    layers: tuple[Layer, ...]
    loss: Estimate | None = None
    described_loss: Estimate | None = None
    left_out: Estimate | None = None
    floor: Estimate | None = None

    def text(self) -> str:
        """For a terminal."""
        from innerloop.probe import formulas  # SymPy is imported when something is written

        return formulas.text(self)

    def markdown(self) -> str:
        """With formulas between dollar signs, as GitHub, Jupyter and MkDocs show them."""
        from innerloop.probe import formulas

        return formulas.markdown(self)

    def latex(self) -> str:
        """A fragment for a paper, which needs amsmath and booktabs."""
        from innerloop.probe import formulas

        return formulas.latex(self)

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def as_dict(self) -> dict:
        """What `innerloop algorithm --json` prints."""
        return {
            "kind": self.kind,
            "dim": self.dim,
            "problem": self.problem,
            **{
                name: estimate and estimate.as_dict()
                for name in ("loss", "described_loss", "left_out", "floor")
                for estimate in [getattr(self, name)]
            },
            "layers": [
                {
                    "layer": layer.number,
                    "reading": layer.reading,
                    "explained": layer.explained and dict(zip("xy", layer.explained, strict=True)),
                    "terms": {term.flow: _term_as_dict(term) for term in layer.terms},
                }
                for layer in self.layers
            ],
        }


def _term_as_dict(term: Term) -> dict:
    return {
        "value": term.value,
        "kept": term.kept,
        "cost": term.cost and term.cost.as_dict(),
        "effect": term.effect,
        "reading": term.reading,
    }


def describe(
    model: LinearTransformer,
    task: LinearRegression | None = None,
    *,
    threshold: float = 0.01,
    sequences: int = 2 * CHUNK,
    seed: int = 0,
) -> Algorithm:
    """The algorithm that the model runs, layer by layer: formulas, readings, and what each term is worth.

    Terms are left out, the cheapest first, while all that are left out raise the adjusted loss by at most `threshold` of it
    together, two standard errors included. Costs are differences on the same fresh sequences by the exact objective of
    `innerloop.evaluation`; nothing is retrained. Without a task only terms that are zero or without effect are left out,
    and there are no costs or effects.

    Args:
        model: of any kind. A `FULL` model is described by its nearest `DIAG` (`nearest_diag`), so it needs the task.
        task: the problem on which terms are judged, the one that the model was trained on.
        threshold: share of the adjusted loss that leaving out may cost; 0 for every term that matters at all.
        sequences, seed: of the fresh sequences.

    Raises:
        ValueError: the model is no linear transformer, a `FULL` one comes without a task, dimensions differ, or a number
            is out of range.

    Source: Vladymyrov et al. (2024), section 5, for the readings.
    """
    _check_model(model, task)
    finite_number("threshold", threshold, at_least=0)
    check_sequences(sequences)
    if task is None:
        assert isinstance(model, Blockwise)
        return Algorithm(model.kind, model.dim, "", _layers(_flows(model)))
    near, explained = nearest_diag(model, task, seed=seed)
    worth = _measure(model, near, threshold, sequences, partial(_judge, task, sequences, seed))
    layers = _layers(
        _flows(near),
        worth=worth,
        explained=None if isinstance(model, Blockwise) else explained,
        moments=typical_moments(near, task, seed=seed),
        n=task.context,
    )
    losses = (worth.loss, worth.described_loss, worth.left_out, worth.floor)
    return Algorithm(model.kind, model.dim, task.summary, layers, *losses)


def _check_model(model: LinearTransformer, task: LinearRegression | None) -> None:
    if not isinstance(model, LinearTransformer):
        raise ValueError(
            f"only a linear transformer is an algorithm in formulas, got {type(model).__name__}. A decoder has nonlinear "
            "layers: compare its predictions with those of innerloop.predictors, and probe its tokens, model.hidden(xs, ys)"
        )
    if task is None and not isinstance(model, Blockwise):
        raise ValueError(
            "a FULL model is described by the DIAG nearest to it on a task: describe(model, task)"
        )
    if task is not None and task.dim != model.dim:
        raise ValueError(f"the model has dim {model.dim}, the data has dim {task.dim}")


def _flows(model: Blockwise) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(in_precision(model, "float64").flows())


def _matters(flows: np.ndarray, layer: int, flow: str) -> bool:
    """Whether the term is not zero, and something reads what it writes."""
    read = layer < len(flows) - 1 or flow in ("w_yx", "w_yy")
    return read and bool(flows[layer, *FLOWS[flow]])


@dataclass(frozen=True)
class _Worth:
    """What was measured: the cost of every term, which are left out, and the losses of `Algorithm`."""

    costs: dict[_Term, Estimate]
    out: tuple[_Term, ...]
    loss: Estimate
    described_loss: Estimate
    left_out: Estimate
    floor: Estimate


def _measure(
    model: LinearTransformer,
    near: Diag,
    threshold: float,
    sequences: int,
    judge: Callable[[dict], Draws],
) -> _Worth:
    flows = _flows(near)
    terms = [(layer, flow) for layer in range(near.layers) for flow in FLOWS if _matters(flows, layer, flow)]
    models = {"": near} | {_name(term): _without(near, term) for term in terms}
    drawn = judge(models if isinstance(model, Blockwise) else models | {"model": model})
    judged = drawn.evaluations(sequences)
    own, described = judged.get("model", judged[""]), judged[""].adjusted_loss
    costs = {term: _difference(drawn, _name(term), sequences) for term in terms}
    allowed = threshold * described.value
    cheap = [
        term
        for term in sorted(terms, key=lambda term: _at_most(costs[term]))
        if _at_most(costs[term]) <= allowed
    ]
    out, left_out = (), Estimate(0.0, 0.0)
    if cheap:
        shorter = list(accumulate(cheap, _without, initial=near))
        # As many models as before, and so the same compiled program.
        shorter += [near] * (len(models) - len(shorter))
        drawn = judge({str(count or ""): each for count, each in enumerate(shorter)})
        judged = drawn.evaluations(sequences)
        for count in range(1, len(cheap) + 1):
            together = _difference(drawn, str(count), sequences)
            if _at_most(together) <= allowed:
                out, left_out, described = tuple(cheap[:count]), together, judged[str(count)].adjusted_loss
    return _Worth(costs, out, own.adjusted_loss, described, left_out, own.floor)


def _at_most(cost: Estimate) -> float:
    """What it surely does not exceed: two standard errors above."""
    return cost.value + 2 * cost.standard_error


def _name(term: _Term) -> str:
    return f"{term[0]} {term[1]}"


def _without(model: Diag, term: _Term) -> Diag:
    layer, flow = term
    with jax.enable_x64(True):
        return ablate(in_precision(model, "float64"), flow, layers=[layer])


def _judge(task: LinearRegression, sequences: int, seed: int, models: dict) -> Draws:
    chunks = range(-(-sequences // CHUNK))
    return draw_losses(models, task, chunks, seed=seed, per_layer=False)


def _difference(drawn: Draws, name: str, sequences: int) -> Estimate:
    """How much more the named model loses than the whole, which is named ""."""
    with np.errstate(invalid="ignore"):
        return Estimate.of((drawn.regret[name] - drawn.regret[""])[:sequences, -1])


def _layers(
    flows: np.ndarray,
    *,
    worth: _Worth | None = None,
    explained: np.ndarray | None = None,
    moments: np.ndarray | None = None,
    n: int | None = None,
) -> tuple[Layer, ...]:
    """All layers with their terms, from what was measured."""
    layers, moved = [], False
    for index in range(len(flows)):
        S = None if moments is None else moments[index]
        terms = tuple(_term(flows, (index, flow), worth, S, n, moved) for flow in FLOWS)
        moved |= any(term.kept and term.flow in ("w_xx", "w_xy") for term in terms)
        shares = None if explained is None else (float(explained[index, 0]), float(explained[index, 1]))
        layers.append(Layer(index + 1, terms, shares))
    return tuple(layers)


def _term(
    flows: np.ndarray,
    term: _Term,
    worth: _Worth | None,
    S: np.ndarray | None,
    n: int | None,
    moved: bool,
) -> Term:
    layer, flow = term
    value, matters = float(flows[layer, *FLOWS[flow]]), _matters(flows, layer, flow)
    numbers = effect(flow, value, S, n) if value else {}
    said = reading(flow, value, numbers, preconditioned=moved) if matters else NO_EFFECT if value else "zero"
    cost = None if worth is None else worth.costs.get(term, Estimate(0.0, 0.0))
    kept = matters and (worth is None or term not in worth.out)
    return Term(flow, value, cost, kept, numbers, said)
