"""Predictors beside each other on the same sequences: a task's tuned baselines, and trained models."""

import polars as pl

from innerloop import predictors
from innerloop.evaluation.losses import (
    CHUNK,
    Estimate,
    Evaluation,
    Precision,
    check_sequences,
    draw_losses,
    evaluate_many,
)
from innerloop.tasks import LinearRegression


def baseline_predictors(task: LinearRegression, *, seed: int = 0) -> dict[str, predictors.WeightPredictor]:
    """The baselines of Vladymyrov et al. (2024), least squares and the Bayes-optimal predictor, by their short names.

    AdaRR and TunedRR estimate the noise from the residuals of least squares, so they need context > dim.
    """
    found: dict[str, predictors.WeightPredictor] = {"constrr": predictors.ConstRR(task, seed=seed)}
    if task.context > task.dim:
        found["adarr"] = predictors.AdaRR(task)
        found["tunedrr"] = predictors.TunedRR(task, seed=seed)
    return found | {"ols": predictors.OLS(task), "bayes": predictors.BayesOptimal(task)}


def judge_baselines(
    task: LinearRegression, *, sequences: int = 100_000, seed: int = 0, precision: Precision = "float64"
) -> dict[str, tuple[predictors.WeightPredictor, Evaluation]]:
    """Every baseline and how well it does; arguments and errors as for `evaluate`."""
    check_sequences(sequences)  # before the seconds that tuning takes
    found = baseline_predictors(task, seed=seed)
    judged = evaluate_many(found, task, sequences=sequences, seed=seed, precision=precision)
    return {name: (predictor, judged[name]) for name, predictor in found.items()}


def compare_runs(
    models: dict,
    task: LinearRegression,
    *,
    sequences: int = 100_000,
    seed: int = 0,
    precision: Precision = "float64",
) -> pl.DataFrame:
    """Models judged on the same sequences, best first; arguments and errors as for `evaluate`.

    Returns:
        Columns run, those of `Evaluation.summary`, and difference, difference_se: how much worse than the best, with the
        standard error of the difference itself, which common sequences make small.
    """
    check_sequences(sequences)
    drawn = draw_losses(
        models, task, range(-(-sequences // CHUNK)), seed=seed, precision=precision, per_layer=False
    )
    judged = drawn.evaluations(sequences)
    best = min(judged, key=lambda name: judged[name].regret.value)
    rows = []
    for name, evaluation in judged.items():
        difference = Estimate.of((drawn.regret[name] - drawn.regret[best])[:sequences, -1])
        rows.append(
            {
                "run": name,
                **evaluation.summary(),
                "difference": difference.value,
                "difference_se": difference.standard_error,
            }
        )
    return pl.DataFrame(rows).sort("regret")
