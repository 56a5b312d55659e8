"""GD++ solved as what it is: a filter of the least-squares solution, a polynomial in the eigenvalues of the inputs.

Let lambda and c be an eigenvalue of X X^T / n and the component of X y^T / n along its eigenvector. A layer of GD++ with
flows a = w_xx and b = w_yx multiplies what is left of the labels there by 1 + b lambda, and lambda itself by
(1 + a lambda)^2. After all layers the implicit weights are (1 - rho) c / lambda, where rho, the product of the first
factors, is a polynomial in lambda alone. So with isotropic Gaussian inputs, whose eigenvalues have a known density, the
expected loss is an integral over lambda, and training is a weighted least-squares fit of one function of one variable:
nothing is drawn, and it is minimised from hundreds of starts in seconds. The best of all functions of lambda, which is
ridge with the mean of sigma^2, is a floor that GD++ of no depth passes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.models.linear import GDPlusPlus, LinearTransformer
from innerloop.tasks import LinearRegression, OtherInputs, wishart_eigenvalues

_LEVELS = 256  # of sigma
_SCREENED, _LEFT = 16, 4  # iterations after which one start in so many goes on
_ROUNDS, _PARENTS = 5, 8  # of moving the best, as many at a time as are left, and going on from there
_MOVES = (0.03, 0.1, 0.3)  # by how much each number is moved, in units of itself
_TRIALS = (0.1, 1.0, 10.0, 100.0)  # of the damping, side by side
_NUDGE = 1e-3  # of what a new idle layer is set to, by the scale of its eigenvalues
_STARTS = 32  # cold starts for each that is asked for


_Points = tuple[Float[Array, "points"], Float[Array, "points"], Float[Array, "points"]]


class Spectrum(NamedTuple):
    """The loss of GD++ above ridge as a quadrature: `1/2 sum weights (1 - rho(eigenvalues) - targets)^2 + floor`.

    That ridge knows each sequence's sigma, and takes weights for isotropic, with their variance: where they are, this is
    the adjusted loss.

    Attributes:
        eigenvalues: of X X^T / n, increasing, `(points,)`.
        weights: what the squared least-squares solution along them is in the mean, times how many there are.
        targets: the share of that solution which is best kept, that of ridge with the mean of sigma^2.
        floor: what no function of the eigenvalue alone can avoid.
    """

    eigenvalues: Float[np.ndarray, "points"]
    weights: Float[np.ndarray, "points"]
    targets: Float[np.ndarray, "points"]
    floor: float

    @classmethod
    def of(cls, task: LinearRegression, tail: float = 0.0) -> "Spectrum":
        """Of the eigenvalues of this task's inputs, without `tail` of a sequence's at either end; the floor is of all.

        Raises:
            ValueError: the inputs are not isotropic and Gaussian, `dim` and `context` are both above 200, or `tail` is
                negative or 0.1 and more.
        """
        if task.input_root is not None or isinstance(task, OtherInputs):
            kind = "other inputs" if task.input_root is None else "an input_covariance"
            raise ValueError(f"optimizer spectral is for isotropic Gaussian inputs, got a task with {kind}")
        everywhere = wishart_eigenvalues(task.dim, task.context)
        signal = task.signal_variance / task.dim  # squared weights along any direction

        def ridge(eigenvalues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            solution = signal + task.noise.second_moment / (task.context * eigenvalues)
            return solution, signal / solution

        sigmas, shares = (np.asarray(each) for each in task.noise.quadrature(_LEVELS))
        oracle = signal / (signal + sigmas**2 / (task.context * everywhere.values[:, None])) @ shares
        floor = signal * everywhere.counts @ (oracle - ridge(everywhere.values)[1]) / 2
        inner = wishart_eigenvalues(task.dim, task.context, tail=tail)
        solution, targets = ridge(inner.values)
        return cls(inner.values, inner.counts * solution, targets, float(floor))


def left_over(w: Float[Array, "layers 2"], eigenvalues: Float[Array, "points"]) -> Float[Array, "points"]:
    """rho: the share of the least-squares solution that GD++ with flows `w`, w_xx and w_yx of each layer, leaves out."""

    def layer(carry, flows):
        rho, current = carry
        return (rho * (1 + flows[1] * current), current * (1 + flows[0] * current) ** 2), None

    return jax.lax.scan(layer, (jnp.ones_like(eigenvalues), eigenvalues), w)[0][0]


@dataclass(frozen=True)
class SpectralState:
    """The models of the depths that are solved, in order."""

    solved: tuple[GDPlusPlus, ...] = ()


@dataclass(frozen=True)
class Spectral:
    """Trains GD++ of every depth up to the model's; a trainer in the sense of `innerloop.train.loop`.

    Each depth is solved by Levenberg-Marquardt from many cold starts, whose layers are as large as the eigenvalues that
    reach them call for, and from the depth before with an idle layer at any place. The best are moved at random and go on
    from there, several times (basin hopping; Wales and Doye 1997): from five layers on there are many minima, and starts
    alone rarely end in the least.

    Args:
        model: the sizes and the depth; its parameters are not used.
        task: the problem, with isotropic Gaussian inputs.
        seed: of the starts.
        warm: solve all depths from 1, else only the model's own.
        starts: so many times 32 cold starts a depth.
        tail: so many of a sequence's eigenvalues, in the mean, are out of sight at either end. The largest decide where a
            deep filter breaks: with 1e-6 about one sequence in a million meets that pole. With 0 the integral is over all,
            and ruled by eigenvalues that no sequence will have. The smallest carry the mean where there is no noise.
        steps: iterations of what the first few leave over, twice that for the best.

    Raises:
        ValueError: the inputs are not isotropic and Gaussian, `dim` and `context` are both above 200, or `tail` is
            negative or 0.1 and more.
    """

    model: GDPlusPlus
    task: LinearRegression
    seed: int = 0
    warm: bool = True
    starts: int = 4
    tail: float = 1e-6
    steps: int = 60

    def __post_init__(self):
        _ = self.spectrum  # which raises

    def start(self) -> SpectralState:
        return SpectralState()

    def finished(self, state: SpectralState) -> bool:
        return bool(state.solved) and state.solved[-1].layers == self.model.layers

    def progress(self, state: SpectralState) -> float:
        """Share of the work done, from 0 to 1."""
        return sum(model.layers for model in state.solved) / sum(self._depths())

    def current(self, state: SpectralState) -> GDPlusPlus:
        return state.solved[-1] if state.solved else self.model

    def by_depth(self, state: SpectralState) -> dict[int, LinearTransformer]:
        """The solved model of every depth."""
        return {model.layers: model for model in state.solved}

    def advance(self, state: SpectralState) -> tuple[SpectralState, dict]:
        """The next depth; its loss is that of `Spectrum`, whatever the objective of other trainers."""
        layers = self._depths()[len(state.solved)]
        rng = np.random.default_rng([self.seed, layers])
        begun = [self._cold(layers, rng) for _ in range(_STARTS * self.starts)]
        if state.solved:
            begun += self._inserted(np.asarray(state.solved[-1].w, np.float64), rng)
        screened, _ = self._improved(np.stack([self._padded(w) for w in begun]), layers, _SCREENED)
        followed, losses = self._improved(screened[: -(-len(begun) // _LEFT)], layers, self.steps)
        for _ in range(_ROUNDS):
            moved, lost = self._improved(_moved(followed, rng), layers, self.steps)
            best = np.argsort(np.concatenate([losses, lost]), kind="stable")[: len(followed)]
            followed, losses = np.concatenate([followed, moved])[best], np.concatenate([losses, lost])[best]
        best, losses = self._improved(followed[:1], layers, 2 * self.steps)
        model = replace(self.model, w=jnp.asarray(best[0, :layers], self.model.w.dtype))
        loss = float(losses[0]) + self.spectrum.floor
        return SpectralState((*state.solved, model)), {"phase": "solve", "layers": layers, "loss": loss}

    def pack(self, state: SpectralState) -> dict[str, np.ndarray]:
        """The state as named arrays, for a checkpoint."""
        return {f"solved_{model.layers}": np.asarray(model.w) for model in state.solved}

    def unpack(self, arrays: dict[str, np.ndarray]) -> SpectralState:
        """The inverse of `pack`."""
        found = (arrays[f"solved_{depth}"] for depth in self._depths() if f"solved_{depth}" in arrays)
        return SpectralState(tuple(replace(self.model, w=jnp.asarray(w)) for w in found))

    @cached_property
    def spectrum(self) -> Spectrum:
        """The objective."""
        return Spectrum.of(self.task, self.tail)

    def _points(self) -> _Points:
        eigenvalues, weights, targets = (jnp.asarray(each, float) for each in self.spectrum[:3])
        return eigenvalues, weights, targets

    def _depths(self) -> range:
        return range(1 if self.warm else self.model.layers, self.model.layers + 1)

    def _cold(self, layers: int, rng: np.random.Generator) -> Float[np.ndarray, "layers 2"]:
        """Random flows, as large as the largest eigenvalues before each layer call for."""
        current, w = self.spectrum.eigenvalues, np.empty((layers, 2))
        for place in range(layers):
            largest = self._largest(current)
            w[place] = rng.uniform(-1.5, 0.8) / largest, -rng.uniform(0.5, 1.9) / largest
            current = _mapped(current, w[place, 0])
        return w

    def _inserted(self, w: Float[np.ndarray, "before 2"], rng: np.random.Generator) -> list[np.ndarray]:
        """The depth before with a layer at any place that does hardly anything."""
        current, found = self.spectrum.eigenvalues, []
        for place in range(len(w) + 1):
            found.append(np.insert(w, place, _NUDGE * rng.normal(size=2) / self._largest(current), axis=0))
            if place < len(w):
                current = _mapped(current, w[place, 0])
        return found

    def _largest(self, current: Float[np.ndarray, "points"]) -> float:
        """Beyond which, of what layers have made of the eigenvalues, a tenth of the solution lies."""
        order = np.argsort(np.abs(current))
        share = self.spectrum.weights[order].cumsum()
        return float(np.abs(current)[order][np.searchsorted(share, 0.9 * share[-1])])

    def _padded(self, w: Float[np.ndarray, "layers 2"]) -> Float[np.ndarray, "deepest 2"]:
        """With idle layers up to the model's depth, so that all depths run one compiled program."""
        return np.pad(w, [(0, self.model.layers - len(w)), (0, 0)])

    def _improved(
        self, candidates: Float[np.ndarray, "starts deepest 2"], layers: int, steps: int
    ) -> tuple[Float[np.ndarray, "starts deepest 2"], Float[np.ndarray, "starts"]]:
        """After so many iterations, the best first, and what they lose above the floor."""
        free = np.zeros(candidates.shape[1:], bool)
        free[:layers] = True
        free[layers - 1, 0] = False  # eigenvalues after the last layer are of no use
        found, losses = _iterated(
            self._points(), jnp.asarray(candidates, float), jnp.asarray(free.ravel()), jnp.asarray(steps)
        )
        order = np.argsort(np.asarray(losses), kind="stable")
        return np.asarray(found)[order], np.asarray(losses)[order]


