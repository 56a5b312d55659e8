"""How well a predictor does."""

from innerloop.evaluate.compare import baseline_predictors, judge_baselines
from innerloop.evaluate.losses import Estimate, Evaluation, bayes_floor, evaluate, evaluate_many
from innerloop.evaluate.profiles import loss_by_sigma, losses_by_sigma

__all__ = [
    "Estimate",
    "Evaluation",
    "baseline_predictors",
    "bayes_floor",
    "evaluate",
    "evaluate_many",
    "judge_baselines",
    "loss_by_sigma",
    "losses_by_sigma",
]
