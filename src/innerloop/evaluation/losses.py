"""How well a predictor does, against what is possible.

Every number is half a squared error, as in Vladymyrov et al. (2024), and an average over sequences of

    adjusted = regret + spread,    unadjusted = adjusted + oracle
    regret = 1/2 ||w_hat - w_bayes||^2,   spread = 1/2 E[||w_sigma - w_bayes||^2 | X, y],
    oracle = 1/2 E[||w - w_sigma||^2 | X, y]

in the query's norm: each term is its own conditional expectation given the context, so no query, label or noise level
adds variance (Rao and Blackwell). The mean of `spread` is the Bayes floor, below which no predictor's adjusted loss can be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float, Key
from scipy.special import gammainc

from innerloop import lanes
from innerloop.models.any_depth import AnyDepth
from innerloop.models.linear import Blockwise, LinearTransformer
from innerloop.predictors.base import weights_of_all
from innerloop.tasks import LinearRegression
from innerloop.tasks.regression import check_task
from innerloop.threads import in_threads
from innerloop.types import AnyArray, Moments, shown

CHUNK = 16_384
_BLOCK = 256  # sequences at a time: their temporaries stay in cache
_STREAM = 7  # evaluation never shares a stream with training or with the tuning of baselines
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Estimate:
    """A mean over sequences and its standard error."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, draws: np.ndarray) -> "Estimate":
        count = len(draws)
        with np.errstate(invalid="ignore", over="ignore"):  # a model that blows up has infinite losses
            error = draws.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return cls(float(draws.mean()), float(error))

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "se": self.standard_error}


@dataclass(frozen=True)
class Evaluation:
    """A predictor's losses on fresh sequences.

    Attributes:
        adjusted_loss, unadjusted_loss, oracle, floor, regret: see the module's text.
        worst_share: the part of the mean adjusted loss that the single worst sequence carries.
        not_finite: how many sequences gave a loss that is not finite.
        per_layer: adjusted loss of the prediction after 0, 1, .. layers; empty for a predictor without layers.
        sequences: how many were drawn.
    """

    adjusted_loss: Estimate
    unadjusted_loss: Estimate
    oracle: Estimate
    floor: Estimate
    regret: Estimate
    worst_share: float
    not_finite: int
    sequences: int
    per_layer: tuple[Estimate, ...] = field(default=())

    def with_layers(self, per_layer: tuple[Estimate, ...]) -> "Evaluation":
        """The same with the losses after each layer from another, smaller draw."""
        return replace(self, per_layer=per_layer)

    def summary(self) -> dict[str, float | int]:
        """The columns of a table of runs: losses with standard errors, and the tail."""
        return {
            "adjusted_loss": self.adjusted_loss.value,
            "adjusted_loss_se": self.adjusted_loss.standard_error,
            "regret": self.regret.value,
            "regret_se": self.regret.standard_error,
            "floor": self.floor.value,
            "worst_share": self.worst_share,
            "not_finite": self.not_finite,
        }

    def table(self) -> pl.DataFrame:
        """Rows adjusted_loss, regret, floor, oracle, unadjusted_loss; columns name, value, standard_error."""
        names = ("adjusted_loss", "regret", "floor", "oracle", "unadjusted_loss")
        estimates = [getattr(self, name) for name in names]
        return pl.DataFrame(
            {
                "name": names,
                "value": [estimate.value for estimate in estimates],
                "standard_error": [estimate.standard_error for estimate in estimates],
            }
        )


_PER_SEQUENCE = ("spread", "oracle", "sigma", "rss")


@dataclass(frozen=True)
class Draws:
    """Per-sequence losses of several predictors on the same sequences: what estimates are made of, and can be joined.

    Attributes:
        regret: name -> `(sequences, layers + 1)`, or `(sequences, 1)` for the final prediction only.
        spread, oracle: `(sequences,)`.
        sigma, rss: the noise levels and the residual sums of squares of least squares, `(sequences,)`.
    """

    regret: dict[str, np.ndarray]
    spread: np.ndarray
    oracle: np.ndarray
    sigma: np.ndarray
    rss: np.ndarray

    @staticmethod
    def joined(parts: Sequence["Draws"]) -> "Draws":
        """All sequences of draws of the same predictors."""
        regret = {name: np.concatenate([part.regret[name] for part in parts]) for name in parts[0].regret}
        return Draws(
            regret, *(np.concatenate([getattr(part, name) for part in parts]) for name in _PER_SEQUENCE)
        )

    def evaluations(self, sequences: int | None = None) -> dict[str, Evaluation]:
        """The estimates from the first `sequences` draws, all by default."""
        return {
            name: _judged(regret[:sequences], self.spread[:sequences], self.oracle[:sequences])
            for name, regret in self.regret.items()
        }


