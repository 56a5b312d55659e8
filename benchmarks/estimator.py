"""Measures trained models as regressors, and writes docs/results/estimator.parquet and docs/results/estimator.md.

    python benchmarks/estimator.py                  # everything, a minute on two cores
    python benchmarks/estimator.py --only accuracy  # one group; the others' rows stay as they are

Accuracy is that of repeated five-fold cross-validation. Its standard error is corrected for training sets that overlap
(Nadeau and Bengio 2003), as is that of the paired difference to RidgeCV. Times mean something only where a machine did
nothing else.
"""

import time
import warnings
from collections.abc import Callable, Iterator

import jax
import numpy as np
from results import record, row
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ARDRegression, BayesianRidge, LassoCV, LinearRegression, Ridge, RidgeCV
from sklearn.model_selection import RepeatedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import innerloop as il
from innerloop.evaluation import Estimate
from innerloop.models.linear import Blockwise

NAMES = ("diag-7-uniform5", "diag-4-uniform5", "gd++-7-uniform5")
FOLDS, REPEATS = 5, 4


def others() -> dict:
    """What is compared with, each after a StandardScaler."""
    kinds = {
        "Ridge(1)": Ridge(),
        "RidgeCV": RidgeCV(np.geomspace(1e-3, 1e3, 25)),
        "BayesianRidge": BayesianRidge(),
        "ARDRegression": ARDRegression(),
        "LassoCV": LassoCV(),
        "LinearRegression": LinearRegression(),
    }
    return {name: make_pipeline(StandardScaler(), kind) for name, kind in kinds.items()}


def tables() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Names, inputs and labels: real data that come with scikit-learn, then drawn ones."""
    X, y = datasets.load_diabetes(return_X_y=True)
    yield "diabetes: progression", X, y
    linnerud = datasets.load_linnerud()
    for index, name in enumerate(linnerud.target_names):
        yield f"linnerud: {name}", linnerud.data, linnerud.target[:, index]
    for load, column in (
        (datasets.load_iris, 3),
        (datasets.load_wine, 0),
        (datasets.load_wine, 12),
        (datasets.load_breast_cancer, 4),
        (datasets.load_breast_cancer, 29),
    ):
        found = load()
        name = load.__name__.removeprefix("load_")
        label = found.feature_names[column]
        yield f"{name}: {label} from the rest", np.delete(found.data, column, 1), found.data[:, column]
    for rows, features, rank, noise in (
        (30, 10, None, 50),
        (60, 30, None, 100),
        (60, 30, 5, 5),
        (40, 60, 5, 5),
    ):
        X, y = datasets.make_regression(
            rows, features, n_informative=features // 2, effective_rank=rank, noise=noise, random_state=0
        )
        kind = "independent features" if rank is None else f"effective rank {rank}"
        yield f"drawn, sparse weights: {kind}", X, y
    X = datasets.make_friedman1(100, 10, noise=1.0, random_state=0)
    yield "drawn, not linear: Friedman 1", *X


def accuracy() -> list[dict]:
    """Squared error over the variance of y (1 - R^2) on held-out rows, and its difference to RidgeCV's."""
    rows, ratios, differences = [], {}, {}
    for name, X, y in tables():
        candidates = {f"InContextRegressor, {each}": il.InContextRegressor(each) for each in NAMES} | others()
        errors = {each: held_out(candidate, X, y) for each, candidate in candidates.items()}
        for each, (losses, seconds) in errors.items():
            found, difference = corrected(losses), corrected(losses - errors["RidgeCV"][0])
            ratios.setdefault(each, []).append(losses.mean() / errors["RidgeCV"][0].mean())
            differences.setdefault(each, []).append(difference)
            low, high = (found.value + sign * 1.96 * found.standard_error for sign in (-1, 1))
            paired = f"less RidgeCV's {difference.value:+.2g} ± {difference.standard_error:.1g}"
            rows.append(
                row(
                    f"{name} ({len(X)} rows, {X.shape[1]} features)",
                    each,
                    "shown",
                    found.value,
                    error=found.standard_error,
                    note=f"95 % from {low:.3g} to {high:.3g}; {paired}; fit {1000 * seconds:.2g} ms",
                )
            )
    return [summary(each, np.array(ratios[each]), differences[each]) for each in ratios] + rows


