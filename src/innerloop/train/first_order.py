"""Adam and Muon on fresh sequences, one compiled scan per reporting interval, for one run or for many of one shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array, Float, Int, Key

from innerloop.models.linear import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train.objectives import Objective, draw
from innerloop.types import AnyArray

_GUARDS = 8  # a batch has an eighth as many sequences beyond the tail


@dataclass(frozen=True)
class FirstOrderState:
    """Where a run stands.

    Attributes:
        carry: the model, the optimiser's state, and the number of updates skipped because they were not finite.
        step: updates done.
    """

    carry: Any
    step: int = 0


@dataclass(frozen=True)
class FirstOrder:
    """Trains `model` by stochastic gradients; a trainer in the sense of `innerloop.train.loop`.

    The learning rate warms up over the first twentieth of the steps and falls along a cosine to a thousandth. Gradients
    are clipped to norm one. An update that is not finite is skipped and counted. The loss of a sequence that the model
    answers worse than by predicting zero is tempered: above `temper` times that loss it grows by its logarithm.

    Args:
        model: what to train; its parameters are the start.
        task: the problem.
        optimizer: "adam", or "muon" (Jordan 2024): momentum orthogonalised per matrix, the last two axes of each leaf.
        steps, batch, learning_rate: the budget.
        data_seed: batch i is a pure function of it and of i.
        temper: None switches tempering off.
        guard: weight of the loss on a few sequences whose labels are up to a third too large. A deep linear transformer is
            a polynomial of high degree, and without it one context in a million may meet a pole just beyond what training
            saw.
        devices: how many share each batch, equal parts of it, each part a stream of its own.
        interval: updates between reports.
    """

    model: LinearTransformer
    task: LinearRegression
    objective: Objective = "bayes"
    optimizer: Literal["adam", "muon"] = "adam"
    steps: int = 6000
    batch: int = 512
    learning_rate: float = 0.01
    data_seed: int = 0
    temper: float | None = 1.0
    guard: float = 0.0
    devices: int = 1
    interval: int = 100

    def start(self) -> FirstOrderState:
        return FirstOrderState(
            (self.model, self._transformation().init(_arrays(self.model)), jnp.zeros((), int))
        )

    def finished(self, state: FirstOrderState) -> bool:
        return state.step >= self.steps

    def progress(self, state: FirstOrderState) -> float:
        """Share of the work done, from 0 to 1."""
        return state.step / self.steps

    def current(self, state: FirstOrderState) -> LinearTransformer:
        return state.carry[0]

    def by_depth(self, state: FirstOrderState) -> dict[int, LinearTransformer]:
        return {self.model.layers: state.carry[0]}

    def advance(self, state: FirstOrderState) -> tuple[FirstOrderState, dict]:
        """The updates of one reporting interval."""
        return advance_together([self], [state])[0]

    def pack(self, state: FirstOrderState) -> dict[str, np.ndarray]:
        """The state as named arrays, for a checkpoint."""
        leaves = jax.tree.leaves(eqx.filter(state.carry, eqx.is_array))
        return {f"leaf_{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)} | {
            "step": np.array(state.step)
        }

    def unpack(self, arrays: dict[str, np.ndarray]) -> FirstOrderState:
        """The inverse of `pack`."""
        dynamic, static = eqx.partition(self.start().carry, eqx.is_array)
        structure = jax.tree.structure(dynamic)
        leaves = [jnp.asarray(arrays[f"leaf_{index}"]) for index in range(structure.num_leaves)]
        carry = eqx.combine(jax.tree.unflatten(structure, leaves), static)
        return FirstOrderState(carry, int(arrays["step"]))

    def _transformation(self) -> optax.GradientTransformation:
        return _update_rule(self.optimizer, self.steps)


def advance_together(
    trainers: Sequence[FirstOrder], states: Sequence[FirstOrderState]
) -> list[tuple[FirstOrderState, dict]]:
    """One reporting interval of several runs as one compiled program, every run as it would be alone.

    The runs may differ in parameters, seeds, learning rates, label scales and the numbers of their noise laws; all else,
    and the step at which they stand, must be the same.
    """
    first, step = trainers[0], states[0].step
    assert all(state.step == step for state in states)
    count = min(first.interval, first.steps - step)
    dtype = jax.tree.leaves(_arrays(first.model))[0].dtype
    parts = [eqx.partition(state.carry, eqx.is_array) for state in states]
    members = [
        _Member(
            leaves=jax.tree.leaves(dynamic),
            key=jax.random.key(trainer.data_seed),
            learning_rate=np.asarray(trainer.learning_rate, dtype),
            label_scale=np.asarray(trainer.model.label_scale, dtype),
            law=np.asarray(trainer.task.apart()[1], dtype),
        )
        for trainer, (dynamic, _) in zip(trainers, parts, strict=True)
    ]
    after, losses = _interval(
        members,
        jnp.asarray(len(members)),
        parts[0],
        first.task.apart()[0],
        jnp.arange(step, step + count),
        first._transformation(),
        first.objective,
        first.batch,
        _ceiling(first),
        first.guard,
        first.devices,
    )
    results = []
    for trainer, (dynamic, static), leaves, own in zip(
        trainers, parts, after, np.asarray(losses), strict=True
    ):
        carry = eqx.combine(jax.tree.unflatten(jax.tree.structure(dynamic), leaves), static)
        finite = own[np.isfinite(own)]
        row = {
            "phase": trainer.optimizer,
            "layers": trainer.model.layers,
            "loss": float(finite.mean()) if len(finite) else float("nan"),
            "skipped": int(carry[2]),
        }
        results.append((FirstOrderState(carry, step + count), row))
    return results


class _Member(eqx.Module):
    """What runs that train together differ in."""

    leaves: list[Array]
    key: Key[Array, ""]
    learning_rate: Float[AnyArray, ""]
    label_scale: Float[AnyArray, ""]
    law: Float[AnyArray, "numbers"]


def warm_cosine(steps: int) -> optax.Schedule:
    """From zero to one over a twentieth of the steps, and down to a thousandth as a cosine."""
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, steps // 20), max(2, steps), 1 / 1000)


@cache  # the same object each interval, or each interval would be compiled anew
def _update_rule(optimizer: str, steps: int) -> optax.GradientTransformation:
    """For a peak learning rate of one: updates are proportional to it."""
    schedule = warm_cosine(steps)
    if optimizer == "muon":
        rule = optax.contrib.muon(schedule, muon_weight_dimension_numbers=_last_two_axes)
    else:
        rule = optax.adam(schedule)
    return optax.chain(optax.clip_by_global_norm(1.0), rule)


def _arrays(model):
    return eqx.filter(model, eqx.is_inexact_array)


def _last_two_axes(parameters):
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(-2, -1), parameters)


@eqx.filter_jit
def _interval(
    members: list[_Member],
    many: Int[Array, ""],
    parts: tuple[Any, Any],
    task: LinearRegression,
    steps: Int[Array, "count"],
    transformation: optax.GradientTransformation,
    objective: Objective,
    batch: int,
    ceiling: Float[AnyArray, ""] | None,
    guard: float,
    devices: int,
):
    """The same `steps` of every member; returns the leaves of every new carry and the mean losses of every batch.

    `parts` is one member's carry in its arrays and the rest, as a pattern; `many` is how many members there are. What they
    differ in is put together and taken apart in here: outside, every array of every member would be a program of
    its own to start.
    """
    carried, static = jax.tree.structure(parts[0]), parts[1]
    together: _Member = jax.tree.map(lambda *each: jnp.stack(each), *members)
    dtype = together.learning_rate.dtype

    def run(member: _Member):
        own_task = task.with_numbers(member.law)

        def objective_value(model, examples, count: int):
            scaled = model.with_label_scale(member.label_scale)
            losses = examples.losses(scaled.final_weights(examples.moments))
            tempered = _tempered(losses, ceiling)
            value = tempered[:count].mean()
            if guard > 0:
                value = value + guard * tempered[count:].mean()
            return value, losses[:count].mean()

        def update(dynamic, step):
            model, optimizer_state, skipped = eqx.combine(dynamic, static)

            def part(model, key):
                count = batch // devices
                beyond = max(1, count // _GUARDS) if guard > 0 else 0
                examples = draw(own_task, objective, key, count + beyond, beyond=beyond, dtype=dtype)
                return eqx.filter_value_and_grad(objective_value, has_aux=True)(model, examples, count)

            key = jax.random.fold_in(member.key, step)
            (value, loss), gradient = part(model, key) if devices == 1 else _shared(part, model, key, devices)
            # Optax multiplies floats by whole-number counts, which a caller's strict promotion would refuse.
            with jax.numpy_dtype_promotion("standard"):
                updates, new_state = transformation.update(gradient, optimizer_state, _arrays(model))
                updates = jax.tree.map(lambda leaf: leaf * member.learning_rate, updates)
            new_model = eqx.apply_updates(model, updates)
            finite = jnp.stack(
                [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient))]
            ).all()
            new = (new_model, new_state, skipped)
            old = (model, optimizer_state, skipped + 1)
            chosen = jax.tree.map(
                lambda a, b: jnp.where(finite, a, b), *(eqx.filter(x, eqx.is_array) for x in (new, old))
            )
            return chosen, loss

        start = jax.tree.unflatten(carried, member.leaves)
        dynamic, losses = jax.lax.scan(update, start, steps)
        return jax.tree.leaves(dynamic), losses

    # On a CPU one run after another keeps a batch in cache; an accelerator wants all at once.
    if jax.default_backend() == "cpu":
        after, losses = _one_by_one(run, together, many)
    else:
        after, losses = jax.vmap(run)(together)
    return [[leaf[index] for leaf in after] for index in range(len(members))], losses


def _one_by_one(run: Callable, members, many: Int[Array, ""]):
    """`jax.lax.map(run, members)` in a loop whose length, `many`, the compiler does not know.

    It would write out a loop of one, and then a member alone would be rounded differently from the same beside others.
    """
    shapes = jax.eval_shape(run, jax.tree.map(lambda leaf: leaf[0], members))
    count = jax.tree.leaves(members)[0].shape[0]
    results = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), shapes)

    def body(index, results):
        member = jax.tree.map(lambda leaf: leaf[index], members)
        return jax.tree.map(lambda all, one: all.at[index].set(one), results, run(member))

    return jax.lax.fori_loop(0, many, body, results)


def _shared(part: Callable, model, key, devices: int):
    """The mean of what `part(model, key)` gives on each of several devices, each with a key of its own."""
    arrays, rest = eqx.partition(model, eqx.is_array)
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:devices]), ("batch",))

    def own(arrays, keys):
        return jax.lax.pmean(part(eqx.combine(arrays, rest), keys[0]), "batch")

    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("batch")
    run = jax.shard_map(own, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False)
    return run(arrays, jax.random.split(key, devices))


def _ceiling(trainer: FirstOrder) -> np.ndarray | None:
    """The loss of a sequence above which it is tempered: a multiple of that of predicting zero, `1/2 E <w, x>^2`."""
    null = trainer.task.signal_variance / 2
    if trainer.temper is None or null == 0:
        return None
    dtype = jax.tree.leaves(_arrays(trainer.model))[0].dtype
    return np.asarray(trainer.temper * null, dtype)


def _tempered(losses: Float[Array, "batch"], ceiling: Float[AnyArray, ""] | None) -> Float[Array, "batch"]:
    """The losses, those above the ceiling growing only by their logarithm."""
    if ceiling is None:
        return losses
    above = losses > ceiling
    return jnp.where(above, ceiling * (1 + jnp.log(jnp.where(above, losses / ceiling, 1))), losses)