def _moved(
    candidates: Float[np.ndarray, "starts layers 2"], rng: np.random.Generator
) -> Float[np.ndarray, "starts layers 2"]:
    """As many as there are, near the best of them, which come first."""
    parents = candidates[rng.integers(min(_PARENTS, len(candidates)), size=len(candidates))]
    sizes = rng.choice(_MOVES, size=(len(parents), 1, 1))
    return parents * (1 + sizes * rng.normal(size=parents.shape))


def _mapped(eigenvalues: np.ndarray, flow: float) -> np.ndarray:
    """After a layer with this w_xx; infinite where random ones break."""
    with np.errstate(over="ignore"):
        return eigenvalues * (1 + flow * eigenvalues) ** 2


def _residuals(points: _Points, w: Float[Array, "layers 2"]) -> Float[Array, "points"]:
    eigenvalues, weights, targets = points
    return jnp.sqrt(weights) * (1 - targets - left_over(w, eigenvalues))


def _loss(points: _Points, w: Float[Array, "layers 2"]) -> Float[Array, ""]:
    """Above the floor; infinite where it is not a number."""
    residuals = _residuals(points, w)
    loss = residuals @ residuals / 2
    return jnp.where(jnp.isfinite(loss), loss, jnp.inf)


@jax.jit
def _iterated(
    points: _Points, candidates: Float[Array, "starts layers 2"], free: Array, steps: Array
) -> tuple[Float[Array, "starts layers 2"], Float[Array, "starts"]]:
    """Levenberg-Marquardt, each candidate for itself: those of the numbers that are `free` move."""
    trials = jnp.asarray(_TRIALS)

    def step(_, carry):
        w, damping, loss = carry
        residuals = _residuals(points, w)
        tall = jax.jacfwd(lambda w: _residuals(points, w))(w).reshape(len(residuals), -1)
        hessian = jnp.where(free[:, None] & free[None, :], tall.T @ tall, 0)
        gradient = jnp.where(free, tall.T @ residuals, 0)
        scale = jnp.where(free, jnp.diag(hessian) + 1e-9 * jnp.diag(hessian).max(), 1)

        def tried(factor):
            moved = jnp.linalg.solve(
                hessian + jnp.diag(scale * jnp.where(free, damping * factor, 1)), gradient
            )
            moved = w - moved.reshape(w.shape)
            return moved, _loss(points, moved)

        found, losses = jax.lax.map(tried, trials)
        best = jnp.argmin(losses)
        better = losses[best] < loss
        damping = jnp.where(better, jnp.maximum(damping * trials[best], 1e-12), 30 * damping)
        return jnp.where(better, found[best], w), damping, jnp.where(better, losses[best], loss)

    def solved(w):
        w, _, loss = jax.lax.fori_loop(0, steps, step, (w, jnp.asarray(1e-2, w.dtype), _loss(points, w)))
        return w, loss

    return jax.lax.map(solved, candidates)
