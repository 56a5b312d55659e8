"""Attention on equal terms: one stream of sequences, one batch, as many samples and the same LayerNorms for every mixer.

What is published differs between the two architectures in learning rate, batch, steps and final LayerNorm, and trains on a
pool of 16 000 sequences. Here an `Arm` says what is compared and a `Setting` what all have in common; each arm's learning
rate is chosen from the grid of the setting by the loss on a validation stream (`choose`). Losses are squared errors divided
by dim, so that predicting zero loses one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
from jaxtyping import Array, Float, Int, Key

from innerloop import lanes
from innerloop.models.decoder import CausalDecoder
from innerloop.models.mixers import FeatureMap
from innerloop.papers.goel2026.data import DIM, POINTS, VARIANCES, pool
from innerloop.papers.goel2026.training import Arrays, losses_by_position
from innerloop.train.first_order import warm_cosine

Optimizer = Literal["adam", "muon"]
Data = Literal["fresh", "pool"]

# Streams of a seed, and, under seed 0, of what is judged on.
_INIT, _DATA, _VALIDATION, _TEST = 0, 1, 2, 3
_BLOCK = 1024
_WATCHED = 2  # the sets of every evaluation: validation and test
_CLIP = 1.0
_ADAM_SHARE = 0.1  # of Muon's learning rate: for what it leaves to Adam, all that is not a layer's matrix


@dataclass(frozen=True)
class Arm:
    """What is compared: how tokens are mixed, and how that is trained.

    Args:
        mixers: as `CausalDecoder` takes them: "softmax", "linear", or a hybrid such as "softmax,linear,linear".
        optimizer: "adam", or "muon" for the layers' matrices with Adam for the rest.
        feature_map: of linear attention.
        final_layer_norm: whether tokens are normalised before the prediction is read.
        data: "fresh" sequences in every batch, or batches from the published "pool" of 16 000.
        layers: depth, where it is not the setting's.

    Raises:
        ValueError: the optimiser or the data are unknown, or there is no layer.
    """

    mixers: str
    optimizer: Optimizer = "adam"
    feature_map: FeatureMap = "relu2"
    final_layer_norm: bool = True
    data: Data = "fresh"
    layers: int | None = None

    def __post_init__(self):
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers!r}")
        for name, choices in (("optimizer", Optimizer), ("data", Data)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


@dataclass(frozen=True)
class Setting:
    """What all arms have in common.

    Args:
        layers, width, heads: of the decoder, with biases, tanh-GELU and GPT-2's initial values.
        steps, batch: of training; the learning rate warms up over a twentieth of it and falls to a thousandth as a cosine.
        every: steps between evaluations.
        judged: sequences in the validation set, the test set and each of its shifts; a multiple of 1024.
        rates: the grid of peak learning rates of each optimiser.

    Raises:
        ValueError: a number is less than one, or `judged` is no multiple of 1024.
    """

    layers: int = 3
    width: int = 64
    heads: int = 4
    steps: int = 3000
    batch: int = 64
    every: int = 250
    judged: int = 4096
    rates: tuple[tuple[Optimizer, tuple[float, ...]], ...] = (
        ("adam", (3e-4, 1e-3, 3e-3)),
        ("muon", (3e-3, 1e-2, 3e-2)),
    )

    def __post_init__(self):
        for name in ("layers", "width", "heads", "steps", "batch", "every"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if self.judged < _BLOCK or self.judged % _BLOCK:
            raise ValueError(f"judged must be a multiple of {_BLOCK}, got {self.judged!r}")

    def grid(self, optimizer: Optimizer) -> tuple[float, ...]:
        """The learning rates to choose from."""
        return dict(self.rates)[optimizer]

    def depth(self, arm: Arm) -> int:
        """Layers of the arm's decoder."""
        return arm.layers or self.layers

    def model(self, arm: Arm, key: Key[Array, ""]) -> CausalDecoder:
        """An initial model."""
        return CausalDecoder(
            DIM,
            POINTS,
            self.depth(arm),
            mixers=arm.mixers,
            width=self.width,
            heads=self.heads,
            feature_map=arm.feature_map,
            final_layer_norm=arm.final_layer_norm,
            key=key,
        )


