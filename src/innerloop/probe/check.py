"""What a check of a theorem gives, and the tokens that the checks compare."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, PRNGKeyArray

from innerloop.evaluation.losses import in_precision
from innerloop.models.linear import LinearTransformer
from innerloop.predictors.base import whole_number
from innerloop.tasks import LinearRegression
from innerloop.types import Prompt

# From prompts to all tokens after 0, 1, .. layers, `(..., layers + 1, n + 1, D)`, the query last.
TokenMap = Callable[[Prompt], Array]

_STREAM = 10
EXACT = 1e-8  # float64 rounds at 1e-16; a few layers of degree three and a sum over examples cost some digits


@dataclass(frozen=True)
class Check:
    """A theorem held against a model.

    Attributes:
        name: such as "Theorem 4.1".
        claim: what is claimed of the measured quantity, in a sentence.
        measured: the quantity, at its worst over all that was tried.
        bound: the largest value that agrees with the claim.
        data: all measurements, for a table or a figure.
    """

    name: str
    claim: str
    measured: float
    bound: float
    data: pl.DataFrame = field(repr=False)

    @property
    def verdict(self) -> bool:
        """Whether the claim holds. What is not finite does not."""
        return math.isfinite(self.measured) and self.measured <= self.bound


def token_map(model: LinearTransformer | TokenMap) -> TokenMap:
    """The model's token form in float64; anything else that makes tokens of prompts as it is."""
    return in_precision(model, "float64").tokens if isinstance(model, LinearTransformer) else model


def draw_prompts(task: LinearRegression, sequences: int, seed: int) -> Prompt:
    """The prompts of a check: a pure function of the seed, on a stream of their own."""
    whole_number("sequences", sequences, at_least=1)
    return _sampled(task, check_key(seed), sequences)


def check_key(seed: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.key(seed), _STREAM)


@eqx.filter_jit
def _sampled(task: LinearRegression, key: PRNGKeyArray, sequences: int) -> Prompt:
    return task.sample_prompts(key, sequences, dtype=jnp.float64)


def run_tokens(tokens: TokenMap, prompts: Prompt) -> np.ndarray:
    """The tokens after every layer, `(..., layers + 1, n + 1, D)`.

    Raises:
        ValueError: `tokens` gives another shape.
    """
    found = np.asarray(eqx.filter_jit(tokens)(prompts), np.float64)
    *batch, n, dim = prompts.x.shape
    if (
        found.ndim != len(batch) + 3
        or found.shape[:-3] != tuple(batch)
        or found.shape[-2:] != (n + 1, dim + 1)
    ):
        wanted = ", ".join([*map(str, batch), "layers + 1", str(n + 1), str(dim + 1)])
        raise ValueError(f"the tokens of these prompts must have shape ({wanted}), got {found.shape}")
    return found


def token_errors(actual: np.ndarray, expected: np.ndarray) -> pl.DataFrame:
    """The largest errors of tokens `(sequences, layers + 1, n + 1, D)`, for context and query, for x and y.

    Relative to the largest entry that the sequence's tokens have had up to the layer, in x or in y.

    Returns:
        Columns layer, tokens, coordinates, error.
    """
    rows = []
    # A model that blows up has tokens that are not finite: the errors say so.
    with np.errstate(invalid="ignore", over="ignore"):
        for coordinates, block in (("x", np.s_[:-1]), ("y", np.s_[-1:])):
            largest = np.abs(actual[..., block]).max(axis=(-2, -1))
            scale = np.maximum.accumulate(largest, axis=1)[..., None, None]
            error = np.abs(actual[..., block] - expected[..., block]) / scale
            for tokens, part in (("context", np.s_[:-1]), ("query", np.s_[-1:])):
                worst = error[:, :, part].max(axis=(0, 2, 3))
                rows += [
                    {"layer": layer, "tokens": tokens, "coordinates": coordinates, "error": float(value)}
                    for layer, value in enumerate(worst)
                ]
    return pl.DataFrame(rows).sort("layer", maintain_order=True)


def worst(values: pl.Series) -> float:
    """The largest value, which is not finite if any is not."""
    return float(np.max(values.to_numpy()))


def check_dim(model: LinearTransformer | TokenMap, task: LinearRegression) -> None:
    if isinstance(model, LinearTransformer) and model.dim != task.dim:
        raise ValueError(f"the model has dim {model.dim}, the task has dim {task.dim}")
