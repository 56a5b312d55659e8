"""What a model is compared with: classical and Bayes-optimal predictors, each made from its task."""

from innerloop.predictors.base import WeightPredictor
from innerloop.predictors.bayes import BayesOptimal
from innerloop.predictors.classical import Averaging
from innerloop.predictors.iterative import ConjugateGradient, GradientDescent, HeavyBall
from innerloop.predictors.ridge import OLS, AdaRR, ConstRR, RidgeOracle, TunedRR

__all__ = [
    "OLS",
    "AdaRR",
    "Averaging",
    "BayesOptimal",
    "ConjugateGradient",
    "ConstRR",
    "GradientDescent",
    "HeavyBall",
    "RidgeOracle",
    "TunedRR",
    "WeightPredictor",
]
