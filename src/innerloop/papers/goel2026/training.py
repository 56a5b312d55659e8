"""The paper's training to the letter: all seeds of one architecture and depth as one compiled program.

On a CPU they take turns in it, so that products stay those of one model; an accelerator takes them together.

What the two architectures do not share (learning rate, batch, steps, final LayerNorm, activation, initial values) is as in
the public code, so their curves show what was published, not which attention is better on equal terms.
Losses are squared errors divided by dim, so that predicting zero loses one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
from jaxtyping import Array, Float, Int, Key

from innerloop import lanes
from innerloop.evaluation.convergence import samples_to
from innerloop.models.decoder import CausalDecoder
from innerloop.papers.goel2026.data import DIM, POINTS, Sequences, anisotropic, pool
from innerloop.papers.goel2026.published import published

Architecture = Literal["linear", "quadratic"]
Precision = Literal["float32", "tensorfloat32"]

LOSS_SCALE = "squared error / dim"
_BLOCK = 1000  # test sequences that are evaluated at once
_INIT, _DATA = 0, 1  # streams of a seed
_ORDER = ["quadratic-3", "linear-6", "quadratic-6", "quadratic-1", "linear-3", "linear-1"]


@dataclass(frozen=True)
class Program:
    """One architecture and depth of the paper's grid, with its settings.

    Args:
        architecture: "linear" or "quadratic" (softmax) attention.
        layers: depth.
        steps, learning_rate, batch: Adam's.
        options: those of `CausalDecoder`.
    """

    architecture: Architecture
    layers: int
    steps: int
    learning_rate: float
    batch: int
    options: dict[str, Any]

    @classmethod
    def as_published(cls, architecture: Architecture, layers: int) -> "Program":
        """The settings of the public code.

        Raises:
            ValueError: the paper has no such architecture or depth.
        """
        if architecture not in get_args(Architecture):
            raise ValueError(f"architecture must be linear or quadratic, got {architecture!r}")
        protocol = published()["protocol"]
        own = protocol[architecture]
        if str(layers) not in own["steps"]:
            raise ValueError(f"layers must be one of {', '.join(own['steps'])}, got {layers!r}")
        options = {key: protocol[name] for key, name in _SHARED.items()} | _OPTIONS[architecture]
        return cls(architecture, layers, own["steps"][str(layers)], own["lr"], own["batch"], options)

    @property
    def name(self) -> str:
        """As in `linear-6`."""
        return f"{self.architecture}-{self.layers}"

    def model(self, key: Key[Array, ""], **changes) -> CausalDecoder:
        """An initial model, with other options where `changes` says so."""
        return CausalDecoder(DIM, POINTS, self.layers, **{**self.options, **changes}, key=key)


_SHARED = {"width": "embedding", "heads": "heads", "mlp_ratio": "mlp_ratio"}
_OPTIONS: dict[Architecture, dict[str, Any]] = {
    "linear": {
        "mixers": "linear",
        "feature_map": "relu2",
        "activation": "gelu",
        "final_layer_norm": False,
        "init": "torch",
    },
    "quadratic": {"mixers": "softmax", "activation": "gelu_tanh", "final_layer_norm": True, "init": "gpt2"},
}


def grid() -> list[Program]:
    """All architectures and depths, those first whose published numbers say most."""
    names = [name.split("-") for name in _ORDER]
    return [Program.as_published(architecture, int(layers)) for architecture, layers in names]  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Trained:
    """What the training of one program gave.

    Attributes:
        losses: a row for each architecture, layers, seed, step, sequences_seen, set, position (from 0), with the loss.
            `isotropic` and `anisotropic` are the two test sets; `batches` is the training loss, the mean over the batches
            since the last evaluation.
        models: the trained models, with a leading axis of seeds in every leaf.
        parameters: how many numbers one model learns.
        compile_seconds, run_seconds: wall time.
    """

    losses: pl.DataFrame
    models: CausalDecoder
    parameters: int
    compile_seconds: float
    run_seconds: float

    def last_point(self, set: str = "isotropic") -> pl.DataFrame:
        """The last point's loss, the paper's measure: columns seed, step, sequences_seen, loss, in order of the steps."""
        last = pl.col("position") == pl.col("position").max()
        chosen = self.losses.filter(last).filter(pl.col("set") == set)
        return chosen.select("seed", "step", "sequences_seen", "loss")

    def samples_to(self, fraction: float = 0.9) -> pl.DataFrame:
        """Sequences seen until the last point's test loss has covered `fraction` of its way: columns seed, sequences.

        See `innerloop.evaluation.convergence.samples_to`.
        """
        curves = self.last_point().partition_by("seed", maintain_order=True)
        seen = curves[0]["sequences_seen"].to_numpy()
        losses = np.stack([curve["loss"].to_numpy() for curve in curves])
        found = samples_to(seen, losses, fraction)
        return pl.DataFrame({"seed": [curve["seed"][0] for curve in curves], "sequences": found})


def train(
    program: Program,
    *,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    every: int | None = None,
    precision: Precision = "float32",
    progress: Callable[[int, Float[np.ndarray, "seeds"]], None] | None = None,
    **changes,
) -> Trained:
    """Train `program` with every seed, side by side in one compiled program, with no stop between two evaluations.

    The seed sets the initial values and the order of the data. Batches are drawn uniformly, with replacement, from the
    pool's first 16 000 sequences; the loss is the mean over a batch and all 10 positions; Adam, after the gradient is
    clipped to norm one.

    Args:
        seeds: the paper's five if None.
        steps: other than the program's, for a try; a multiple of the interval is run, at least `steps`.
        every: steps between evaluations, the paper's 500 if None.
        precision: of matrix products where the device has a choice: "float32", or "tensorfloat32", faster and with 10 bits.
        progress: called after every evaluation with the step and the last point's test loss of every seed.
        **changes: options of `CausalDecoder` other than the program's.

    Raises:
        ValueError: a number is out of range, or the precision is unknown.
    """
    protocol = published()["protocol"]
    seeds = protocol["seeds"] if seeds is None else list(seeds)
    steps = program.steps if steps is None else steps
    every = protocol["eval_every_steps"] if every is None else every
    if not seeds or steps < 1 or every < 1:
        raise ValueError(f"seeds, steps and every must be at least one, got {seeds}, {steps}, {every}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be float32 or tensorfloat32, got {precision!r}")
    every = min(every, steps)

    train_set, test_set = pool().split()
    training = Arrays.of(train_set)
    tests = {"isotropic": Arrays.of(test_set), "anisotropic": Arrays.of(anisotropic())}
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(program.learning_rate))

    began = time.perf_counter()
    with jax.default_matmul_precision(precision):
        models, states = jax.jit(partial(_start, program, optimizer, changes))(keys)
        judge = jax.jit(_test_losses).lower(models, tests).compile()
        run = jax.jit(partial(_interval, optimizer, program.batch, every), donate_argnums=(0, 1))
        interval = run.lower(models, states, keys, jnp.asarray(0), training).compile()
    compiled = time.perf_counter()

    tables = [_table(program, seeds, 0, judge(models, tests))]
    for step in range(0, steps, every):
        models, states, batches = interval(models, states, keys, jnp.asarray(step), training)
        found = judge(models, tests)
        tables.append(_table(program, seeds, step + every, {**found, "batches": batches}))
        if progress is not None:
            progress(step + every, np.asarray(found["isotropic"])[:, -1])
    run_seconds = time.perf_counter() - compiled
    count = models.parameter_count() // len(seeds)
    return Trained(pl.concat(tables), models, count, compiled - began, run_seconds)


class Arrays(NamedTuple):
    """Sequences in the precision of training, on the device."""

    xs: Float[Array, "sequences points dim"]
    ys: Float[Array, "sequences points"]

    @classmethod
    def of(cls, sequences: Sequences) -> "Arrays":
        return cls(jnp.asarray(sequences.X, float), jnp.asarray(sequences.y, float))


_Losses = Float[Array, "seeds points"]


def _start(
    program: Program, optimizer: optax.GradientTransformation, changes: dict, keys: Key[Array, "seeds"]
) -> tuple[CausalDecoder, optax.OptState]:
    """Models and states of the optimiser, with a leading axis of seeds."""
    models = jax.vmap(lambda key: program.model(jax.random.fold_in(key, _INIT), **changes))(keys)
    return models, jax.vmap(optimizer.init)(eqx.filter(models, eqx.is_array))


def _interval(
    optimizer: optax.GradientTransformation,
    batch: int,
    count: int,
    models: CausalDecoder,
    states: optax.OptState,
    keys: Key[Array, "seeds"],
    first: Int[Array, ""],
    training: Arrays,
) -> tuple[CausalDecoder, optax.OptState, _Losses]:
    """`count` updates of every seed from step `first`, and the mean loss of their batches at every position."""

    def one_seed(model: CausalDecoder, state: optax.OptState, key: Key[Array, ""]):
        stream = jax.random.fold_in(key, _DATA)

        def update(carry, step: Int[Array, ""]):
            model, state = carry
            chosen = jax.random.randint(jax.random.fold_in(stream, step), (batch,), 0, len(training.xs))
            drawn = Arrays(training.xs[chosen], training.ys[chosen])

            def loss(model: CausalDecoder):
                by_position = losses_by_position(model, drawn)
                return by_position.mean(), by_position

            grads, by_position = jax.grad(loss, has_aux=True)(model)
            with jax.numpy_dtype_promotion("standard"):  # Optax counts steps in integers
                updates, state = optimizer.update(grads, state, model)
            return (eqx.apply_updates(model, updates), state), by_position

        (model, state), losses = jax.lax.scan(update, (model, state), first + jnp.arange(count))
        return model, state, losses.mean(0)

    return lanes.each(one_seed, models, states, keys)


def losses_by_position(model: CausalDecoder, sequences: Arrays) -> Float[Array, "points"]:
    """The mean squared error / dim at every position."""
    errors = jnp.square(model(sequences.xs, sequences.ys) - sequences.ys) / model.dim
    return errors.mean(0)


def _test_losses(models: CausalDecoder, tests: dict[str, Arrays]) -> dict[str, _Losses]:
    """Of all sets by one program, a block after the other."""
    whole = [jnp.concatenate(arrays) for arrays in zip(*tests.values(), strict=True)]
    blocks = Arrays(*(array.reshape(-1, _BLOCK, *array.shape[1:]) for array in whole))

    def judged(block: Arrays) -> _Losses:
        return lanes.each(lambda model: losses_by_position(model, block), models)

    losses = jax.lax.map(judged, blocks)
    ends = np.cumsum([len(sequences.xs) // _BLOCK for sequences in tests.values()])
    return {name: part.mean(0) for name, part in zip(tests, jnp.split(losses, ends[:-1]), strict=True)}


def _table(program: Program, seeds: Sequence[int], step: int, losses: dict[str, _Losses]) -> pl.DataFrame:
    """The rows of one evaluation."""
    shape = (len(losses), len(seeds), POINTS)
    sets, members, positions = (axis.ravel() for axis in np.indices(shape))
    values = np.stack([np.asarray(each, np.float32) for each in losses.values()])
    return pl.DataFrame(
        {
            "architecture": np.full(len(sets), program.architecture),
            "layers": np.full(len(sets), program.layers, np.int32),
            "seed": np.asarray(seeds, np.int64)[members],
            "step": np.full(len(sets), step, np.int32),
            "sequences_seen": np.full(len(sets), step * program.batch, np.int64),
            "set": np.asarray(list(losses))[sets],
            "position": positions.astype(np.int32),
            "loss": values.ravel(),
        }
    )
