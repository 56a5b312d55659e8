"""Iterative solvers of the normal equations `Sigma w = alpha`, stopped after a few steps from w = 0."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from innerloop.predictors.base import WeightPredictor, finite_number, whole_number
from innerloop.predictors.tuning import TuningSample
from innerloop.tasks import LinearRegression
from innerloop.types import Moments


class GradientDescent(WeightPredictor):
    """Gradient descent on the mean squared error, `w <- w + step_size (alpha - Sigma w) / n`, from w = 0.

    Args:
        task: the task.
        steps: how many, >= 1.
        step_size: in units of Sigma / n, finite and > 0; tuned to the task if None.
        seed: of the tuning sample, >= 0.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = eqx.field(static=True)
    step_size: float = eqx.field(static=True)

    def __init__(self, task: LinearRegression, steps: int, step_size: float | None = None, seed: int = 0):
        self.task = task
        self.steps = whole_number("steps", steps, at_least=1)
        self._tuned = ("step_size",) if step_size is None else ()
        self.step_size, _ = _constants(task, self.steps, step_size, 0.0, seed)

    def _weights(self, moments):
        return _heavy_ball_weights(moments, self.steps, self.step_size, 0.0)


class HeavyBall(WeightPredictor):
    """Gradient descent with momentum (Polyak 1964), from w_0 = w_{-1} = 0:

        w_{t+1} = w_t + step_size (alpha - Sigma w_t) / n + momentum (w_t - w_{t-1})

    Args:
        task: the task.
        steps: how many, >= 1.
        step_size: in units of Sigma / n, finite and > 0; tuned to the task if None.
        momentum: in [0, 1); tuned to the task if None, and then 0 for one step, where it has no effect.
        seed: of the tuning sample, >= 0.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = eqx.field(static=True)
    step_size: float = eqx.field(static=True)
    momentum: float = eqx.field(static=True)

    def __init__(
        self,
        task: LinearRegression,
        steps: int,
        step_size: float | None = None,
        momentum: float | None = None,
        seed: int = 0,
    ):
        self.task = task
        self.steps = whole_number("steps", steps, at_least=1)
        given = {"step_size": step_size, "momentum": momentum}
        self._tuned = tuple(name for name, value in given.items() if value is None)
        self.step_size, self.momentum = _constants(task, self.steps, step_size, momentum, seed)

    def _weights(self, moments):
        return _heavy_ball_weights(moments, self.steps, self.step_size, self.momentum)


class ConjugateGradient(WeightPredictor):
    """Conjugate gradient with exact line steps on `Sigma w = alpha`, from w = 0 (Hestenes and Stiefel 1952).

    After dim steps it is least squares, up to rounding; where it gets there earlier it stays.

    Args:
        task: the task.
        steps: how many, >= 1.

    Raises:
        ValueError: steps is not a whole number >= 1.
    """

    steps: int = eqx.field(static=True)

    def __init__(self, task: LinearRegression, steps: int):
        self.task = task
        self.steps = whole_number("steps", steps, at_least=1)

    def _weights(self, moments):
        return _conjugate_gradient(moments.gram, moments.correlation, self.steps)


class _Spectrum(eqx.Module):
    """Sigma / n = V diag(values) V^T and projections V^T alpha / n: there, a step is elementwise."""

    vectors: Float[Array, "dim dim"]
    values: Float[Array, "dim"]
    projections: Float[Array, "dim"]

    @classmethod
    def of(cls, moments: Moments) -> "_Spectrum":
        values, vectors = jnp.linalg.eigh(moments.gram / moments.n)
        return cls(vectors, values, vectors.T @ moments.correlation / moments.n)

    def heavy_ball(self, step_size, momentum, *, steps: int) -> Float[Array, "dim"]:
        return self.vectors @ _heavy_ball(
            lambda u: self.values * u, self.projections, steps, step_size, momentum
        )


def _heavy_ball(
    apply: Callable, start: Float[Array, "dim"], steps: int, step_size, momentum
) -> Float[Array, "dim"]:
    """Heavy-ball steps from 0 towards the solution of `apply(w) = start`."""

    def step(_, state):
        w, before = state
        return w + step_size * (start - apply(w)) + momentum * (w - before), w

    return jax.lax.fori_loop(0, steps, step, (jnp.zeros_like(start),) * 2)[0]


# Jitted, as is the next: outside jit, a loop over a closure would be compiled anew in every call.
@partial(jax.jit, static_argnames="steps")
def _heavy_ball_weights(
    moments: Moments, steps: int, step_size: ArrayLike, momentum: ArrayLike
) -> Float[Array, "dim"]:
    gram, start = moments.gram / moments.n, moments.correlation / moments.n
    return _heavy_ball(lambda w: gram @ w, start, steps, step_size, momentum)


@partial(jax.jit, static_argnames="steps")
def _conjugate_gradient(
    gram: Float[Array, "dim dim"], start: Float[Array, "dim"], steps: int
) -> Float[Array, "dim"]:
    # A residual below rounding has no direction left to follow.
    rounding = jnp.finfo(start.dtype).eps ** 2 * (start @ start)

    def step(_, state):
        w, residual, direction, size = state
        image = gram @ direction
        curvature = direction @ image
        going = (size > rounding) & (curvature > 0)
        length = jnp.where(going, size / jnp.where(going, curvature, 1), 0)
        residual = residual - length * image
        new_size = residual @ residual
        turn = jnp.where(going, new_size / jnp.where(going, size, 1), 0)
        return w + length * direction, residual, residual + turn * direction, new_size

    state = (jnp.zeros_like(start), start, start, start @ start)
    return jax.lax.fori_loop(0, steps, step, state)[0]


def _constants(
    task: LinearRegression, steps: int, step_size: float | None, momentum: float | None, seed: int
) -> tuple[float, float]:
    """Step size and momentum, checked where given and tuned where None."""
    if step_size is not None:
        step_size = finite_number("step_size", step_size, above=0)
    if momentum is not None:
        momentum = finite_number("momentum", momentum, at_least=0, below=1)
    elif steps == 1:
        momentum = 0.0
    if step_size is not None and momentum is not None:
        return step_size, momentum
    with jax.enable_x64(True):
        sample = TuningSample.draw(task, seed)
        spectra = _spectra(sample.moments)
        # Each of many steps is a little larger than the best single one, or smaller by `steps`, or between.
        sizes = _best_single_step(sample) * np.geomspace(1 / (8 * steps), 8, 7 + 2 * int(np.log2(steps)))
        grids = {
            "step_size": sizes if step_size is None else np.array([step_size]),
            "momentum": np.linspace(0, 0.98, 8) if momentum is None else np.array([momentum]),
        }
        best = sample.minimise(eqx.Partial(_Spectrum.heavy_ball, steps=steps), spectra, grids)
    return best["step_size"], best["momentum"]


@eqx.filter_jit
def _spectra(moments: Moments) -> _Spectrum:
    return jax.lax.map(_Spectrum.of, moments, batch_size=512)


def _best_single_step(sample: TuningSample) -> float:
    """The size of least regret of a single step along g = alpha / n: `E <g, w_bayes> / E <g, g>`."""
    gradient, target = sample.moments.correlation / sample.moments.n, sample.target
    root = sample.task.query_root(gradient.dtype)
    if root is not None:
        gradient, target = gradient @ root, target @ root
    step = float((gradient * target).mean() / (gradient**2).mean())
    return step if np.isfinite(step) and step > 0 else 1.0
