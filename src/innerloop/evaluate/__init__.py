"""How well a predictor does."""

from innerloop.evaluate.losses import Estimate, Evaluation, bayes_floor, evaluate, evaluate_many
from innerloop.evaluate.profiles import loss_by_sigma

__all__ = ["Estimate", "Evaluation", "bayes_floor", "evaluate", "evaluate_many", "loss_by_sigma"]
