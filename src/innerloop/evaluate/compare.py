"""A task's baselines, tuned where they have constants, judged on the sequences that the models are judged on."""

from innerloop import predictors
from innerloop.evaluate.losses import Evaluation, Precision, check_sequences, evaluate_many
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
