"""Which algorithm a model has learned: its implicit linear model, the theorems about it, and what its flows and layers do.

`describe` puts them together: the algorithm layer by layer, in formulas with numbers, and what each term is worth."""

from typing import TYPE_CHECKING

from innerloop.lazy import lazily

if TYPE_CHECKING:
    from innerloop.probe.algorithm import Algorithm, describe
    from innerloop.probe.check import Check
    from innerloop.probe.constructions import (
        check_linear_solver,
        check_two_levels,
        gd_plus_plus_solver,
        layers_to_solve,
        two_level_limit,
        two_level_ridge,
    )
    from innerloop.probe.decoders import attention_weights, residual_stream
    from innerloop.probe.implicit import ImplicitModel, implicit_model
    from innerloop.probe.linear_probes import layer_distances, probe_shares
    from innerloop.probe.mechanisms import ablate, ablations, output_scales, step_sizes
    from innerloop.probe.nearest import nearest_diag
    from innerloop.probe.theorems import check_linear_map, check_momentum, check_no_quadratic, check_recursion

__all__ = [
    "Algorithm",
    "Check",
    "ImplicitModel",
    "ablate",
    "ablations",
    "attention_weights",
    "check_linear_map",
    "check_linear_solver",
    "check_momentum",
    "check_no_quadratic",
    "check_recursion",
    "check_two_levels",
    "describe",
    "gd_plus_plus_solver",
    "implicit_model",
    "layer_distances",
    "layers_to_solve",
    "nearest_diag",
    "output_scales",
    "probe_shares",
    "residual_stream",
    "step_sizes",
    "two_level_limit",
    "two_level_ridge",
]

__getattr__ = lazily(
    __name__,
    {
        "innerloop.probe.algorithm": ("Algorithm", "describe"),
        "innerloop.probe.check": ("Check",),
        "innerloop.probe.constructions": (
            "check_linear_solver",
            "check_two_levels",
            "gd_plus_plus_solver",
            "layers_to_solve",
            "two_level_limit",
            "two_level_ridge",
        ),
        "innerloop.probe.decoders": ("attention_weights", "residual_stream"),
        "innerloop.probe.implicit": ("ImplicitModel", "implicit_model"),
        "innerloop.probe.linear_probes": ("layer_distances", "probe_shares"),
        "innerloop.probe.mechanisms": ("ablate", "ablations", "output_scales", "step_sizes"),
        "innerloop.probe.nearest": ("nearest_diag",),
        "innerloop.probe.theorems": (
            "check_linear_map",
            "check_momentum",
            "check_no_quadratic",
            "check_recursion",
        ),
    },
)