def summary(name: str, ratios: np.ndarray, differences: list[Estimate]) -> dict:
    """One estimator against RidgeCV over all data sets."""
    better, worse = (
        sum(sign * each.value > 2 * each.standard_error for each in differences) for sign in (-1, 1)
    )
    return row(
        "over all data sets, error in units of RidgeCV's",
        name,
        "shown",
        float(np.exp(np.log(ratios).mean())),
        note=f"geometric mean of {len(ratios)} data sets, from {ratios.min():.3g} to {ratios.max():.3g};"
        f" beyond two standard errors better on {better}, worse on {worse}",
    )


def held_out(candidate, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean squared error of every fold over the variance of y, and the median seconds of a fit."""
    losses, seconds = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # LassoCV's
        for train, test in RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(X):
            fitted = clone(candidate)
            began = time.perf_counter()
            fitted.fit(X[train], y[train])
            seconds.append(time.perf_counter() - began)
            losses.append(np.mean((fitted.predict(X[test]) - y[test]) ** 2) / y.var())
    return np.array(losses), float(np.median(seconds))


def corrected(losses: np.ndarray) -> Estimate:
    """The mean over folds, and its standard error with the variance that overlapping training sets hide."""
    variance = losses.var(ddof=1) * (1 / len(losses) + 1 / (FOLDS - 1))
    return Estimate(float(losses.mean()), float(np.sqrt(variance)))


def plus_minus(estimate: Estimate) -> str:
    return f"{estimate.value:+.2g} ± {estimate.standard_error:.1g}"


def rows_of_a_problem(dim: int, rows: int, sigmas: np.ndarray, seed: int) -> Iterator[tuple]:
    """Data sets of the trained problem: X, y, and the ridge weights of the true sigma."""
    rng = np.random.default_rng(seed)
    for sigma in sigmas:
        X = rng.normal(size=(rows, dim))
        y = X @ rng.normal(size=dim) + sigma * rng.normal(size=rows)
        yield X, y, np.linalg.solve(X.T @ X + (sigma**2 + 1e-9) * np.eye(dim), X.T @ y)


def adjusted(candidate, dim: int, rows: int, sigmas: np.ndarray) -> Estimate:
    """Half the squared distance of a regressor's weights to those of ridge with the true sigma."""
    losses = []
    for X, y, ridge in rows_of_a_problem(dim, rows, sigmas, seed=1):
        fitted = candidate.fit(X, y)
        losses.append(0.5 * ((fitted.coef_ - ridge) ** 2).sum())
    return Estimate.of(np.array(losses))


def lengths() -> list[dict]:
    """Adjusted loss on data sets of other sizes than the 20 examples of training, sigma ~ U(0, 5), 10 features."""
    sigmas = np.random.default_rng(0).uniform(0, 5, 300)
    candidates = {
        "InContextRegressor, diag-7-uniform5": il.InContextRegressor(),
        "BayesianRidge": BayesianRidge(),
        "LinearRegression": LinearRegression(),
    }
    found = []
    for rows in (8, 12, 16, 21, 30, 60, 200, 1000):
        for name, candidate in candidates.items():
            loss = adjusted(candidate, 10, rows, sigmas)
            what = f"{rows} rows: {name}"
            found.append(row("rows other than trained", what, "shown", loss.value, error=loss.standard_error))
    return found


def dimensions() -> list[dict]:
    """A model trained at d = 10, n = 20 and sigma ~ U(0, 5) on other d, with n = 2 d and sigma ~ U(0, 5 sqrt(d / 10))."""
    model = il.pretrained("diag-7-uniform5").model
    assert isinstance(model, Blockwise)
    found = []
    with jax.enable_x64(True):
        for dim in (3, 5, 10, 20, 40):
            task = il.LinearRegression(dim, 2 * dim, il.Uniform(0.0, 5 * (dim / 10) ** 0.5))
            moments = task.sample_moments(jax.random.key(3), 4096)
            mean, spread = jax.vmap(lambda each, task=task: task.posterior(each).mean_and_spread())(moments)
            regret = task.half_square(model.at_dim(dim).final_weights(moments) - mean)
            loss, floor = Estimate.of(np.asarray(regret + spread)), Estimate.of(np.asarray(spread))
            worst = float(regret.max() / (regret + spread).sum())
            found.append(
                row(
                    "features other than trained",
                    f"diag-7-uniform5 at d = {dim}: adjusted loss over the Bayes floor",
                    "shown",
                    loss.value / floor.value,
                    error=loss.standard_error / floor.value,
                    note=f"adjusted loss {loss.value:.3g}, floor {floor.value:.3g}; worst sequence's share {worst:.2g}",
                )
            )
            sigmas = np.random.default_rng(0).uniform(0, task.noise.maximum, 300)
            whole = adjusted(il.InContextRegressor(), dim, 2 * dim + 1, sigmas)
            found.append(
                row(
                    "features other than trained",
                    f"as a regressor at d = {dim}, units not known: adjusted loss over the Bayes floor",
                    "shown",
                    whole.value / floor.value,
                    error=whole.standard_error / floor.value,
                )
            )
    return found


def noises() -> list[dict]:
    """noise_ over the true sigma, on 21 rows of 10 features."""
    found = []
    for sigma in (0.5, 1.0, 2.0, 3.0, 4.0, 5.0):
        regressor = il.InContextRegressor()
        levels = [regressor.fit(X, y).noise_ for X, y, _ in rows_of_a_problem(10, 21, np.full(300, sigma), 2)]
        ratio = np.array(levels) / sigma
        found.append(
            row(
                "the noise that the model believes in",
                f"sigma = {sigma:g}: median of noise_ / sigma",
                "shown",
                float(np.median(ratio)),
                error=float(1.2533 * ratio.std() / np.sqrt(len(ratio))),
                note=f"quartiles {np.quantile(ratio, 0.25):.2f} and {np.quantile(ratio, 0.75):.2f}",
            )
        )
    return found


def speed() -> list[dict]:
    """Seconds of fit on 10^6 rows of 20 features, one after the other."""
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(1_000_000, 20)), rng.normal(size=20)
    y = X @ w + rng.normal(size=len(X))
    ours, theirs = il.InContextRegressor(), Ridge(solver="cholesky")

    def seconds(candidate) -> tuple[float, float]:
        """Of a clock, and of the cores together."""
        began, busy = time.perf_counter(), time.process_time()
        candidate.fit(X, y)
        return time.perf_counter() - began, time.process_time() - busy

    for candidate in (ours, theirs):
        seconds(candidate)
    pairs = np.array([(seconds(ours), seconds(theirs)) for _ in range(7)])
    found = []
    for index, what in enumerate(("time", "time of all cores together")):
        ours_, theirs_ = pairs[:, :, index].T
        found.append(
            row(
                "fit on 10^6 rows of 20 features",
                f"InContextRegressor / Ridge(solver='cholesky'), {what}",
                "<= 1.5",
                float(np.median(ours_ / theirs_)),
                note=f"median ratio of {len(pairs)} pairs; medians {np.median(ours_):.3f} s, {np.median(theirs_):.3f} s",
            )
        )
    return found


GROUPS: dict[str, Callable[[], list[dict]]] = {
    "accuracy": accuracy,
    "lengths": lengths,
    "dimensions": dimensions,
    "noise": noises,
    "speed": speed,
}


if __name__ == "__main__":
    record("estimator", "Trained models as regressors", GROUPS, __doc__)
