"""A trained model as a scikit-learn regressor: the examples are its prompt, what it says of a query is the prediction.

`innerloop.standard` says how data of any units, size and correlations become a problem like those of training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.models import CausalDecoder, LinearTransformer
from innerloop.models.linear import Blockwise
from innerloop.shipped import pretrained
from innerloop.standard import Running, Standard
from innerloop.tasks import LinearRegression
from innerloop.types import AnyArray, Prompt

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'InContextRegressor needs scikit-learn 1.6 or later: pip install "innerloop[estimator]"'
    ) from error

_QUERIES = 64  # that a decoder answers at a time
_FOUND = ("coef_", "intercept_", "coef_path_", "intercept_path_", "noise_", "prompt_")


class InContextRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Regression by a trained linear transformer or decoder, which learns from the rows of `fit` in its forward pass.

    The rows become the model's prompt: inputs centred, scaled and whitened, labels centred and scaled to the mean square
    of training; what the model computes is brought back to the units of the data. Scaling X or y, or adding constants to
    them, therefore changes the prediction as it should and in no other way. Many rows count as the trained number of
    examples with less noise. See `innerloop.standard` for all of it.

    A linear transformer reads nothing but moments, so `partial_fit` streams in memory that does not grow with the rows.
    DIAG and GD++ have a few numbers a layer and read any number of features; FULL reads as many as it was trained on. A
    decoder keeps the rows: at most `points - 1`, of as many features as it was trained on.

    Args:
        model: a trained model, or the name of a shipped one (`innerloop.pretrained()` lists them).
        task: the problem that the model was trained on. By default that of a shipped model; for others the context length
            and label variance that the model's inner scales say, as those of every run with a spec do, and for a decoder
            labels without noise.

    Attributes:
        coef_: weights in the units of the data, `(features,)`, or `(outputs, features)` if y has two axes.
        intercept_: a number, or `(outputs,)`.
        coef_path_, intercept_path_: both after 0, 1, .. layers, with one leading axis of `layers + 1`.
        noise_: what the model believes of the noise, in the units of y: the sigma whose ridge solution is nearest to the
            model's weights, in its whitened inputs. With rows in plenty, ridge hardly depends on sigma and neither does
            this say much. A number, or `(outputs,)`.
        moments_: mean and scatter of all rows seen.
        prompt_: a decoder's rows. It has none of the attributes that speak of weights.
        n_samples_seen_, n_features_in_, feature_names_in_: as in scikit-learn.

    Raises:
        ValueError: in `fit`: the model is unknown, does not tell its problem, or cannot read so many features or rows; or
            its weights are not finite on these data.
    """

    coef_: np.ndarray
    intercept_: np.ndarray
    moments_: Running
    prompt_: tuple[np.ndarray, np.ndarray]

    def __init__(self, model: Any = "diag-7-uniform5", *, task: Any = None):
        self.model = model  # checked in fit, as scikit-learn asks
        self.task = task

    def fit(self, X: Any, y: Any) -> Self:
        """Take the rows X `(rows, features)` and labels y `(rows,)` or `(rows, outputs)` as the examples."""
        return self._add(X, y, first=True)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Add rows to those of before; in chunks or at once, the result is the same but for rounding."""
        return self._add(X, y, first=not hasattr(self, "moments_"))

    def predict(self, X: Any) -> np.ndarray:
        """The predictions, `(rows,)` or `(rows, outputs)`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        if hasattr(self, "prompt_"):
            answers = self._decoded(X)
            return answers if self._several else answers[:, 0]
        return X @ self.coef_.T + self.intercept_

    def _add(self, X: Any, y: Any, *, first: bool) -> Self:
        X, y = validate_data(
            self, X, y, reset=first, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        rows = (X, y.reshape(len(y), -1))
        known = _Known.of(self.model, self.task).at_dim(X.shape[1]) if first else self._known
        moments = Running.of(*rows)
        if not first:
            if len(moments.mean) != len(self.moments_.mean) or (y.ndim == 2) != self._several:
                outputs = len(self.moments_.mean) - X.shape[1]
                raise ValueError(f"y must have {outputs} outputs, as before, got shape {y.shape}")
            moments = self.moments_ + moments
        if isinstance(known.model, CausalDecoder):
            if not first:
                rows = tuple(map(np.concatenate, zip(self.prompt_, rows, strict=True)))
            found = {"prompt_": known.checked(rows)}
        else:
            found = self._weights(known, moments, several=y.ndim == 2)
        for name in _FOUND:  # of a model of another kind, before
            vars(self).pop(name, None)
        vars(self).update(found)
        self._known, self._several = known, y.ndim == 2
        self.moments_, self.n_samples_seen_ = moments, moments.count
        return self

    def _weights(self, known: "_Known", moments: Running, *, several: bool) -> dict[str, Any]:
        """What there is to know of a linear transformer's weights, by the names of the attributes."""
        standard = known.standard(moments)
        path = np.stack(
            [_path(known.model, S) for S in standard.S], axis=1
        )  # (layers + 1, outputs, features)
        if not np.isfinite(path[-1]).all():
            raise ValueError(
                "the model's weights are not finite on these data; fewer layers, or DIAG instead of FULL, are safer"
            )
        coef, noise = standard.weights(path), standard.noise(path[-1])
        intercept = moments.mean[known.dim :] - coef @ moments.mean[: known.dim]
        if not several:
            coef, intercept, noise = coef[:, 0], intercept[:, 0], float(noise[0])
        return dict(zip(_FOUND, (coef[-1], intercept[-1], coef, intercept, noise), strict=False))

    def _decoded(self, X: np.ndarray) -> np.ndarray:
        """A decoder's answers to the queries X, `(rows, outputs)`."""
        model, dim = self._known.model, self._known.dim
        standard = self._known.standard(self.moments_)
        mean, scale = self.moments_.mean, standard.label_scale
        dtype = model.positions.dtype
        x = np.asarray((self.prompt_[0] - mean[:dim]) @ standard.whiten, dtype)
        labels = np.asarray((self.prompt_[1] - mean[dim:]) * scale, dtype).T
        queries = np.pad((X - mean[:dim]) @ standard.whiten, ((0, -len(X) % _QUERIES), (0, 0)))
        blocks = np.asarray(queries, dtype).reshape(-1, _QUERIES, dim)
        answers = [np.concatenate([_answers(model, x, y, block) for block in blocks]) for y in labels]
        answers = np.stack(answers, axis=1)[: len(X)].astype(float)
        return np.where(scale > 0, answers / np.where(scale > 0, scale, 1.0), 0.0) + mean[dim:]


@dataclass(frozen=True)
class _Known:
    """A model, and the sizes of the problem that it was trained on: features, examples, and mean square of labels."""

    model: Any
    dim: int
    context: int
    energy: float

    @staticmethod
    def of(model: Any, task: Any) -> "_Known":
        if isinstance(model, str):
            shipped = pretrained(model)
            model, task = shipped.model, task or shipped.task
        if not isinstance(model, LinearTransformer | CausalDecoder):
            raise ValueError(
                "model must be a linear transformer, a decoder, or the name of a shipped model,"
                f" got {type(model).__name__}"
            )
        if task is not None:
            fits = isinstance(task, LinearRegression) and task.dim == model.dim
            if not fits or task.input_root is not None or task.weight_root is not None:
                raise ValueError(
                    f"task must be that of training, with dim {model.dim} and isotropic inputs and weights, got {task}"
                )
            return _Known(model, task.dim, task.context, task.label_variance)
        if isinstance(model, CausalDecoder):
            return _Known(model, model.dim, model.points, float(model.dim))
        energy = model.label_scale**-2
        if energy < 0.99 * model.dim:  # label_scale may be rounded
            raise ValueError(
                f"the model's label_scale {model.label_scale:g} is none of a problem with dim {model.dim}, whose labels"
                " have a mean square of dim and more: say by task= what the model was trained on"
            )
        return _Known(model, model.dim, model.context, energy)

    def at_dim(self, dim: int) -> "_Known":
        """The same for another number of features, with as many examples and as much energy for each."""
        if dim == self.dim:
            return self
        if not isinstance(self.model, Blockwise):
            kind = "a decoder" if isinstance(self.model, CausalDecoder) else "a FULL model"
            raise ValueError(
                f"{kind} of dim {self.dim} cannot read {dim} features; DIAG and GD++ models read any number"
            )
        ratio = dim / self.dim
        return _Known(self.model.at_dim(dim), dim, max(1, round(self.context * ratio)), self.energy * ratio)

    def checked(self, rows: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """The rows, if the decoder can hold them."""
        if len(rows[0]) >= self.model.points:
            raise ValueError(
                f"this decoder holds {self.model.points - 1} rows and a query, got {len(rows[0])} rows"
            )
        return rows

    def standard(self, moments: Running) -> Standard:
        """The data as the model sees them; the spectrum of its inputs ends near Marchenko and Pastur's edge."""
        edge = (1 + (self.dim / self.context) ** 0.5) ** 2
        return Standard.of(moments, self.dim, context=self.context, energy=self.energy, edge=edge)


def _path(model: LinearTransformer, S: np.ndarray) -> np.ndarray:
    """`model.implicit_weights` in NumPy and float64, `(layers + 1, dim)`.

    Moments of any number of features take a few products of small matrices, and no time to compile a program for them.
    """
    identity = np.eye(len(S))
    T, path = identity, [identity]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks for what is not finite
        for increment in _increments(model):
            A = identity + increment(S)
            S, T = A @ S @ A.T, A @ T
            path.append(T)
    return -np.stack(path)[:, -1, :-1]


def _increments(model: LinearTransformer) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Every layer's map from S to sum_k P_k S Q_k, in the paper's convention."""
    if isinstance(model, Blockwise):
        block = (np.arange(model.dim + 1) == model.dim).astype(int)
        flows = np.asarray(model.flows(), float)[:, block[:, None], block]
        return [partial(np.multiply, layer) for layer in flows]
    P, Q = (np.asarray(each, float) for each in model.matrices())
    return [partial(_attention, *layer) for layer in zip(P, Q, strict=True)]


def _attention(P: np.ndarray, Q: np.ndarray, S: np.ndarray) -> np.ndarray:
    return np.einsum("hij,jk,hkl->il", P, S, Q, optimize=True)


@eqx.filter_jit
def _answers(
    model: CausalDecoder,
    x: Float[AnyArray, "n dim"],
    y: Float[AnyArray, "n"],
    queries: Float[AnyArray, "q dim"],
) -> Float[Array, "q"]:
    xs, ys = (jnp.broadcast_to(part[None], (len(queries), *part.shape)) for part in (x, y))
    return model.predict(Prompt(x=xs, y=ys, query=queries))
