"""What is to be learned in context."""

from innerloop.tasks.noise import LAWS, Categorical, Fixed, NoiseLaw, Uniform, parse_noise
from innerloop.tasks.pool import Pool
from innerloop.tasks.posterior import Posterior
from innerloop.tasks.regression import LinearRegression, OtherInputs

__all__ = [
    "LAWS",
    "Categorical",
    "Fixed",
    "LinearRegression",
    "NoiseLaw",
    "OtherInputs",
    "Pool",
    "Posterior",
    "Uniform",
    "parse_noise",
]