@dataclass(frozen=True)
class Contestants:
    """Runs of one arm.

    Attributes:
        losses: a row for each learning_rate, seed, step, sequences_seen, set, position (from 0), with the loss: on
            "validation" and "test" at every evaluation, and after the last step on every shift of `shifts` too.
        models: the trained models, with a leading axis of runs: every seed of the first learning rate, then of the next.
        parameters: how many numbers one model learns.
    """

    losses: pl.DataFrame
    models: CausalDecoder
    parameters: int


class Shift(NamedTuple):
    """How a test set differs from what is trained on: standard deviations of inputs and weights, and noise on labels."""

    inputs: tuple[float, ...] = (1.0,) * DIM
    weights: tuple[float, ...] = (1.0,) * DIM
    noise: float = 0.0


_ROOTS = tuple(float(root) for root in np.sqrt(VARIANCES))
shifts: dict[str, Shift] = {
    "test": Shift(),
    "weights": Shift(weights=_ROOTS),
    "covariates": Shift(inputs=_ROOTS),
    "larger weights": Shift(weights=(2.0,) * DIM),
    "noise": Shift(noise=0.5),
}
"""Test sets by name; labels are judged without their noise. A shorter context is an earlier position of "test"."""


def train_arm(
    arm: Arm,
    setting: Setting,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> Contestants:
    """Train every seed with every learning rate.

    A seed sets the initial values and the stream of data, the same for every arm and learning rate. On a CPU runs take
    turns; on an accelerator they are one batch.

    Args:
        progress: called after every evaluation with the step.

    Raises:
        ValueError: there is no seed or no rate.
    """
    if not seeds or not rates:
        raise ValueError(f"rates and seeds must not be empty, got {list(rates)} and {list(seeds)}")
    members = [(rate, seed) for rate in rates for seed in seeds]
    # On a CPU runs take turns: their products stay large, and any number of them runs one compiled program.
    turns = [[member] for member in members] if jax.default_backend() == "cpu" else [members]
    trained = [_train_together(arm, setting, turn, progress) for turn in turns]
    models = _joined([models for _, models in trained])
    count = models.parameter_count() // len(members)
    return Contestants(pl.concat([table for table, _ in trained]), models, count)


# Compiled whole: a leaf at a time each would be a program of its own.
@jax.jit
def _joined(models: list[CausalDecoder]) -> CausalDecoder:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *models)


