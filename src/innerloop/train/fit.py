"""`fit`: one call from a model and a problem to a trained model; and the same for many at once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float
from pydantic import ValidationError

from innerloop.models.linear import GDPlusPlus, LinearTransformer
from innerloop.refused import describe
from innerloop.tasks import LinearRegression
from innerloop.train import loop
from innerloop.train.checkpoint import Checkpoints
from innerloop.train.first_order import FirstOrder
from innerloop.train.from_deeper import FromDeeper
from innerloop.train.from_diag import FromDiag
from innerloop.train.objectives import Examples, draw_many
from innerloop.train.second_order import mean_loss
from innerloop.train.settings import Training
from innerloop.train.spectral import Spectral
from innerloop.train.warm_chain import WarmChain

_REPORT_STREAM = 9
_REPORT_SEQUENCES = 4096
_JUDGED = (200, 102_400)  # sequences on which a chain judges: so many a sequence in a Jacobian, and at most


@dataclass(frozen=True)
class Fit:
    """What training gave.

    Attributes:
        model: the trained model.
        by_depth: the models of every depth that training passes, in a warm chain or from `diag` or a deeper start; else the
            model alone.
        exact: the same as NumPy arrays in the precision of training, for storage.
        history: one row a reporting interval: step, phase, layers, loss, regret, seconds, ..
        training: the options, with every default filled in.
        seconds: wall time of training, compilation included; of many that train together, an equal share.
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
        model: its kind and size; its parameters are where first-order training starts, unless `start` says otherwise.
        report: called after every interval with progress, loss, regret and time left.
        before_saving: called before every checkpoint.
        checkpoints, resume: where to keep states, and whether to go on from the newest one.
        **options: fields of `Training`: objective, optimizer, steps, batch, learning_rate, seed, ..

    Returns:
        The trained model, in the precision of the caller's context, and how training went.

    Raises:
        ValueError: an option is unknown or out of range, or model and task differ in dimension.
    """
    try:
        training = Training(**options)
    except ValidationError as error:
        raise ValueError(describe(error, Training)) from None
    fitting = Fitting(
        model, task, training, report=report, before_saving=before_saving, checkpoints=checkpoints
    )
    return fit_together([fitting], resume=resume)[0]


@dataclass(frozen=True)
class Fitting:
    """One of several models to train side by side: the arguments of `fit`.

    Raises:
        ValueError: model and task differ in dimension.
    """

    model: LinearTransformer
    task: LinearRegression
    training: Training
    report: Callable[[loop.Report], None] | None = None
    before_saving: Callable[[], None] | None = None
    checkpoints: Checkpoints | None = None

    def __post_init__(self):
        if self.model.dim != self.task.dim:
            raise ValueError(f"the model has dim {self.model.dim}, the task has dim {self.task.dim}")


def fit_together(
    fittings: Sequence[Fitting],
    *,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    saved: Callable[[], None] | None = None,
) -> list[Fit]:
    """Train several models whose programs have one shape as one compiled program, each as `fit` would alone.

    They may differ in parameters, seed, data stream, learning rate and the numbers of the noise law.

    Args:
        stop: asked after every interval; if it says so, everything is saved.
        saved: called after checkpoints were saved.

    Raises:
        ValueError: they differ in more than that.
        Preempted: `stop` asked for it; checkpoints hold what was trained.
    """
    began = time.monotonic()
    trainings = [fitting.training.resolved(fitting.model.kind) for fitting in fittings]
    if len({_shape(fitting, training) for fitting, training in zip(fittings, trainings, strict=True)}) > 1:
        raise ValueError(
            "models that train together may differ in numbers only, not in kind, sizes or budget"
        )
    precision = trainings[0].precision or "float32"
    rows: list[list[dict]] = [[] for _ in fittings]

    def member(index: int, fitting: Fitting, training: Training) -> loop.Member:
        def keep(update: loop.Report) -> None:
            rows[index].append(update.row)
            if fitting.report is not None:
                fitting.report(update)

        return loop.Member(
            make_trainer(_cast(fitting.model, precision), fitting.task, training),
            fitting.task,
            report=keep,
            before_saving=fitting.before_saving,
            checkpoints=fitting.checkpoints,
        )

    with jax.enable_x64(precision == "float64"):
        members = [member(index, *pair) for index, pair in enumerate(zip(fittings, trainings, strict=True))]
        states = loop.run(members, _Regrets(), resume=resume, stop=stop, saved=saved)
        exact = [
            {depth: jax.tree.map(np.asarray, each) for depth, each in member.trainer.by_depth(state).items()}
            for member, state in zip(members, states, strict=True)
        ]
    seconds = (time.monotonic() - began) / len(fittings)
    return [
        _fit(fitting, models, history, training, seconds)
        for fitting, models, history, training in zip(fittings, exact, rows, trainings, strict=True)
    ]


def _fit(fitting: Fitting, exact: dict, rows: list[dict], training: Training, seconds: float) -> Fit:
    by_depth = {
        depth: jax.tree.map(lambda leaf: jnp.asarray(leaf, float), solved) for depth, solved in exact.items()
    }
    history = pl.DataFrame(rows, infer_schema_length=None)
    return Fit(by_depth[fitting.model.layers], by_depth, exact, history, training, seconds)


def _shape(fitting: Fitting, training: Training) -> tuple:
    """What runs that train together must have in common; a run in several parts has it with no other."""
    if training.trains_alone:
        return (id(fitting),)
    law = fitting.task.noise
    dim, context, _, *roots = fitting.task.identity
    same = training.model_copy(update={"seed": 0, "data_seed": 0, "learning_rate": 1.0})
    sizes = tuple(leaf.shape for leaf in jax.tree.leaves(fitting.model))
    problem = (dim, context, *roots, type(law), len(law.arguments()))
    return (type(fitting.model), fitting.model.context, sizes, problem, same)


def make_trainer(model: LinearTransformer, task: LinearRegression, training: Training) -> loop.Trainer:
    """The trainer that resolved options ask for."""
    assert training.optimizer is not None and training.steps is not None  # resolved
    if training.start != "random" and model.kind != "full":
        raise ValueError(f"start must be random for kind {model.kind}, got {training.start!r}")
    if training.optimizer == "levenberg-marquardt":
        return _chain(model, task, training, steps=training.steps)
    if training.optimizer == "spectral":
        if not isinstance(model, GDPlusPlus):
            raise ValueError(f"optimizer spectral is for gd++, got a model of kind {model.kind!r}")
        return Spectral(model, task, **_search(training), tail=training.tail, steps=training.steps)
    assert training.learning_rate is not None
    gradients = FirstOrder(
        model,
        task,
        objective=training.objective,
        optimizer=training.optimizer,
        steps=training.steps,
        batch=training.batch,
        learning_rate=training.learning_rate,
        data_seed=training.seed if training.data_seed is None else training.data_seed,
        temper=training.temper,
        guard=training.guard,
        devices=_available(training.devices),
    )
    if training.start == "random":
        return gradients
    if training.start == "deeper":
        deeper = model.restart(model.layers + 1, key=jax.random.key(training.seed))
        return FromDeeper(replace(gradients, model=deeper), seed=training.seed)
    diag = LinearTransformer.diag(
        model.dim,
        model.layers,
        model.heads,
        key=jax.random.key(training.seed),
        context=model.context,
        label_scale=model.label_scale,
    )
    return FromDiag(_chain(diag, task, training), gradients)


def _chain(model: LinearTransformer, task: LinearRegression, training: Training, **options) -> WarmChain:
    return WarmChain(
        model,
        task,
        **_search(training),
        objective=training.objective,
        sample=training.sample,
        pool=3 * training.sample,
        judge=min(_JUDGED[0] * training.sample, _JUDGED[1]),
        **options,
    )


def _search(training: Training) -> dict[str, Any]:
    """What second-order trainers have in common: where they start from."""
    return {name: getattr(training, name) for name in ("seed", "warm", "starts")}


def _available(devices: int) -> int:
    if devices > (found := jax.local_device_count()):
        raise ValueError(f"devices must be at most {found}, the devices of this host, got {devices}")
    return devices


class _Regrets:
    """The mean regrets of models, each on a fixed draw of its task, for reports.

    A model is judged by the same program whether others are judged beside it or not: rounding, too, is the same.
    """

    def __init__(self):
        self._examples: dict[tuple, Examples] = {}
        self._last: list[tuple[tuple, LinearTransformer, float]] = []
        self._together = jax.default_backend() != "cpu"

    def __call__(self, tasks: Sequence[LinearRegression], models: Sequence[LinearTransformer]) -> list[float]:
        for task in tasks:
            if task.identity not in self._examples:
                examples = draw_many(task, "bayes", jax.random.key(_REPORT_STREAM), _REPORT_SEQUENCES)
                self._examples[task.identity] = (
                    jax.tree.map(jnp.asarray, examples) if self._together else examples
                )
        examples = [self._examples[task.identity] for task in tasks]
        if self._together:
            losses = np.asarray(_all_losses(list(models), examples))
            return losses.mean(axis=1, dtype=np.float64).tolist()
        regrets = [
            self._known(task, model) or mean_loss(model, own)
            for task, model, own in zip(tasks, models, examples, strict=True)
        ]
        self._last = [
            (task.identity, model, regret) for task, model, regret in zip(tasks, models, regrets, strict=True)
        ]
        return regrets

    def _known(self, task: LinearRegression, model: LinearTransformer) -> float | None:
        """What this very model was found to have the last time."""
        same = (
            regret for identity, judged, regret in self._last if judged is model and identity == task.identity
        )
        return next(same, None)


@eqx.filter_jit
def _all_losses(models: list[LinearTransformer], examples: list[Examples]) -> Float[Array, "models N"]:
    """What every model loses on each of its examples."""
    arrays, pattern = eqx.partition(models[0], eqx.is_array)
    leaves = [jax.tree.leaves(eqx.filter(model, eqx.is_array)) for model in models]
    scales = jnp.stack([jnp.asarray(model.label_scale, leaves[0][0].dtype) for model in models])

    def loss(each):
        leaves, scale, examples = each
        model = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), pattern)
        return examples.losses(model.with_label_scale(scale).final_weights(examples.moments))

    together = jax.tree.map(lambda *each: jnp.stack(each), *zip(leaves, scales, examples, strict=True))
    return jax.vmap(loss)(together)


def _cast(model: LinearTransformer, precision: str) -> LinearTransformer:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), precision), model)
