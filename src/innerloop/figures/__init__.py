"""Figures fit for a paper: one function a figure, from a table or plain arrays to a Matplotlib `Figure`.

A name in the singular is one panel, in the plural the paper's figure with all its panels.
"""

from innerloop.figures.attention import attention_maps, distances_after_layer
from innerloop.figures.curves import losses_by_examples, losses_under_shifts, losses_while_training
from innerloop.figures.depth import loss_against_depth, losses_against_depth
from innerloop.figures.export import save, save_and_show, svg
from innerloop.figures.layers import loss_after_layer, losses_after_layer
from innerloop.figures.matrices import heat_maps
from innerloop.figures.mechanisms import ablations, binned, output_scale, step_sizes
from innerloop.figures.regret import regret_against_depth, regrets_against_depth
from innerloop.figures.sigma import loss_against_sigma, losses_against_sigma
from innerloop.figures.theorems import error_against_context, layers_against_condition

__all__ = [
    "ablations",
    "attention_maps",
    "binned",
    "distances_after_layer",
    "error_against_context",
    "heat_maps",
    "layers_against_condition",
    "loss_after_layer",
    "loss_against_depth",
    "loss_against_sigma",
    "losses_after_layer",
    "losses_against_depth",
    "losses_against_sigma",
    "losses_by_examples",
    "losses_under_shifts",
    "losses_while_training",
    "output_scale",
    "regret_against_depth",
    "regrets_against_depth",
    "save",
    "save_and_show",
    "step_sizes",
    "svg",
]
