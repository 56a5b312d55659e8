"""What is to be learned in context."""

from innerloop.tasks.noise import Categorical, Fixed, NoiseLaw, Uniform, parse_noise
from innerloop.tasks.pool import Pool
from innerloop.tasks.posterior import Posterior
from innerloop.tasks.regression import LinearRegression

__all__ = [
    "Categorical",
    "Fixed",
    "LinearRegression",
    "NoiseLaw",
    "Pool",
    "Posterior",
    "Uniform",
    "parse_noise",
]
