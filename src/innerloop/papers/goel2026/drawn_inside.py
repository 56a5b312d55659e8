"""What goes on inside the arms, drawn: columns mixers, optimizer, feature_map, final_layer_norm, data, layers,
validation_loss, and those of `innerloop.papers.goel2026.inside`.
"""

import polars as pl

from innerloop import figures
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.papers.goel2026.drawn import HYBRIDS, Drawn, mixer_name, plain
from innerloop.papers.goel2026.inside import LEAST_SQUARES
from innerloop.probe.linear_probes import LABEL


def attention(frame: pl.DataFrame, _: bool) -> Drawn:
    """Maps of what heads attend to, a row a mixer and a panel a layer."""
    best = _best_inside(frame)
    both = pl.col("kind").n_unique().over("method", "layer") > 1
    heads = pl.format("{}, {} heads", "method", "kind")
    table = best.select(
        pl.when(both).then(heads).otherwise("method").alias("method"),
        *("layer", "kind", "token", "attended", "weight", "standard_error"),
    ).with_columns(pl.col("token", "attended").cast(pl.Int64))
    figure = figures.attention_maps(table.select("method", "layer", "token", "attended", "weight"))
    named = [
        pl.format(
            "{}{}", pl.when(pl.col(name) % 2 == 0).then(pl.lit("x")).otherwise(pl.lit("y")), pl.col(name) // 2
        )
        for name in ("token", "attended")
    ]
    table = table.with_columns(token_name=named[0], attended_name=named[1])
    shown = (
        table.filter(token=2 * POINTS - 2)
        .sort("weight", descending=True, maintain_order=True)
        .group_by("method", "layer", maintain_order=True)
        .head(3)
        .sort("method", "layer", maintain_order=True)
        .select("method", "layer", "token_name", "attended_name", "weight", "standard_error")
        .rename({"token_name": "token", "attended_name": "attended"})
    )
    caption = (
        "Weights with which a head sums values, the mean over heads and test sequences: softmax's, and linear attention's "
        "effective ones, the products of its relu2 features over their sum. Of every mixer the arm with the least "
        f"validation loss, its first seed. Tokens are x0, y0, x1, .., and predictions are read at x. {HYBRIDS}"
    )
    told = "Where the token of the last x, at which the query is answered, looks most; the CSV has all pairs."
    return Drawn(table, told, (figure, caption), shown)


def probes(frame: pl.DataFrame, _: bool) -> Drawn:
    """How far each layer is from the predictions of gradient descent and least squares."""
    best = _best_inside(frame)
    table = best.select(
        "method", "examples", "model", "layer", "target", "probe", "probe_se", "read_out", "read_out_se"
    )
    drawn = table.filter((pl.col("target") != LABEL) & (pl.col("probe") > 0)).select(
        pl.format("{}, {} examples", "method", "examples").alias("panel"),
        pl.col("target").alias("method"),
        "model",
        "layer",
        pl.col("probe").alias("value"),
        pl.col("probe_se").alias("standard_error"),
        "examples",
    )
    figure = figures.distances_after_layer(
        drawn.sort("examples", maintain_order=True).drop("examples"),
        distance="1 \N{MINUS SIGN} R² of a linear probe",
        columns=min(4, best["method"].n_unique()),
    )
    caption = (
        "How far each layer, at the token of x after so many examples, is from the predictions of gradient descent with a "
        "tuned step size and of least squares (of least norm): 0 if a linear map of the layer gives them, 1 if the layer "
        "is no help. Probes are fitted on one half of fresh sequences and judged on the other; bands: two standard errors. "
        f"{HYBRIDS}"
    )
    told = (
        "Per layer: the number of steps of gradient descent that a probe comes nearest to, with its 1 - R², that for least "
        "squares, and that of the model's own read-out of the layer against least squares, for which nothing is fitted. "
        f"From {DIM} examples on least squares is the label. The CSV has all targets, the label and the untrained control."
    )
    return Drawn(table, told, (figure, caption), _nearest(table.filter(model="trained").drop("model")))


def _nearest(table: pl.DataFrame) -> pl.DataFrame:
    """A row a layer: the steps of gradient descent that are nearest to it, and least squares."""
    keys = ["method", "examples", "layer"]
    steps = pl.col("target").str.extract(r"^gradient descent, (\d+) step").cast(pl.Int64)
    nearest = (
        table.with_columns(nearest_steps=steps)
        .drop_nulls("nearest_steps")
        .sort("probe", maintain_order=True)
        .unique(keys, keep="first", maintain_order=True)
        .select(*keys, "nearest_steps", pl.col("probe").alias("distance"), pl.col("probe_se").alias("its_se"))
    )
    exact = table.filter(target=LEAST_SQUARES).select(
        *keys,
        pl.col("probe").alias("least_squares"),
        pl.col("probe_se").alias("least_squares_se"),
        pl.col("read_out").alias("read_out_least_squares"),
        pl.col("read_out_se").alias("read_out_se"),
    )
    return exact.join(nearest, on=keys, maintain_order="left").select(*nearest.columns, *exact.columns[3:])


def _best_inside(frame: pl.DataFrame) -> pl.DataFrame:
    """Of every mixer the arm of least validation loss among those with fresh sequences,
    LayerNorm and relu2 features, with the mixer's name as `method`."""
    among = frame.filter(plain())
    best = among.filter(pl.col("validation_loss") == pl.col("validation_loss").min().over("mixers"))
    return best.with_columns(method=mixer_name())
