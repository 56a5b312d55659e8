"""How a model learns."""

from innerloop.train.checkpoint import Checkpoints
from innerloop.train.fit import Fit, fit
from innerloop.train.loop import Report
from innerloop.train.settings import Training

__all__ = ["Checkpoints", "Fit", "Report", "Training", "fit"]
