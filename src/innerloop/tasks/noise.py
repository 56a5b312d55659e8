"""Laws of the noise level sigma, the standard deviation of the label noise, drawn once per sequence.

Each law can be sampled, integrated over (`quadrature`), and written as text: `fixed(1)`, `uniform(0,5)`,
`categorical(1,3,5)`.
"""

import difflib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from inspect import Parameter, signature
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

_FORMS = "fixed(s), uniform(a,b) or categorical(s1,s2,...)"


class NoiseLaw(ABC):
    """A probability law of sigma >= 0. To add one, make a frozen dataclass of its numbers and register it in `LAWS`.

    Compiled programs serve all laws of a kind, so `sample` and `quadrature` must take the numbers as they come: traced.
    """

    @abstractmethod
    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype=None) -> Float[Array, "..."]:
        """Independent draws of sigma, of the given shape."""

    @abstractmethod
    def quadrature(self, nodes: int) -> tuple[np.ndarray | Array, np.ndarray]:
        """Points `(m,)` and weights `(m,)`, summing to one, with which `E f(sigma) ~ sum_j weight_j f(point_j)`.

        Discrete laws ignore `nodes` and are exact.
        """

    @property
    @abstractmethod
    def maximum(self) -> float:
        """The largest sigma that the law can draw."""

    @property
    def second_moment(self) -> float:
        """E sigma^2."""
        points, weights = self.quadrature(32)
        return float(weights @ points**2)

    @abstractmethod
    def arguments(self) -> tuple[float, ...]:
        """The numbers inside the parentheses of the law's text form."""

    def strata(self, sigma: np.ndarray, most: int) -> tuple[np.ndarray, int]:
        """Which of several equally likely parts of the law each draw lies in, and how many there are, `most` at most."""
        return np.zeros(len(sigma), int), 1

    def with_arguments(self, arguments: Sequence[Any]) -> Self:
        """The law of this kind with other numbers, which may be traced and are not checked: for compiled programs that
        serve a whole family of laws."""
        law = object.__new__(type(self))
        for own, value in zip(fields(cast(Any, self)), arguments, strict=True):
            object.__setattr__(law, own.name, value)
        return law

    def __str__(self) -> str:
        for name, law in LAWS.items():
            if law is type(self):
                return f"{name}({','.join(_shortest(value) for value in self.arguments())})"
        own = type(self).__name__
        raise ValueError(f"{own} has no text form: register it, LAWS[{own.lower()!r}] = {own}")


@dataclass(frozen=True)
class Fixed(NoiseLaw):
    """Always the same `sigma`; `Fixed(0)` is noise-free regression."""

    sigma: float

    def __post_init__(self):
        _check_level("sigma", self.sigma)

    def sample(self, key, shape, dtype=None):
        return jnp.full(shape, self.sigma, dtype=dtype or float)

    def quadrature(self, nodes):
        return _array([self.sigma]), np.ones(1)

    @property
    def maximum(self):
        return float(self.sigma)

    def arguments(self):
        return (self.sigma,)


@dataclass(frozen=True)
class Uniform(NoiseLaw):
    """sigma uniform on `[low, high]`."""

    low: float
    high: float

    def __post_init__(self):
        _check_level("low", self.low)
        _check_level("high", self.high)
        if not self.low < self.high:
            raise ValueError(
                f"uniform noise needs low < high, got low={self.low:g}, high={self.high:g}; "
                f"for one level write fixed({self.low:g})"
            )

    def sample(self, key, shape, dtype=None):
        return jax.random.uniform(key, shape, dtype=dtype or float, minval=self.low, maxval=self.high)

    def quadrature(self, nodes):
        points, weights = np.polynomial.legendre.leggauss(nodes)
        return self.low + (self.high - self.low) * (points + 1) / 2, weights / 2

    def strata(self, sigma, most):
        share = (sigma - self.low) / (self.high - self.low) if self.high > self.low else np.zeros(len(sigma))
        return np.clip((share * most).astype(int), 0, most - 1), most

    @property
    def maximum(self):
        return float(self.high)

    def arguments(self):
        return (self.low, self.high)


