"""How a model learns."""

from innerloop.train.checkpoint import Checkpoints
from innerloop.train.fit import Fit, Fitting, fit, fit_together
from innerloop.train.loop import Preempted, Report
from innerloop.train.settings import Training

__all__ = ["Checkpoints", "Fit", "Fitting", "Preempted", "Report", "Training", "fit", "fit_together"]
