"""Adam and Muon on fresh sequences, one compiled scan per reporting interval."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array, Float, Int, PRNGKeyArray

from innerloop.models.linear import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train.objectives import Objective, draw


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
        task: the problem; batch i is a pure function of (seed, i).
        optimizer: "adam", or "muon" (Jordan 2024): momentum orthogonalised per matrix, the last two axes of each leaf.
        steps, batch, learning_rate: the budget.
        temper: None switches tempering off.
        interval: updates between reports.
    """

    model: LinearTransformer
    task: LinearRegression
    objective: Objective = "bayes"
    optimizer: Literal["adam", "muon"] = "adam"
    steps: int = 6000
    batch: int = 512
    learning_rate: float = 0.01
    seed: int = 0
    temper: float | None = 1.0
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
        count = min(self.interval, self.steps - state.step)
        carry, losses = _interval(
            state.carry,
            self.task,
            jax.random.key(self.seed),
            jnp.arange(state.step, state.step + count),
            self._transformation(),
            self.objective,
            self.batch,
            self.temper,
        )
        losses = np.asarray(losses)
        finite = losses[np.isfinite(losses)]
        row = {
            "phase": self.optimizer,
            "layers": self.model.layers,
            "loss": float(finite.mean()) if len(finite) else float("nan"),
            "skipped": int(carry[2]),
        }
        return replace(state, carry=carry, step=state.step + count), row

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
        return _update_rule(self.optimizer, self.learning_rate, self.steps)


@cache  # the same object each interval, or each interval would be compiled anew
def _update_rule(optimizer: str, learning_rate: float, steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(1, steps // 20), max(2, steps), learning_rate / 1000
    )

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
    carry,
    task: LinearRegression,
    key: PRNGKeyArray,
    steps: Int[Array, "count"],
    transformation: optax.GradientTransformation,
    objective: Objective,
    batch: int,
    temper: float | None,
):
    """`count` updates; returns the new carry and the mean loss of every batch."""
    dynamic, static = eqx.partition(carry, eqx.is_array)
    dtype = jax.tree.leaves(_arrays(carry[0]))[0].dtype
    ceiling = None if temper is None else temper * _null_loss(task)

    def objective_value(model, examples):
        losses = examples.losses(jax.vmap(model._final_weights)(examples.moments.S))
        return _tempered(losses, ceiling).mean(), losses.mean()

    def update(dynamic, step):
        model, optimizer_state, skipped = eqx.combine(dynamic, static)
        examples = draw(task, objective, jax.random.fold_in(key, step), batch, dtype=dtype)
        (value, loss), gradient = eqx.filter_value_and_grad(objective_value, has_aux=True)(model, examples)
        # Optax multiplies floats by whole-number counts, which a caller's strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, new_state = transformation.update(gradient, optimizer_state, _arrays(model))
        new_model = eqx.apply_updates(model, updates)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient))]).all()
        new = (new_model, new_state, skipped)
        old = (model, optimizer_state, skipped + 1)
        chosen = jax.tree.map(
            lambda a, b: jnp.where(finite, a, b), *(eqx.filter(x, eqx.is_array) for x in (new, old))
        )
        return chosen, loss

    dynamic, losses = jax.lax.scan(update, dynamic, steps)
    return eqx.combine(dynamic, static), losses


def _null_loss(task: LinearRegression) -> float:
    """The loss of predicting zero, `1/2 E <w, x>^2`."""
    return (task.label_variance - task.noise.second_moment) / 2


def _tempered(losses: Float[Array, "batch"], ceiling: float | None) -> Float[Array, "batch"]:
    """The losses, those above the ceiling growing only by their logarithm."""
    if ceiling is None or ceiling == 0:
        return losses
    above = losses > ceiling
    return jnp.where(above, ceiling * (1 + jnp.log(jnp.where(above, losses / ceiling, 1))), losses)
