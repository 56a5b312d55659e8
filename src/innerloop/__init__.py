"""innerloop: the laboratory for the learning algorithm that runs inside a forward pass."""

from importlib.metadata import version

from innerloop import predictors
from innerloop.evaluate import bayes_floor, evaluate, loss_by_sigma
from innerloop.models import LinearTransformer
from innerloop.study import load_run
from innerloop.tasks import Categorical, Fixed, LinearRegression, Uniform, parse_noise
from innerloop.train import fit
from innerloop.types import Moments, Prompt

__version__ = version("innerloop")

__all__ = [
    "Categorical",
    "Fixed",
    "LinearRegression",
    "LinearTransformer",
    "Moments",
    "Prompt",
    "Uniform",
    "bayes_floor",
    "evaluate",
    "fit",
    "load_run",
    "loss_by_sigma",
    "parse_noise",
    "predictors",
]
