"""Tables to draw, a maker for every kind of figure, and what is read off a drawn one."""

from pathlib import Path

import numpy as np
import polars as pl

from innerloop import figures

PUBLISHED = Path(figures.__file__).parents[1] / "papers/published/vladymyrov2024_table1.csv"


def depth_table(column: str = "uniform_5") -> pl.DataFrame:
    """The paper's column, and pretended numbers of ours, 2 % lower."""
    rows = pl.read_csv(PUBLISHED).filter(pl.col("layers") > 0)
    published = rows.select(
        "method",
        "layers",
        value=pl.col(column).cast(pl.Float64),
        standard_error=pl.lit(None, dtype=pl.Float64),
        source=pl.lit("published"),
    )
    ours = published.with_columns(
        value=0.98 * pl.col("value"), standard_error=0.01 * pl.col("value"), source=pl.lit("ours")
    )
    return pl.concat([published, ours])


def curve_table(x: str, methods: list[str], points: list) -> dict:
    """Plain columns: a curve for each method, decreasing from one method to the next."""
    rows = [(m, p, (1 + p) / 10 ** (i / 2 + 1)) for i, m in enumerate(methods) for p in points]
    names, places, values = zip(*rows, strict=True)
    return {
        "method": list(names),
        x: np.array(places),
        "value": np.array(values),
        "standard_error": 0.02 * np.array(values),
    }


def matrices(layers: int = 3, heads: int = 1, D: int = 11) -> tuple[np.ndarray, np.ndarray]:
    values = np.sin(np.arange(layers * heads * D * D, dtype=float)).reshape(layers, heads, D, D)
    return 2 * values, 0.03 * values


MAKERS = {
    "depth": lambda: figures.loss_against_depth(
        depth_table(),
        floor=0.0385,
        baselines={"constrr": 0.365, "adarr": 0.068, "tunedrr": 0.049},
        title="U(0, 5)",
    ),
    "regret": lambda: figures.regret_against_depth(
        curve_table("layers", ["full", "diag"], [1, 2, 3]), title="R"
    ),
    "sigma": lambda: figures.loss_against_sigma(
        curve_table("sigma", ["full", "diag", "bayes"], [0.0, 2.0, 4.0, 6.0]), in_distribution="uniform(0,5)"
    ),
    "layer": lambda: figures.loss_after_layer(curve_table("layer", ["full", "diag"], [0, 1, 2]), floor=0.02),
    "heat": lambda: figures.heat_maps(*matrices(), title="P and Q"),
}
