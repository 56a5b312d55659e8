"""Theorems 4.1 and 4.2, Lemmas 4.3 and 4.4 of Vladymyrov et al. (2024): what every linear transformer does, checked.

Each check runs tokens through a model in float64, the query last, and holds them against a statement about all linear
transformers. Tokens may come from any function of prompts in place of a model's own, and a check fails for what is no
linear transformer, so it can also tell what a model of another kind does not do.
"""

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from innerloop.evaluation.losses import in_precision
from innerloop.models.linear import Blockwise, LinearTransformer
from innerloop.predictors.base import whole_number
from innerloop.probe.check import (
    EXACT,
    Check,
    TokenMap,
    check_dim,
    check_key,
    draw_prompts,
    run_tokens,
    token_errors,
    token_map,
    worst,
)
from innerloop.probe.recursions import descent_tokens, recursion_tokens
from innerloop.tasks import LinearRegression
from innerloop.types import Prompt

_QUERIES = 3
QUADRATIC = 0.1  # the cosine that Theorem 4.2 names


def check_linear_map(
    model: LinearTransformer | TokenMap, task: LinearRegression, *, sequences: int = 64, seed: int = 0
) -> Check:
    """Theorem 4.1: after every layer one linear map of the context's making holds for all tokens, the query included.

        x_i^l = M x_i + y_i u,    y_i^l = a y_i - <w, x_i>

    For each context the best M, u, w, a are found by least squares from the tokens alone, one set for all examples and
    three different queries; what is measured is the largest deviation of a token from them, relative to the largest
    token so far. A nonlinear update leaves a deviation, and so does a query that is attended to: then the map depends
    on the query.

    Args:
        model: a linear transformer, or any function from prompts to tokens `(..., layers + 1, n + 1, dim + 1)`.
        task: where prompts are drawn from.

    Returns:
        Data with columns layer, tokens ("context" or "query"), coordinates ("x" or "y"), error.

    Raises:
        ValueError: the context is not longer than dim + 1, which a linear map fits whatever the model does; sequences
            is not a whole number >= 1; or dimensions differ.
    """
    check_dim(model, task)
    if task.context <= task.dim + 1:
        raise ValueError(
            f"context must be at least dim + 2 = {task.dim + 2}, since any dim + 1 tokens fit some linear map, "
            f"got context {task.context}"
        )
    with jax.enable_x64(True):
        prompts = draw_prompts(task, sequences, seed)
        key = jax.random.fold_in(check_key(seed), 1)  # the prompts' own queries stay unused
        queries = task.sample_queries(key, _QUERIES * sequences, dtype=jnp.float64)
        asked = [
            Prompt(x=prompts.x, y=prompts.y, query=query)
            for query in queries.reshape(_QUERIES, sequences, task.dim)
        ]
        tokens = token_map(model)
        states = np.stack([run_tokens(tokens, each) for each in asked], axis=1)
    errors = token_errors(*_with_common_map(states))
    return Check(
        name="Theorem 4.1",
        claim="the relative deviation of tokens from one linear map is rounding",
        measured=worst(errors["error"]),
        bound=EXACT,
        data=errors,
    )