@partial(jax.jit, static_argnums=1)
def one_of(models, index: int):
    """The model at this place of the leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], models)


def _train_together(
    arm: Arm,
    setting: Setting,
    members: Sequence[tuple[float, int]],
    progress: Callable[[int], None] | None,
) -> tuple[pl.DataFrame, CausalDecoder]:
    """Losses and trained models of some learning rates and seeds."""
    keys = jax.vmap(jax.random.key)(jnp.asarray([seed for _, seed in members]))
    peaks = jnp.asarray([rate for rate, _ in members], float)
    sets = ["validation", *shifts], _judged_on(setting.judged)
    watched = sets[0][:_WATCHED], jax.tree.map(lambda leaf: leaf[:_WATCHED], sets[1])
    training = Arrays.of(pool().split()[0]) if arm.data == "pool" else None
    start, run, judge = _programs(arm, setting)
    models, states = start(keys)
    tables = [_table(arm, setting, members, 0, watched[0], judge(models, watched[1]))]
    for first in range(0, setting.steps, setting.every):
        steps = jnp.arange(first, min(first + setting.every, setting.steps))
        models, states = run(models, states, keys, peaks, steps, training)
        step = int(steps[-1]) + 1
        names, judged_on = sets if step == setting.steps else watched
        tables.append(_table(arm, setting, members, step, names, judge(models, judged_on)))
        if progress is not None:
            progress(step)
    return pl.concat(tables), models


@lru_cache(maxsize=4)
def _programs(arm: Arm, setting: Setting) -> tuple[Callable, Callable, Callable]:
    """Initial models and states, some steps, and the judge of an arm: compiled once for all of its runs."""
    rule = _rule(arm.optimizer, setting.steps)
    return (
        jax.jit(partial(_start, arm, setting, rule)),
        jax.jit(partial(_interval, arm, setting, rule), donate_argnums=(0, 1)),
        jax.jit(_judged),
    )


def initial_model(arm: Arm, setting: Setting, seed: int) -> CausalDecoder:
    """What `train_arm` starts from."""
    models, _ = _programs(arm, setting)[0](jax.random.key(seed)[None])
    return one_of(models, 0)


def judged_sequences(
    count: int,
) -> tuple[Float[Array, "blocks block points dim"], Float[Array, "blocks block points"]]:
    """So many of the set "test", inputs and labels."""
    sets = _judged_on(count)
    return sets.xs[1], sets.ys[1]


def choose(losses: pl.DataFrame) -> float:
    """The learning rate of the least mean validation loss at the last point after training, over seeds.

    A run whose loss is not finite counts as the worst.

    Raises:
        ValueError: there are no losses on "validation".
    """
    means = last_validation(losses)
    return min(means, key=lambda rate: (means[rate], rate))


def last_validation(losses: pl.DataFrame) -> dict[float, float]:
    """The mean validation loss at the last point after training, over seeds, of every learning rate; errors as above."""
    last = losses.filter(
        (pl.col("set") == "validation") & (pl.col("position") == POINTS - 1) & (pl.col("step") > 0)
    )
    if last.is_empty():
        raise ValueError("losses must hold rows of the set 'validation' after training, got none")
    last = last.filter(pl.col("step") == last["step"].max())
    loss = pl.col("loss").cast(pl.Float64)
    means = last.group_by("learning_rate").agg(pl.when(loss.is_finite()).then(loss).otherwise(np.inf).mean())
    return dict(means.select("learning_rate", "loss").iter_rows())


def _rule(optimizer: Optimizer, steps: int) -> optax.GradientTransformation:
    """For a peak learning rate of one: updates are proportional to it."""
    schedule = warm_cosine(steps)
    if optimizer == "adam":
        rule = optax.adam(schedule)
    else:
        rule = optax.contrib.muon(
            schedule,
            adam_learning_rate=lambda count: _ADAM_SHARE * schedule(count),
            muon_weight_dimension_numbers=_layers_matrices,
        )
    return optax.chain(optax.clip_by_global_norm(_CLIP), rule)


def _layers_matrices(parameters):
    """Which parameters Muon orthogonalises."""
    rest = jax.tree.map(lambda _: None, parameters)
    blocks = jax.tree.map(
        lambda leaf: optax.contrib.MuonDimensionNumbers(0, 1) if leaf.ndim == 2 else None, parameters.blocks
    )
    return eqx.tree_at(lambda model: model.blocks, rest, blocks, is_leaf=lambda leaf: leaf is None)


def _start(
    arm: Arm, setting: Setting, rule: optax.GradientTransformation, keys: Key[Array, "runs"]
) -> tuple[CausalDecoder, optax.OptState]:
    """Models and states of the optimiser, with a leading axis of runs."""
    models = jax.vmap(lambda key: setting.model(arm, jax.random.fold_in(key, _INIT)))(keys)
    return models, jax.vmap(rule.init)(eqx.filter(models, eqx.is_array))


def _interval(
    arm: Arm,
    setting: Setting,
    rule: optax.GradientTransformation,
    models: CausalDecoder,
    states: optax.OptState,
    keys: Key[Array, "runs"],
    peaks: Float[Array, "runs"],
    steps: Int[Array, "count"],
    training: Arrays | None,
) -> tuple[CausalDecoder, optax.OptState]:
    """These steps of every run."""

    def one(member):
        model, state, key, peak = member
        stream = jax.random.fold_in(key, _DATA)

        def update(carry, step: Int[Array, ""]):
            model, state = carry
            drawn = _batch(jax.random.fold_in(stream, step), setting.batch, training)
            grads = jax.grad(lambda model: losses_by_position(model, drawn).mean())(model)
            with jax.numpy_dtype_promotion("standard"):  # Optax counts steps in integers
                updates, state = rule.update(grads, state, model)
                updates = jax.tree.map(lambda leaf: leaf * peak, updates)
            return (eqx.apply_updates(model, updates), state), None

        return jax.lax.scan(update, (model, state), steps)[0]

    members = (models, states, keys, peaks)
    if len(peaks) > 1:
        return jax.vmap(one)(members)
    alone = one(jax.tree.map(lambda leaf: leaf[0], members))
    return jax.tree.map(lambda leaf: leaf[None], alone)


def _batch(key: Key[Array, ""], batch: int, training: Arrays | None) -> Arrays:
    if training is None:
        return _drawn(key, batch, Shift())[0]
    chosen = jax.random.randint(key, (batch,), 0, len(training.xs))
    return Arrays(training.xs[chosen], training.ys[chosen])


def _drawn(key: Key[Array, ""], count: int, shift: Shift) -> tuple[Arrays, Float[Array, "count points"]]:
    """Sequences, and their labels without noise."""
    # One draw that is cut up: a program compiles as many generators as it has draws, each for longer than all else here.
    normal = jax.random.normal(key, (count, POINTS * DIM + DIM + POINTS))
    xs, weights, noise = jnp.split(normal, (POINTS * DIM, POINTS * DIM + DIM), axis=1)
    xs = xs.reshape(count, POINTS, DIM) * jnp.asarray(shift.inputs)[None, None]
    clean = jnp.einsum("spd,sd->sp", xs, weights * jnp.asarray(shift.weights)[None])
    return Arrays(xs, clean + shift.noise * noise), clean


class _Judged(NamedTuple):
    """Sequences to be judged on, in blocks; several sets have a leading axis."""

    xs: Float[Array, "*sets block points dim"]
    ys: Float[Array, "*sets block points"]
    clean: Float[Array, "*sets block points"]


@lru_cache(maxsize=1)
def _judged_on(count: int) -> _Judged:
    """The validation set, the test set and its shifts, so many sequences each."""
    return jax.jit(_all_sets, static_argnums=0)(count)


def _all_sets(count: int) -> _Judged:
    sets = [(_VALIDATION, Shift()), *((_TEST, shift) for shift in shifts.values())]
    streams, differing = jax.tree.map(lambda *leaves: jnp.asarray(leaves), *sets)
    return jax.lax.map(partial(_sequences, count), (streams, differing))


def _sequences(count: int, drawn_as: tuple[Int[Array, ""], Shift]) -> _Judged:
    """One set: the same inputs, weights and noise under every shift, but for their scales."""
    stream, shift = drawn_as
    arrays, clean = _drawn(jax.random.fold_in(jax.random.key(0), stream), count, shift)
    return _Judged(*(array.reshape(-1, _BLOCK, *array.shape[1:]) for array in (*arrays, clean)))


def _judged(models: CausalDecoder, sets: _Judged) -> Float[Array, "sets runs points"]:
    """The mean squared error / dim at every position, of every run on every set."""

    def by(judged: _Judged, model: CausalDecoder) -> Float[Array, "points"]:
        def block(part: _Judged) -> Float[Array, "points"]:
            return jnp.square(model(part.xs, part.ys) - part.clean).mean(0) / model.dim

        return jax.lax.map(block, judged).mean(0)

    return jax.lax.map(lambda judged: lanes.each(partial(by, judged), models), sets)


def _table(
    arm: Arm,
    setting: Setting,
    members: Sequence[tuple[float, int]],
    step: int,
    names: Sequence[str],
    losses: Float[Array, "sets runs points"],
) -> pl.DataFrame:
    """The rows of one evaluation."""
    sets, runs, positions = (axis.ravel() for axis in np.indices(losses.shape))
    rates, seeds = (np.array(each) for each in zip(*members, strict=True))
    values = np.asarray(losses, np.float32)
    return pl.DataFrame(
        {
            "mixers": np.full(len(sets), arm.mixers),
            "optimizer": np.full(len(sets), arm.optimizer),
            "feature_map": np.full(len(sets), arm.feature_map),
            "final_layer_norm": np.full(len(sets), arm.final_layer_norm),
            "data": np.full(len(sets), arm.data),
            "layers": np.full(len(sets), setting.depth(arm), np.int64),
            "learning_rate": rates[runs],
            "seed": seeds[runs].astype(np.int64),
            "step": np.full(len(sets), step, np.int32),
            "sequences_seen": np.full(len(sets), step * setting.batch, np.int64),
            "set": np.asarray(names)[sets],
            "position": positions.astype(np.int32),
            "loss": values.ravel(),
        }
    )
