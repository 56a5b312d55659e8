"""What all predictors share: they map a context's moments to weights, and predict `<weights, query>`."""

import math
from abc import abstractmethod
from collections.abc import Iterable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from innerloop.tasks import LinearRegression, Posterior
from innerloop.types import Moments, Prompt, check_moments, check_prompt


class WeightPredictor(eqx.Module):
    """A predictor that is linear in the query: a kind gives the weights for one context, this batches it.

    To add a kind, subclass this and define `_weights`, of the moments of one context.

    Constants of a kind are Python floats, fixed when it is made. As with every Equinox module, compile one by
    `eqx.filter_jit(predictor.predict)`, or inside a function that closes over the predictor.

    Attributes:
        task: the distribution over problems that the predictor is made for.
    """

    task: LinearRegression
    _tuned: tuple[str, ...] = eqx.field(static=True, init=False, default=())

    @property
    def tuned(self) -> dict[str, float]:
        """The constants that were tuned to the task, by name; empty where nothing is tuned."""
        return {name: getattr(self, name) for name in self._tuned}

    @abstractmethod
    def _weights(self, moments: Moments) -> Float[Array, "dim"]:
        """The weights for one context."""

    def implicit_weights(self, moments: Moments) -> Float[Array, "*batch dim"]:
        """The weights w with which the prediction is `<w, query>`, for moments with any leading axes.

        Raises:
            ValueError: the moments are of another dimension than the task, or lack what the kind needs.
        """
        check_moments(moments)
        if moments.dim != self.task.dim:
            raise ValueError(f"the task has dim {self.task.dim}, the data has dim {moments.dim}")
        weights = self._weights
        for _ in range(moments.S.ndim - 2):
            weights = jax.vmap(weights)
        return weights(Moments(S=moments.S, n=moments.n, sigma=moments.sigma))

    def predict(self, prompt: Prompt) -> Float[Array, "*batch"]:
        """The prediction at the query; errors as for `implicit_weights`."""
        check_prompt(prompt)
        return (self.implicit_weights(prompt.moments()) * prompt.query).sum(-1)


class PosteriorPredictor(WeightPredictor):
    """A predictor whose weights follow from the task's posterior, which several can share."""

    @abstractmethod
    def _given(self, posterior: Posterior, moments: Moments) -> Float[Array, "dim"]:
        """The weights for one context whose posterior is known."""

    def _weights(self, moments):
        return self._given(self.task.posterior(moments), moments)


def weights_of_all(
    predictors: Iterable, moments: Moments
) -> list[Float[Array, "dim"] | Float[Array, "depths dim"]]:
    """What `implicit_weights` of each predictor says of one context; the posterior of a task is computed once."""
    posteriors: dict[tuple, Posterior] = {}

    def given(predictor):
        if not isinstance(predictor, PosteriorPredictor) or moments.dim != predictor.task.dim:
            return predictor.implicit_weights(moments)  # which checks the dimension
        name = predictor.task.identity
        if name not in posteriors:
            posteriors[name] = predictor.task.posterior(moments)
        return predictor._given(posteriors[name], moments)

    return [given(predictor) for predictor in predictors]


def finite_number(
    name: str, value: float, *, at_least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> float:
    """`value` as a Python float, if it is a finite number within the bounds.

    Raises:
        ValueError: it is not.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and at_least <= value and above < value < below):
        bounds = ((">=", at_least), (">", above), ("<", below))
        allowed = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound))
        raise ValueError(f"{name} must be a finite number {allowed}, got {value!r}")
    return float(value)


def whole_number(name: str, value: int, *, at_least: int) -> int:
    """`value` as a Python int, if it is a whole number that is large enough.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name} must be a whole number >= {at_least}, got {value!r}")
    return int(value)