def evaluate(
    predictor,
    task: LinearRegression,
    *,
    sequences: int = 100_000,
    seed: int = 0,
    precision: Precision = "float64",
) -> Evaluation:
    """Judge a model, or any predictor with `implicit_weights`, on fresh sequences of `task`.

    Args:
        sequences: how many; the same seed draws the same ones for every predictor.
        precision: of the whole evaluation, whatever the precision of training was.

    Raises:
        ValueError: `sequences` is not a whole number >= 2, `precision` is unknown, or the predictor's dimension differs.
    """
    return evaluate_many({"": predictor}, task, sequences=sequences, seed=seed, precision=precision)[""]


def evaluate_many(
    predictors: dict,
    task: LinearRegression,
    *,
    sequences: int = 100_000,
    seed: int = 0,
    precision: Precision = "float64",
    per_layer: bool = True,
) -> dict[str, Evaluation]:
    """As `evaluate` for several predictors, on one draw of the sequences.

    Args:
        per_layer: also judge the prediction after every layer; without, models run faster.
    """
    check_sequences(sequences)
    drawn = draw_losses(
        predictors, task, range(-(-sequences // CHUNK)), seed=seed, precision=precision, per_layer=per_layer
    )
    return drawn.evaluations(sequences)


def bayes_floor(
    task: LinearRegression, *, sequences: int = 200_000, seed: int = 0, precision: Precision = "float64"
) -> tuple[Estimate, Estimate]:
    """The Bayes floor and the oracle loss of `task`, each with its standard error.

    The draws are those of `evaluate`, sorted afterwards into strata whose probabilities are known: the noise level, and the
    residuals of least squares, which are chi-square given the level and decide how much the data say about it.
    """
    check_sequences(sequences)
    drawn = draw_losses({}, task, range(-(-sequences // CHUNK)), seed=seed, precision=precision)
    sigma, rss = drawn.sigma[:sequences], drawn.rss[:sequences]
    most = max(1, sequences // 100)
    index, count = task.noise.strata(sigma, min(16, most))
    if task.context > task.dim and (sigma > 0).all():
        bins = min(1024 // count, 64, max(1, most // count))
        share = gammainc((task.context - task.dim) / 2, rss / sigma**2 / 2)  # the distribution of chi-square
        index = index * bins + np.minimum((share * bins).astype(int), bins - 1)
        count *= bins
    return tuple(_post_stratified(draws[:sequences], index, count) for draws in (drawn.spread, drawn.oracle))  # type: ignore[return-value]


def _post_stratified(draws: np.ndarray, index: np.ndarray, count: int) -> Estimate:
    """The mean of draws that fall into `count` equally likely strata, from the strata's own means."""
    size = np.bincount(index, minlength=count)
    if size.min() < 2:
        return Estimate.of(draws)
    mean = np.bincount(index, draws, minlength=count) / size
    variance = np.bincount(index, (draws - mean[index]) ** 2, minlength=count) / (size - 1)
    return Estimate(float(mean.mean()), float(np.sqrt((variance / size).sum()) / count))


def draw_losses(
    predictors: dict,
    task: LinearRegression,
    chunks: Iterable[int],
    *,
    seed: int = 0,
    precision: Precision = "float64",
    per_layer: bool = True,
) -> Draws:
    """Losses on the sequences of some `chunks`, `CHUNK` sequences each; chunk i is a pure function of (seed, i).

    Memory does not grow with the number of chunks, but for the losses.
    """
    check_task(task)
    for predictor in predictors.values():
        check_predictor(predictor)
    with jax.enable_x64(check_precision(precision) == "float64"):
        kind, numbers = task.apart()
        cast = {name: in_precision(each, precision) for name, each in predictors.items()}
        groups = _grouped(cast, task, per_layer)
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)

        def judged(chunk: int) -> Draws:
            keys = jax.random.split(jax.random.fold_in(key, chunk), CHUNK // _BLOCK)
            moments, mean, *drawn = _draw(kind, numbers, keys, precision)
            regret = {}
            for names, group in groups:
                losses = _regret(group, kind, moments, mean, per_layer)
                for name, own in zip(names, losses, strict=True):
                    regret[name] = np.asarray(own, np.float64).reshape(CHUNK, -1)
            return Draws(
                {name: regret[name] for name in predictors},
                *(np.asarray(part, np.float64).ravel() for part in drawn),
            )

        return Draws.joined(in_threads(judged, chunks))


def implicit_paths(predictors: Iterable, moments: Moments) -> list[Float[Array, "depths dim"]]:
    """Every predictor's weights on one context, after every layer if it has layers."""
    return [each if each.ndim == 2 else each[None] for each in weights_of_all(predictors, moments)]


def _judged(regret: np.ndarray, spread: np.ndarray, oracle: np.ndarray) -> Evaluation:
    adjusted = regret + spread[:, None]  # (sequences, layers + 1)
    last = adjusted[:, -1]
    finite = np.isfinite(last)
    return Evaluation(
        adjusted_loss=Estimate.of(last),
        unadjusted_loss=Estimate.of(last + oracle),
        oracle=Estimate.of(oracle),
        floor=Estimate.of(spread),
        regret=Estimate.of(regret[:, -1]),
        worst_share=float(last.max() / last.sum()) if finite.all() and last.sum() > 0 else float("nan"),
        not_finite=int((~finite).sum()),
        sequences=len(last),
        per_layer=tuple(Estimate.of(column) for column in adjusted.T) if adjusted.shape[1] > 1 else (),
    )


@eqx.filter_jit
def _draw(
    kind: LinearRegression,
    numbers: Float[AnyArray, "numbers"],
    keys: Key[Array, "blocks"],
    precision: Precision,
):
    """Moments, w_bayes, spread, oracle loss, sigma and residual sum of squares of one block of sequences a key."""
    task = kind.with_numbers(numbers)

    def block(key):
        S, weights, sigma = task.sample_in_lanes(key, _BLOCK, dtype=jnp.dtype(precision))
        moments = Moments(S=jnp.moveaxis(S, -1, 0), n=task.context, weights=weights.T, sigma=sigma)
        judged = lanes.each(task.judged_in_lanes, lanes.cut(S))
        mean, spread, oracle, rss = (lanes.join(part, _BLOCK) for part in judged)
        return moments, mean, spread, oracle, sigma, rss

    return jax.lax.map(block, keys)


@eqx.filter_jit
def _regret(group, task: LinearRegression, moments: Moments, target, per_layer: bool):
    """Regret of every sequence by every predictor of a group, each `(blocks, block, layers + 1)`."""

    def loss(path, target: Float[Array, "dim"]):
        return task.half_square(path - target[None])

    def by(model):
        def block(moments: Moments, target: Float[Array, "block dim"]):
            if per_layer:
                return jax.vmap(loss)(model.implicit_weights(moments), target)
            weights = model.final_weights(moments.S if isinstance(model, AnyDepth) else moments)
            return task.half_square(weights - target)[:, None]

        return jax.lax.map(lambda parts: block(*parts), (moments, target))

    if isinstance(group, LinearTransformer | AnyDepth):
        return jax.lax.map(by, group)

    def one(moments: Moments, target: Float[Array, "dim"]):
        return [loss(path, target) for path in implicit_paths(group, moments)]

    return jax.lax.map(lambda parts: jax.vmap(one)(*parts), (moments, target))


def _grouped(predictors: dict, task: LinearRegression, per_layer: bool) -> list[tuple[list[str], Any]]:
    """What one compiled program judges: models of one size, as one whose arrays have a leading axis, and all that is no
    model, as a tuple. Where only the last layer counts, DIAG and GD++ of all depths are of one size."""
    blockwise = [each for each in predictors.values() if isinstance(each, Blockwise)]
    deepest = max((model.layers for model in blockwise), default=0)
    groups: dict[Any, list[str]] = {}
    members = dict(predictors)
    for name, predictor in predictors.items():
        key: Any = None
        if isinstance(predictor, LinearTransformer):
            if predictor.dim != task.dim:
                raise ValueError(f"the model has dim {predictor.dim}, the data has dim {task.dim}")
            if isinstance(predictor, Blockwise):
                members[name] = predictor.freed() if per_layer else AnyDepth.of_model(predictor, most=deepest)
            leaves, structure = jax.tree.flatten(members[name])
            key = (structure, *(leaf.shape for leaf in leaves))
        groups.setdefault(key, []).append(name)
    found = []
    for key, names in groups.items():
        several = tuple(members[name] for name in names)
        stacked = several if key is None else jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
        found.append((names, stacked))
    return found


def in_precision(predictor, precision: Precision):
    """The predictor with its floating-point parameters cast."""
    if not isinstance(predictor, LinearTransformer):
        return predictor
    dtype = jnp.dtype(precision)
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), predictor)


def check_sequences(sequences: int) -> None:
    if isinstance(sequences, bool) or not isinstance(sequences, int) or sequences < 2:
        raise ValueError(f"sequences must be a whole number >= 2, got {sequences!r}")


def check_predictor(predictor: Any) -> None:
    """Raises ValueError if it has no weights to judge: a `Fit` or a `Run`, say, which has a model."""
    if not hasattr(predictor, "implicit_weights"):
        there = "; did you mean its .model?" if hasattr(predictor, "model") else ""
        raise ValueError(
            f"predictor must be a model or a baseline, with implicit_weights, got {shown(predictor)}{there}"
        )


def check_precision(precision: str) -> str:
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision must be float32 or float64, got {precision!r}")
    return precision
