"""Figures fit for a paper: one function a figure, from a table or plain arrays to a Matplotlib `Figure`."""

from innerloop.figures.depth import loss_against_depth, regret_against_depth
from innerloop.figures.export import save, svg
from innerloop.figures.layers import loss_after_layer
from innerloop.figures.matrices import heat_maps
from innerloop.figures.sigma import loss_against_sigma

__all__ = [
    "heat_maps",
    "loss_after_layer",
    "loss_against_depth",
    "loss_against_sigma",
    "regret_against_depth",
    "save",
    "svg",
]
