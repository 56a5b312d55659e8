"""Noisy linear regression in context: the problem of Vladymyrov et al. (2024), section 3."""

from abc import abstractmethod
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from innerloop import lanes
from innerloop.tasks.noise import NoiseLaw, parse_noise
from innerloop.tasks.posterior import Posterior
from innerloop.tasks.targets import bayes_in_lanes, judged_in_lanes, ridge_in_lanes
from innerloop.types import AnyArray, Moments, Prompt, check_key, shown


class LinearRegression(eqx.Module):
    """A distribution over linear regression problems with Gaussian inputs, weights and noise.

    Once per sequence `w ~ N(0, weight_covariance)` and `sigma ~ noise`; then `x_i ~ N(0, input_covariance)` and
    `y_i = <w, x_i> + sigma eps_i` for `i = 1..context`, and a query x whose noise-free label is `<w, x>`.

    Args:
        dim: number of features, d.
        context: number of examples in a prompt, n.
        noise: the law of sigma, or its text form such as `"uniform(0,5)"`.
        input_covariance, weight_covariance: `(dim, dim)`, symmetric positive semi-definite; identity if None.

    Raises:
        ValueError: a number is out of range, or a covariance has the wrong shape, is not symmetric or not
            positive semi-definite.
    """

    dim: int = eqx.field(static=True)
    context: int = eqx.field(static=True)
    noise: NoiseLaw = eqx.field(static=True)
    input_root: np.ndarray | None
    weight_root: np.ndarray | None

    def __init__(
        self,
        dim: int,
        context: int,
        noise: NoiseLaw | str,
        input_covariance: ArrayLike | None = None,
        weight_covariance: ArrayLike | None = None,
    ):
        self.dim = _whole_number("dim", dim)
        self.context = _whole_number("context", context)
        self.noise = parse_noise(noise) if isinstance(noise, str) else noise
        if not isinstance(self.noise, NoiseLaw):
            raise ValueError(
                f'noise must be a law of sigma or its text form, such as "uniform(0,5)", got {noise!r}'
            )
        self.input_root = _root("input_covariance", input_covariance, dim)
        self.weight_root = _root("weight_covariance", weight_covariance, dim)

    @property
    def signal_variance(self) -> float:
        """E <w, x>^2 = tr(input covariance x weight covariance)."""
        roots = [np.eye(self.dim) if root is None else root for root in (self.input_root, self.weight_root)]
        return float(np.sum((roots[0].T @ roots[1]) ** 2))

    @property
    def label_variance(self) -> float:
        """E y_i^2, the signal's variance and E sigma^2."""
        return self.signal_variance + self.noise.second_moment

    @property
    def summary(self) -> str:
        """The problem in a few words: "d = 10, n = 20, sigma ~ uniform(0,5)"."""
        given = {"inputs": self.input_root, "weights": self.weight_root}
        correlated = [f", {name} of a given covariance" for name, root in given.items() if root is not None]
        return f"d = {self.dim}, n = {self.context}, sigma ~ {self.noise}{''.join(correlated)}"

    @property
    def identity(self) -> tuple:
        """Equal for equal problems, and hashable; where covariances are being traced, equal for the same ones."""
        values = [getattr(self, field.name) for field in fields(self)]  # dim, context, noise, ..
        return (*map(_hashable, values), type(self))

    def with_noise(self, noise: NoiseLaw) -> "LinearRegression":
        """The same problem under another law of sigma."""
        other = object.__new__(type(self))
        for name, value in vars(self).items():
            object.__setattr__(other, name, noise if name == "noise" else value)
        return other

    def apart(self) -> tuple["LinearRegression", np.ndarray]:
        """The problem with zeros for the numbers of its noise law, and those numbers.

        A compiled program that takes the two as arguments, and puts them together by `with_numbers`, serves every law of a
        kind.
        """
        numbers = self.noise.arguments()
        kind = self.with_noise(self.noise.with_arguments([0.0] * len(numbers)))
        return kind, np.asarray(numbers, float)

    def with_numbers(self, numbers: Float[AnyArray, "numbers"]) -> "LinearRegression":
        """The problem with these numbers, which may be traced, in its noise law."""
        return self.with_noise(self.noise.with_arguments(list(jnp.asarray(numbers, float))))

    def isotropic_inputs(
        self, key: PRNGKeyArray, shape: tuple[int, ...], *, dtype=None
    ) -> Float[Array, "*shape dim"]:
        """Independent inputs with E x x^T = I, which `input_covariance` is then given to: standard normal ones."""
        return jax.random.normal(key, (*shape, self.dim), dtype or _default_dtype())

    def sample_prompts(
        self, key: PRNGKeyArray, batch: int, *, sigma: Float[Array, "batch"] | None = None, dtype=None
    ) -> Prompt:
        """`batch` prompts: x `(batch, context, dim)`, y `(batch, context)`, query `(batch, dim)`, and the latents.

        `sigma` sets the noise levels `(batch,)` instead of drawing them from the law.
        """
        check_key(key)
        batch = _whole_number("batch", batch)
        dtype = dtype or _default_dtype()
        key_weights, key_sigma, key_x, key_noise, key_query = jax.random.split(key, 5)
        weights = _times(self.weight_root, jax.random.normal(key_weights, (self.dim, batch), dtype)).T
        if sigma is None:
            sigma = self.noise.sample(key_sigma, (batch,), dtype)
        x = self._color(self.isotropic_inputs(key_x, (batch, self.context), dtype=dtype))
        query = self.sample_queries(key_query, batch, dtype=dtype)
        noise = sigma[:, None] * jax.random.normal(key_noise, (batch, self.context), dtype)
        return Prompt(
            x=x,
            y=jnp.einsum("bni,bi->bn", x, weights) + noise,
            query=query,
            label=jnp.einsum("bi,bi->b", query, weights),
            weights=weights,
            sigma=sigma,
        )

    def sample_moments(
        self, key: PRNGKeyArray, batch: int, *, sigma: Float[Array, "batch"] | None = None, dtype=None
    ) -> Moments:
        """Sufficient statistics of `batch` contexts, drawn without drawing the contexts: the cost does not depend on n.

        With z_i = (x_i, eps_i) standard normal, sum_i z_i z_i^T is Wishart with n degrees of freedom; its triangular
        factor has independent entries, chi on the diagonal and normal below (Bartlett 1933). For n < dim + 1 the
        factor has n columns. `sigma` sets the noise levels `(batch,)` instead of drawing them from the law.
        """
        check_key(key)
        batch = _whole_number("batch", batch)
        S, weights, sigma = self.sample_in_lanes(key, batch, sigma=sigma, dtype=dtype)
        return Moments(S=jnp.moveaxis(S, -1, 0), n=self.context, weights=weights.T, sigma=sigma)

    def sample_in_lanes(
        self, key: PRNGKeyArray, batch: int, *, sigma: Float[Array, "batch"] | None = None, dtype=None
    ) -> tuple[Float[Array, "D D batch"], Float[Array, "dim batch"], Float[Array, "batch"]]:
        """As `sample_moments`: S, weights and sigma, the last axis of each running over contexts."""
        dtype = dtype or _default_dtype()
        key_sigma, key_normal, key_chi = jax.random.split(key, 3)
        if sigma is None:
            sigma = self.noise.sample(key_sigma, (batch,), dtype)
        size = self.dim + 1
        columns = min(self.context, size)
        below = np.tril_indices(size, -1, columns)
        normal = jax.random.normal(key_normal, (self.dim + columns + len(below[0]), batch), dtype)
        weights, spare, normal = jnp.split(normal, [self.dim, self.dim + columns])
        chi = jnp.sqrt(_chi_squares(key_chi, spare, self.context - np.arange(columns)))
        # Where in (normal, chi, 0) each entry of the triangular factor comes from.
        place = np.full((size, columns), len(normal) + columns)
        place[below] = np.arange(len(normal))
        place[np.arange(columns), np.arange(columns)] = len(normal) + np.arange(columns)
        factor = jnp.concatenate([normal, chi, jnp.zeros_like(chi[:1])])[place]  # (D, columns, batch)
        weights, rows = _times(self.weight_root, weights), _times(self.input_root, factor[:-1])
        y_row = lanes.total(weights[i][None] * rows[i] for i in range(self.dim)) + sigma[None] * factor[-1]
        factor = jnp.concatenate([rows, y_row[None]])
        return lanes.product(factor, lanes.transpose(factor)), weights, sigma

    def targets_in_lanes(
        self, S: Float[Array, "D D lanes"], sigma: Float[Array, "lanes"] | None = None
    ) -> Float[Array, "dim lanes"]:
        """w_sigma of every context, or, without `sigma`, w_bayes; the last axis runs over contexts."""
        root = None if self.weight_root is None else jnp.asarray(self.weight_root, S.dtype)
        if self.context > self.dim:
            if sigma is None:
                return bayes_in_lanes(S, self.context, self.noise, root)
            return ridge_in_lanes(S, sigma, root)

        def target(S, sigma):
            posterior = self.posterior(Moments(S=S, n=self.context))
            return posterior.mean_and_spread()[0] if sigma is None else posterior.ridge(sigma)

        return jax.vmap(target, in_axes=(-1, -1 if sigma is not None else None), out_axes=-1)(S, sigma)

    def judged_in_lanes(
        self, S: Float[Array, "D D lanes"]
    ) -> tuple[
        Float[Array, "dim lanes"], Float[Array, "lanes"], Float[Array, "lanes"], Float[Array, "lanes"]
    ]:
        """What every context leaves to be lost: w_bayes, spread, oracle loss and rss, as `Posterior` has them."""
        if self.context > self.dim and self.input_root is None and self.weight_root is None:
            return judged_in_lanes(S, self.context, self.noise)

        def one(S):
            posterior = self.posterior(Moments(S=S, n=self.context))
            return *posterior.mean_and_spread(), posterior.oracle_loss(), posterior.rss

        return jax.vmap(one, in_axes=-1, out_axes=-1)(S)

    def sample_queries(self, key: PRNGKeyArray, batch: int, *, dtype=None) -> Float[Array, "batch dim"]:
        """Inputs to predict at, `(batch, dim)`."""
        check_key(key)
        batch = _whole_number("batch", batch)
        return self._color(self.isotropic_inputs(key, (batch,), dtype=dtype))

    def posterior(self, moments: Moments) -> Posterior:
        """What one context's `moments` say about the weights under this task's prior and noise law."""
        dtype = moments.S.dtype
        root = None if self.weight_root is None else jnp.asarray(self.weight_root, dtype)
        return Posterior.of(moments, self.noise, prior_root=root, query_root=self.query_root(dtype))

    def query_root(self, dtype) -> Float[Array, "dim dim"] | None:
        """Q with Q Q^T = the inputs' covariance; None for the identity."""
        return None if self.input_root is None else jnp.asarray(self.input_root, dtype)

    def half_square(self, deviation: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        """`1/2 E_x <deviation, x>^2` over queries x: the expected loss of weights that are off by `deviation`."""
        root = self.query_root(deviation.dtype)
        if root is not None:
            deviation = deviation @ root
        return 0.5 * (deviation**2).sum(-1)

    def _color(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        root = self.query_root(x.dtype)
        return x if root is None else x @ root.T


def check_task(task: Any) -> None:
    """Raises ValueError if `task` is no linear regression."""
    if not isinstance(task, LinearRegression):
        raise ValueError(f"task must be a LinearRegression, got {shown(task)}")


class OtherInputs(LinearRegression):
    """Linear regression whose inputs are not Gaussian: a base class, to be told how they are drawn.

    Weights and noise are as before, and the Bayes-optimal predictor conditions on the inputs: so the posterior, the oracle
    and the Bayes floor stay exact. Moments are summed over drawn examples, at a cost that grows with the context.
    """

    @abstractmethod
    def isotropic_inputs(
        self, key: PRNGKeyArray, shape: tuple[int, ...], *, dtype=None
    ) -> Float[Array, "*shape dim"]:
        """Independent inputs with E x x^T = I, on which the loss over queries rests."""

    def sample_in_lanes(self, key, batch, *, sigma=None, dtype=None):
        prompts = self.sample_prompts(key, batch, sigma=sigma, dtype=dtype)
        assert prompts.weights is not None and prompts.sigma is not None
        return jnp.moveaxis(prompts.moments().S, 0, -1), prompts.weights.T, prompts.sigma


def _hashable(value):
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return id(value) if isinstance(value, jax.Array) else value


def _times(
    root: Float[AnyArray, "dim dim"] | None, x: Float[Array, "dim *rest"]
) -> Float[Array, "dim *rest"]:
    return x if root is None else jnp.tensordot(jnp.asarray(root, x.dtype), x, 1)


def _chi_squares(
    key: PRNGKeyArray, normal: Float[Array, "k batch"], freedoms: np.ndarray
) -> Float[Array, "k batch"]:
    """Independent chi-square draws, one row for each of the `freedoms`, from standard `normal` ones and more."""
    if freedoms.max() > 64:
        shape = jnp.asarray(freedoms[:, None] / 2, normal.dtype)
        return 2 * jax.random.gamma(key, shape, normal.shape, normal.dtype)
    # Two squared normals are twice an exponential; few of those are faster to draw, and to compile, than a gamma. Their
    # sum is minus the logarithm of a product of uniforms; a product of eight does not underflow.
    ends = np.cumsum(freedoms // 2)
    uniform = 1 - jax.random.uniform(key, (int(ends[-1]), normal.shape[1]), normal.dtype)
    rows = []
    for row, (freedom, end) in enumerate(zip(freedoms, ends, strict=True)):
        parts = range(end - freedom // 2, end, 8)
        logs = [-2 * jnp.log(uniform[part : min(part + 8, end)].prod(0)) for part in parts]
        rows.append(lanes.total(logs + [normal[row] ** 2] * (freedom % 2)))
    return jnp.stack(rows)


def _default_dtype():
    return jnp.zeros(()).dtype


def _whole_number(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    return int(value)


def _root(name: str, covariance: ArrayLike | None, dim: int) -> np.ndarray | None:
    """A square root R, covariance = R R^T, that exists for singular covariances too."""
    if covariance is None:
        return None
    matrix = np.asarray(covariance, dtype=np.float64)
    if matrix.shape != (dim, dim):
        raise ValueError(f"{name} must have shape ({dim}, {dim}), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if not np.allclose(matrix, matrix.T, rtol=1e-6, atol=1e-9):
        raise ValueError(f"{name} must be symmetric")
    eigenvalues, vectors = np.linalg.eigh(matrix)
    if eigenvalues[0] < -1e-9 * max(abs(eigenvalues[-1]), 1):
        raise ValueError(f"{name} must be positive semi-definite, got an eigenvalue {eigenvalues[0]:.3g}")
    return vectors * np.sqrt(np.maximum(eigenvalues, 0))
