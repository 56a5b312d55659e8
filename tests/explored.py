"""Runs as `load_run` gives them, without training or a folder."""

from pathlib import Path

import jax
import numpy as np
import polars as pl

from innerloop.study import Run, parse_spec


def run(kind: str, layers: int, rng, *, noise: str = "uniform(0,2)", dim: int = 3, **task) -> Run:
    """A run whose model has every number moved, so that none is zero."""
    spec = parse_spec(
        {
            "task": {"dim": dim, "context": 8, "noise": noise, **task},
            "model": {"kind": kind, "layers": layers, "heads": 1 if kind == "gd++" else 2},
        }
    )
    model = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) + 0.05 * rng.normal(size=leaf.shape),
        spec.model.build(spec.task.build()),
    )
    return Run(Path(f"runs/{kind}"), spec, model, {layers: model}, {layers: model}, pl.DataFrame(), 0.0)
