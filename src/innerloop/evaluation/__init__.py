"""How well a predictor does."""

from innerloop.evaluation.compare import baseline_predictors, compare_runs, judge_baselines
from innerloop.evaluation.convergence import samples_to, sequences_until
from innerloop.evaluation.losses import Estimate, Evaluation, bayes_floor, evaluate, evaluate_many
from innerloop.evaluation.profiles import loss_by_sigma, losses_by_sigma
from innerloop.evaluation.sampling import sampled_errors

__all__ = [
    "Estimate",
    "Evaluation",
    "baseline_predictors",
    "bayes_floor",
    "compare_runs",
    "evaluate",
    "evaluate_many",
    "judge_baselines",
    "loss_by_sigma",
    "losses_by_sigma",
    "sampled_errors",
    "samples_to",
    "sequences_until",
]
