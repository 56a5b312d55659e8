"""`fit`: one call from a model and a problem to a trained model."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from innerloop.models.linear import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import loop
from innerloop.train.checkpoint import Checkpoints
from innerloop.train.first_order import FirstOrder
from innerloop.train.objectives import Examples, draw_many
from innerloop.train.second_order import pool_losses
from innerloop.train.settings import Training
from innerloop.train.warm_chain import WarmChain

_REPORT_STREAM = 9
_REPORT_SEQUENCES = 4096


@dataclass(frozen=True)
class Fit:
    """What training gave.

    Attributes:
        model: the trained model.
        by_depth: the models of every depth on the way of a warm chain; else the model alone.
        exact: the same as NumPy arrays in the precision of training, for storage.
        history: one row a reporting interval: step, phase, layers, loss, regret, seconds, ..
        training: the options, with every default filled in.
        seconds: wall time of training, compilation included.
    """

    model: LinearTransformer
    by_depth: dict[int, LinearTransformer]
    exact: dict[int, LinearTransformer] = field(repr=False)
    history: pl.DataFrame = field(repr=False)
    training: Training
    seconds: float


def fit(
    model: LinearTransformer,
    task: LinearRegression,
    *,
    report: Callable[[loop.Report], None] | None = None,
    before_saving: Callable[[], None] | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    **options,
) -> Fit:
    """Train `model` on `task`.

    Args:
        model: its kind and size; its parameters are where first-order training starts.
        report: called after every interval with progress, loss, regret and time left.
        before_saving: called before every checkpoint.
        checkpoints, resume: where to keep states, and whether to go on from the newest one.
        **options: fields of `Training`: objective, optimizer, steps, batch, learning_rate, seed, ..

    Returns:
        The trained model, in the precision of the caller's context, and how training went.

    Raises:
        ValueError: an option is unknown or out of range, or model and task differ in dimension.
    """
    if model.dim != task.dim:
        raise ValueError(f"the model has dim {model.dim}, the task has dim {task.dim}")
    training = Training(**options).resolved(model.kind)
    began = time.monotonic()
    rows: list[dict] = []

    def keep(update: loop.Report) -> None:
        rows.append(update.row)
        if report is not None:
            report(update)

    precision = training.precision or "float32"
    with jax.enable_x64(precision == "float64"):
        trainer = make_trainer(_cast(model, precision), task, training)
        state = loop.run(
            trainer,
            regret=_Regret(task, training.seed),
            report=keep,
            before_saving=before_saving,
            checkpoints=checkpoints,
            resume=resume,
        )
        exact = {depth: jax.tree.map(np.asarray, solved) for depth, solved in trainer.by_depth(state).items()}
    by_depth = {
        depth: jax.tree.map(lambda leaf: jnp.asarray(leaf, float), solved) for depth, solved in exact.items()
    }
    return Fit(
        model=by_depth[model.layers],
        by_depth=by_depth,
        exact=exact,
        history=pl.DataFrame(rows, infer_schema_length=None),
        training=training,
        seconds=time.monotonic() - began,
    )


def make_trainer(model: LinearTransformer, task: LinearRegression, training: Training) -> loop.Trainer:
    """The trainer that resolved options ask for."""
    assert training.optimizer is not None and training.steps is not None  # resolved
    if training.optimizer == "levenberg-marquardt":
        return WarmChain(
            model,
            task,
            objective=training.objective,
            seed=training.seed,
            warm=training.warm,
            starts=training.starts,
            sample=training.sample,
            pool=3 * training.sample,
            steps=training.steps,
        )
    assert training.learning_rate is not None
    return FirstOrder(
        model,
        task,
        objective=training.objective,
        optimizer=training.optimizer,
        steps=training.steps,
        batch=training.batch,
        learning_rate=training.learning_rate,
        seed=training.seed,
        temper=training.temper,
    )


class _Regret:
    """The mean regret of a model on one fixed draw, for reports."""

    def __init__(self, task: LinearRegression, seed: int):
        self._task, self._seed = task, seed
        self._examples: Examples | None = None

    def __call__(self, model: LinearTransformer) -> float:
        if self._examples is None:
            key = jax.random.fold_in(jax.random.key(self._seed), _REPORT_STREAM)
            self._examples = draw_many(self._task, "bayes", key, _REPORT_SEQUENCES)
        return float(pool_losses(model, self._examples).mean())


def _cast(model: LinearTransformer, precision: str) -> LinearTransformer:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), precision), model)