@dataclass(frozen=True, init=False)
class Categorical(NoiseLaw):
    """sigma drawn from `values` with equal probability: `Categorical(1, 3, 5)`."""

    values: tuple[float, ...]

    def __init__(self, *values: float):
        if not values:
            raise ValueError("categorical noise needs at least one level, got none")
        for value in values:
            _check_level("level", value)
        if len(set(values)) < len(values):
            raise ValueError(f"categorical noise needs distinct levels, got {values}")
        object.__setattr__(self, "values", tuple(float(value) for value in values))

    def sample(self, key, shape, dtype=None):
        return jax.random.choice(key, jnp.asarray(_array(self.values), dtype=dtype or float), shape)

    def quadrature(self, nodes):
        return _array(self.values), np.full(len(self.values), 1 / len(self.values))

    def strata(self, sigma, most):
        if len(self.values) > most:
            return super().strata(sigma, most)
        return np.abs(sigma[:, None] - np.array(self.values)[None]).argmin(1), len(self.values)

    @property
    def maximum(self):
        return max(self.values)

    def arguments(self):
        return self.values

    def with_arguments(self, arguments):
        law = object.__new__(type(self))
        object.__setattr__(law, "values", tuple(arguments))
        return law


# Names are lower-case letters, digits and underscores. A package announces laws to every process, those of a study too, by
# entry points of the group "innerloop.noise_laws".
LAWS: dict[str, type[NoiseLaw]] = {"fixed": Fixed, "uniform": Uniform, "categorical": Categorical}
_OURS = tuple(LAWS)


def parse_noise(text: str) -> NoiseLaw:
    """The law written as `text`, the inverse of `str`.

    Raises:
        ValueError: `text` is not one of the known forms, or its numbers are not allowed.
    """
    match = re.fullmatch(r"\s*([a-z][a-z0-9_]*)\s*\(([^()]*)\)\s*", text.lower())
    law = None if match is None else _law(match[1])
    if match is None or law is None:
        raise ValueError(f"noise must be {_forms()}, got {text!r}{_meant(text)}")
    name, inside = match.groups()
    try:
        numbers = [float(part) for part in inside.split(",")]
    except ValueError:
        raise ValueError(
            f"noise must be {_forms()} with numbers inside, got {text!r}{_meant(text)}"
        ) from None
    parameters = signature(law).parameters.values()
    any_number = any(each.kind == Parameter.VAR_POSITIONAL for each in parameters)
    if len(numbers) != len(parameters) and not any_number:
        raise ValueError(f"{name} noise takes {len(parameters)} number(s), got {len(numbers)} in {text!r}")
    return law(*numbers)


def _law(name: str) -> type[NoiseLaw] | None:
    """The law of that name: registered here, or announced by an installed package."""
    if name not in LAWS:
        LAWS.update(
            {each.name: each.load() for each in entry_points(group="innerloop.noise_laws", name=name)}
        )
    return LAWS.get(name)


def _forms() -> str:
    """What a message says is allowed."""
    own = [
        f"{name}({','.join(signature(law).parameters)})" for name, law in LAWS.items() if name not in _OURS
    ]
    return ", ".join([_FORMS, *own])


def _meant(text: str) -> str:
    """The end of a message about a text that is no law: the one with these numbers whose name is like its first word."""
    word = re.match(r"\W*([a-z]*)", text.lower())
    name = word[1] if word else ""
    near = [law for law in LAWS if name and law.startswith(name)]
    near += difflib.get_close_matches(name, LAWS, n=1, cutoff=0.7) if name else ["fixed"]
    numbers = [float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)]
    for law in near:
        try:
            return f"; did you mean {LAWS[law](*numbers)}?"
        except (TypeError, ValueError):
            continue
    return ""


def _array(values: Sequence[Any]):
    """NumPy's, of numbers; JAX's, of traced ones."""
    return (
        jnp.stack(list(values))
        if any(isinstance(value, jax.Array) for value in values)
        else np.array(values, float)
    )


def _shortest(value: float) -> str:
    """All digits that it takes to read the number back, without a trailing .0."""
    return repr(float(value)).removesuffix(".0")


def _check_level(name: str, value: float) -> None:
    if isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"a noise {name} must be finite and >= 0 (it is a standard deviation), got {value:g}"
        )