def _with_common_map(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens `(sequences x queries, depths, n + 1, D)`, and what the linear maps that fit all of a sequence's tokens
    best make of the first ones; `states` is `(sequences, queries, depths, n + 1, D)`."""
    sequences, queries, depths, tokens, size = states.shape
    stacked = states.swapaxes(1, 2).reshape(sequences, depths, queries * tokens, size)
    if not np.isfinite(stacked).all():
        fitted = np.full_like(stacked, np.nan)
    else:
        start = stacked[:, 0]
        maps = np.linalg.pinv(start)[:, None] @ stacked  # (sequences, depths, D, D)
        fitted = start[:, None] @ maps
    fitted = fitted.reshape(sequences, depths, queries, tokens, size).swapaxes(1, 2)
    shape = (sequences * queries, depths, tokens, size)
    return states.reshape(shape), fitted.reshape(shape)


def check_no_quadratic(
    model: LinearTransformer | TokenMap,
    task: LinearRegression,
    *,
    examples: int = 10_000,
    sequences: int = 8,
    seed: int = 0,
) -> Check:
    """Theorem 4.2: no layer's labels look like the square of a coordinate, so no linear transformer can represent it.

    With z_i = x_i(k)^2, measured is the largest `|cos(y^l, z)|` and `|corr(y^l, z)|`, whose mean is taken out, over
    layers, coordinates k and sequences. By Theorem 4.1 y^l is a linear combination of the columns of the tokens (X, y),
    so the cosine with z is at most `|P z| / |z|`, P the projection on these columns, whatever the model: the column
    `any_model`. For Gaussian x all odd moments vanish, and its mean square tends to `(dim + 5) / n` (`(dim + 4) / n`
    without noise): below 0.1^2 needs n >> d, here `examples >> 100 (dim + 5)`. At the context length of training
    the claim is false.

    Args:
        model: as for `check_linear_map`; a linear transformer's attention is divided by `examples / task.context`,
            so that its tokens stay of the size that it was trained with.
        task: the problem; contexts are `examples` long.

    Returns:
        Data with columns sequence, layer, coordinate, cosine, correlation, any_model.

    Raises:
        ValueError: examples or sequences is not a whole number >= 1, or dimensions differ.
    """
    check_dim(model, task)
    long = _at_context(task, whole_number("examples", examples, at_least=1))
    if isinstance(model, LinearTransformer):
        model = _attending_less(model, examples / task.context)
    rows = []
    with jax.enable_x64(True):
        prompts = jax.tree.map(np.asarray, draw_prompts(long, sequences, seed))  # to slice
        tokens = token_map(model)
        for index in range(sequences):  # one at a time: a sequence's tokens are many
            prompt = jax.tree.map(lambda leaf, index=index: leaf[index], prompts)
            states = run_tokens(tokens, prompt)[:, :-1]  # (depths, n, D)
            rows += [{"sequence": index, **row} for row in _likeness(states)]
    data = pl.DataFrame(rows)
    return Check(
        name="Theorem 4.2",
        claim="the labels of every layer have a cosine of at most 0.1 with the square of a coordinate",
        measured=worst(pl.concat([data["cosine"], data["correlation"].alias("cosine")]).abs()),
        bound=QUADRATIC,
        data=data,
    )


def _likeness(states: np.ndarray) -> list[dict]:
    """Cosine and correlation of the labels after every layer with every squared coordinate of the inputs."""
    squares = states[0, :, :-1] ** 2  # (n, dim)
    labels = states[..., -1]  # (depths, n)
    directions, lengths, _ = np.linalg.svd(states[0], full_matrices=False)
    # Without noise the labels are a combination of the inputs: a direction that is rounding is no direction.
    directions = directions[:, lengths > len(squares) * np.finfo(float).eps * lengths[0]]
    reach = np.linalg.norm(directions.T @ squares, axis=0) / np.linalg.norm(squares, axis=0)

    def cosine(labels, squares):
        length = np.linalg.norm(labels, axis=-1, keepdims=True)
        direction = np.divide(labels, length, out=np.zeros_like(labels), where=length != 0)
        return direction @ (squares / np.linalg.norm(squares, axis=0))

    with np.errstate(invalid="ignore", over="ignore"):
        plain = cosine(labels, squares)
        centred = cosine(labels - labels.mean(-1, keepdims=True), squares - squares.mean(0))
    return [
        {
            "layer": layer,
            "coordinate": k,
            "cosine": float(plain[layer, k]),
            "correlation": float(centred[layer, k]),
            "any_model": float(reach[k]),
        }
        for layer, k in np.ndindex(plain.shape)
    ]


def _at_context(task: LinearRegression, context: int) -> LinearRegression:
    """The same problem with contexts of another length."""
    covariances = [None if root is None else root @ root.T for root in (task.input_root, task.weight_root)]
    return LinearRegression(task.dim, context, task.noise, *covariances)


def _attending_less(model: LinearTransformer, divisor: float) -> LinearTransformer:
    """The linear transformer whose attention is that of `model`, divided."""
    P, Q = (np.asarray(matrix, np.float64) for matrix in model.matrices())
    with jax.enable_x64(True):
        return LinearTransformer.from_matrices(P, Q / divisor)


def check_recursion(
    model: LinearTransformer,
    task: LinearRegression,
    *,
    tokens: TokenMap | None = None,
    sequences: int = 64,
    seed: int = 0,
) -> Check:
    """Lemma 4.3: M, u, w and a of every layer follow from those of the layer before and the first statistics alone.

    With A = I + sum_k P_k S Q_k = [[B, b], [c^T, k]] and S = (Sigma_l, alpha_l, lam_l) in blocks, starting from
    M = I, u = 0, w = 0, a = 1,

        Sigma_l = M Sigma M^T + (M alpha) u^T + u (M alpha)^T + lam u u^T
        alpha_l = M (a alpha - Sigma w) + (a lam - <alpha, w>) u
        lam_l   = a^2 lam - 2 a <alpha, w> + w^T Sigma w
        M' = B M - b w^T,    u' = B u + a b,    w' = k w - M^T c,    a' = k a + <c, u>

    The recursion runs in NumPy, on the plain matrices P and Q. Measured is the largest deviation of the tokens from what it
    predicts for them, relative to the largest token so far.

    Args:
        model: whose P and Q the recursion uses.
        task: where prompts are drawn from.
        tokens: any function from prompts to tokens, to hold against the recursion; `model.tokens` if None.

    Returns:
        Data as for `check_linear_map`.

    Raises:
        ValueError: sequences is not a whole number >= 1, or dimensions differ.
    """
    check_dim(model, task)
    with jax.enable_x64(True):
        prompts = draw_prompts(task, sequences, seed)
        actual = run_tokens(tokens or token_map(model), prompts)
        P, Q = (np.asarray(matrix) for matrix in in_precision(model, "float64").matrices())
    expected = recursion_tokens(P, Q, np.asarray(prompts.tokens), np.asarray(prompts.query))
    return _tokens_check("Lemma 4.3", "tokens deviate from the recursion by rounding", actual, expected)


def check_momentum(
    model: LinearTransformer,
    task: LinearRegression,
    *,
    tokens: TokenMap | None = None,
    sequences: int = 64,
    seed: int = 0,
) -> Check:
    """Lemma 4.4: a stack of diagonal layers is gradient descent with momentum on the squared error.

    Let `R = 1/2 sum_i r_i^2` with residuals `r_i = a y_i - <w, x_i>`, the y coordinates of the context (Theorem 4.1), so
    that `lam_l = 2 R`. Its gradient in w is -g, in a it is h:

        g = sum_i r_i x_i = a alpha - Sigma w,    h = sum_i r_i y_i = a lam - <alpha, w>

    The x coordinates are `z_i = M x_i + y_i u`, so `alpha_l = sum_i r_i z_i = M g + h u` is the negative gradient in the
    moved inputs. A layer, the diagonal case of Lemma 4.3, is then

        w' = w - w_yx (M^T M g + h M^T u) + w_yy 2 R w            step
        u' = u + w_xx Sigma_l u + w_xy a (M g + h u)              velocity
        M' = M + w_xx Sigma_l M - w_xy (M g + h u) w^T            preconditioner
        a' = a + w_yx <M g + h u, u> + w_yy 2 R a                 scale of the labels

    which names the four flows. w_yx is the step size. w_xx makes M^T M, at first I, a polynomial in Sigma that
    preconditions the gradient (GD++). w_xy adds every gradient to the velocity u, which later steps follow: momentum, by an
    amount h that adapts to the residuals. w_yy shrinks weights and labels by the residual energy, which says how noisy they
    are. With w_xx = 0 this is momentum to the letter: by induction w and u lie in the span of the earlier gradients, and M
    differs from I in that span only, hence `w' - w = -w_yx g + (a combination of earlier gradients)`.

    The optimiser runs on the examples, without moments; measured is the largest deviation of the tokens from (z_i, r_i).

    Args:
        model: a model with diagonal layers, whose flows the optimiser uses.
        task: where prompts are drawn from.
        tokens: any function from prompts to tokens, to hold against the optimiser; `model.tokens` if None.

    Returns:
        Data as for `check_linear_map`.

    Raises:
        ValueError: the model is not of a diagonal kind, sequences is not a whole number >= 1, or dimensions differ.
    """
    if not isinstance(model, Blockwise):
        raise ValueError(
            f"model must be of kind diag or gd++, whose layers have four flows, got {model.kind}"
        )
    check_dim(model, task)
    with jax.enable_x64(True):
        prompts = draw_prompts(task, sequences, seed)
        actual = run_tokens(tokens or token_map(model), prompts)
        flows = np.asarray(in_precision(model, "float64").flows())
    expected = descent_tokens(flows, np.asarray(prompts.tokens), np.asarray(prompts.query))
    return _tokens_check(
        "Lemma 4.4", "tokens deviate from gradient descent with momentum by rounding", actual, expected
    )


def _tokens_check(name: str, claim: str, actual: np.ndarray, expected: np.ndarray) -> Check:
    if actual.shape != expected.shape:
        raise ValueError(
            f"the tokens must have shape {expected.shape} as the model's have, got {actual.shape}"
        )
    errors = token_errors(actual, expected)
    return Check(name=name, claim=claim, measured=worst(errors["error"]), bound=EXACT, data=errors)
