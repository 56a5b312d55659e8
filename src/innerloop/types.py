"""What the ground floor shares: a prompt, its sufficient statistics, and what a predictor is.

Both containers are pytrees. A sampler also hands over the latent variables that it drew (`weights`, `sigma`), which an
oracle or a test may use; data from elsewhere leaves them `None`.
"""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

# Samples to slice are kept in NumPy, samples to compute on in JAX; type checkers cannot say that they mix.
AnyArray = Any if TYPE_CHECKING else Array | np.ndarray


def _numbers(value: Any) -> Any:
    """Lists and whole numbers as an array of floating-point numbers; anything else as it is."""
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value, float)
        except ValueError as error:
            raise ValueError(f"a list must hold numbers, in rows of equal length: {error}") from None
    elif not (isinstance(value, np.ndarray | jax.Array) and np.issubdtype(value.dtype, np.integer)):
        return value
    return jnp.asarray(value, float)


class Moments(eqx.Module):
    """Sufficient statistics of a context: `S = sum_i e_i e_i^T` over the tokens `e_i = (x_i, y_i)`, and their number.

    Moments of two contexts add. `D = dim + 1`; the last row and column belong to y.

    Attributes:
        S: the plain sum, shape `(..., D, D)`: blocks Sigma (dim, dim), alpha (dim,) and lam ().
        n: how many examples were summed.
        weights: the regression weights that generated the labels, shape `(..., dim)`, if known.
        sigma: the standard deviation of the label noise, shape `(...)`, if known.

    Raises:
        ValueError: S is not square or smaller than 2 x 2, n is not a whole number >= 1, or a value is not finite.
    """

    S: Float[AnyArray, "*batch D D"] = eqx.field(converter=_numbers)
    n: int = eqx.field(static=True)
    weights: Float[AnyArray, "*batch dim"] | None = None
    sigma: Float[AnyArray, "*batch"] | None = None

    def __check_init__(self):
        if isinstance(self.n, bool) or not isinstance(self.n, int | np.integer) or self.n < 1:
            raise ValueError(f"n, the number of examples, must be a whole number >= 1, got {self.n!r}")
        shape = np.shape(self.S)
        if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < 2:
            raise ValueError(f"S must have shape (..., D, D) with D = dim + 1 >= 2, got {shape}")
        _check_finite(S=self.S)

    @property
    def dim(self) -> int:
        return self.S.shape[-1] - 1

    @property
    def gram(self) -> Float[AnyArray, "*batch dim dim"]:
        """Sigma = sum_i x_i x_i^T."""
        return self.S[..., :-1, :-1]

    @property
    def correlation(self) -> Float[AnyArray, "*batch dim"]:
        """alpha = sum_i y_i x_i."""
        return self.S[..., :-1, -1]

    @property
    def label_energy(self) -> Float[AnyArray, "*batch"]:
        """lam = sum_i y_i^2."""
        return self.S[..., -1, -1]


class Prompt(eqx.Module):
    """A context of labelled examples and a query.

    Attributes:
        x: inputs, shape `(..., n, dim)`.
        y: labels, shape `(..., n)`.
        query: the input to predict at, shape `(..., dim)`.
        label: the query's noise-free label, shape `(...)`, if known.
        weights, sigma: as in `Moments`.

    Raises:
        ValueError: the shapes do not fit together, a context is empty, or a value is not finite.
    """

    x: Float[Array, "*batch n dim"] = eqx.field(converter=_numbers)
    y: Float[Array, "*batch n"] = eqx.field(converter=_numbers)
    query: Float[Array, "*batch dim"] = eqx.field(converter=_numbers)
    label: Float[Array, "*batch"] | None = None
    weights: Float[Array, "*batch dim"] | None = None
    sigma: Float[Array, "*batch"] | None = None

    def __check_init__(self):
        x, y, query = (np.shape(array) for array in (self.x, self.y, self.query))
        if len(x) < 2 or 0 in x[-2:]:
            raise ValueError(f"x must have shape (..., n, dim) with n and dim >= 1, got {x}")
        if y != x[:-1]:
            raise ValueError(f"y must have shape (..., n) = {x[:-1]} beside x of shape {x}, got {y}")
        if query != (*x[:-2], x[-1]):
            raise ValueError(
                f"query must have shape (..., dim) = {(*x[:-2], x[-1])} beside x of shape {x}, got {query}"
            )
        _check_finite(x=self.x, y=self.y, query=self.query)

    @property
    def tokens(self) -> Float[Array, "*batch n D"]:
        """The context's tokens e_i = (x_i, y_i)."""
        return jnp.concatenate([self.x, self.y[..., None]], axis=-1)

    def moments(self) -> Moments:
        """The context's sufficient statistics; the query is not part of them."""
        tokens = self.tokens
        return Moments(
            S=jnp.einsum("...ni,...nj->...ij", tokens, tokens),
            n=self.x.shape[-2],
            weights=self.weights,
            sigma=self.sigma,
        )


def _check_finite(**arrays: AnyArray) -> None:
    for name, array in arrays.items():
        # What is being traced has no values yet.
        if not isinstance(array, Tracer) and not np.isfinite(np.asarray(array)).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")


def check_key(key: Any) -> None:
    """Raises ValueError if `key` is not one of JAX's: a seed, most often."""
    if not isinstance(key, jax.Array | np.ndarray):
        seed = key if isinstance(key, int) else 0
        raise ValueError(f"key must be a JAX key, such as jax.random.key({seed}), got {shown(key)}")


def check_moments(moments: Any) -> None:
    """Raises ValueError if they are none."""
    if not isinstance(moments, Moments):
        there = ": write prompt.moments()" if isinstance(moments, Prompt) else ""
        raise ValueError(f"moments must be Moments, got {shown(moments)}{there}")


def check_prompt(prompt: Any) -> None:
    """Raises ValueError if it is none."""
    if not isinstance(prompt, Prompt):
        there = ": implicit_weights reads them" if isinstance(prompt, Moments) else ""
        raise ValueError(f"prompt must be a Prompt, got {shown(prompt)}{there}")


def shown(value: Any) -> str:
    """What a message says of a value: a number or text as it is, an array's shape, the type of anything else."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}" if name[0].isupper() else name


@runtime_checkable
class Predictor(Protocol):
    """Anything that answers a prompt: a model, a classical estimator, the Bayes-optimal predictor.

    A predictor that is linear in the query also has `implicit_weights(moments)`, of shape `(..., dim)`; a linear
    transformer's has one more axis, `(..., layers + 1, dim)`, for the weights after every layer.
    """

    def predict(self, prompt: Prompt) -> Float[Array, "*batch"]: ...
