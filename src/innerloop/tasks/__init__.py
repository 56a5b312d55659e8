"""What is to be learned in context."""

from innerloop.tasks.noise import LAWS, Categorical, Fixed, NoiseLaw, Uniform, parse_noise
from innerloop.tasks.pool import Pool
from innerloop.tasks.posterior import Posterior
from innerloop.tasks.regression import LinearRegression, OtherInputs
from innerloop.tasks.wishart import Eigenvalues, wishart_eigenvalues

__all__ = [
    "LAWS",
    "Categorical",
    "Eigenvalues",
    "Fixed",
    "LinearRegression",
    "NoiseLaw",
    "OtherInputs",
    "Pool",
    "Posterior",
    "Uniform",
    "parse_noise",
    "wishart_eigenvalues",
]
