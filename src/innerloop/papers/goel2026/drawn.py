"""What the outputs of `innerloop reproduce goel2026` have in common: their form, names, and rows of the jobs' frames."""

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.report import Grid

LOSS = f"squared error / {DIM}"
HYBRIDS = (
    "Hybrid by layer: softmax in the first layer, linear attention in the others. Hybrid by head: in every layer half of "
    "the heads are softmax, half linear."
)


@dataclass(frozen=True)
class Drawn:
    """An output.

    Attributes:
        table: the whole, as CSV.
        caption: what the report's table says.
        picture: a figure and its caption, if there is one.
        shown: the report's table, where the whole is too long.
        grids: the report's tables, where one does not do.
    """

    table: pl.DataFrame
    caption: str
    picture: tuple[Figure, str] | None = None
    shown: pl.DataFrame | None = None
    grids: tuple[Grid, ...] = ()


def mixer_name() -> pl.Expr:
    """What a reader is told of the column `mixers`."""
    mixers = pl.col("mixers")
    by_head, by_layer = mixers.str.contains("+", literal=True), mixers.str.contains(",", literal=True)
    named = pl.when(by_layer).then(pl.lit("hybrid by layer")).otherwise(mixers)
    return pl.when(by_head).then(pl.lit("hybrid by head")).otherwise(named)


def over_seeds(frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Mean loss of what is alike in the columns `by`, its standard error, and of how many seeds."""
    return frame.group_by(by, maintain_order=True).agg(
        value=pl.col("loss").cast(pl.Float64).mean(),
        standard_error=standard_error(pl.col("loss")),
        seeds=pl.len(),
    )


def standard_error(values: pl.Expr) -> pl.Expr:
    return values.cast(pl.Float64).std() / pl.len().sqrt()


def last_point(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("position") == POINTS - 1)


def at_the_end(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("step") == pl.col("step").max())


def architecture_name() -> pl.Expr:
    return pl.col("architecture").replace({"quadratic": "softmax"})


def optimizer_name() -> pl.Expr:
    return pl.col("optimizer").replace({"adam": "Adam", "muon": "Muon"})


def layers_named() -> pl.Expr:
    return pl.format("{} layers", "layers").replace({"1 layers": "1 layer"})


def alike() -> pl.Expr:
    """Fresh sequences, a final LayerNorm and the paper's features."""
    return (pl.col("data") == "fresh") & pl.col("final_layer_norm") & (pl.col("feature_map") == "relu2")


def plain() -> pl.Expr:
    """Those, with the setting's depth: the others are deeper."""
    return alike() & (pl.col("layers") == pl.col("layers").min())
