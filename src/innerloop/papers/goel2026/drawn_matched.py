"""Arms on equal terms, drawn.

Columns: mixers, optimizer, feature_map, final_layer_norm, data, layers, learning_rate, seed,
step, sequences_seen, set, position, loss, chosen, parameters.
"""

import polars as pl

from innerloop import figures
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.papers.goel2026.drawn import (
    HYBRIDS,
    LOSS,
    Drawn,
    alike,
    at_the_end,
    last_point,
    layers_named,
    mixer_name,
    optimizer_name,
    over_seeds,
    plain,
    standard_error,
)
from innerloop.papers.goel2026.drawn_published import final

_ARM = ["mixers", "layers", "optimizer", "feature_map", "final_layer_norm", "data"]


def matched(frame: pl.DataFrame, _: bool) -> Drawn:
    """Test loss while training, a panel a depth and optimiser, and a table of all arms."""
    frame = last_point(frame.filter("chosen"))
    main = frame.filter(
        (pl.col("set") == "test") & (pl.col("sequences_seen") > 0) & alike() & (pl.col("loss") > 0)
    ).sort("layers", "optimizer", maintain_order=True)
    curves = main.select(
        pl.format("{}, {}", layers_named(), optimizer_name()).alias("panel"),
        mixer_name().alias("method"),
        "seed",
        pl.col("sequences_seen").alias("sequences"),
        pl.col("loss").alias("value"),
    )
    columns = min(3, curves["panel"].n_unique())
    figure = figures.losses_while_training(
        curves, loss=f"test loss at the last point ({LOSS})", columns=columns
    )
    last = at_the_end(frame)
    wide = last.filter(pl.col("set").is_in(["test", "validation"])).pivot(
        on="set", index=[*_ARM, "learning_rate", "seed", "parameters"], values="loss"
    )
    table = (
        wide.group_by([*_ARM, "learning_rate", "parameters"], maintain_order=True)
        .agg(
            test_loss=pl.col("test").cast(pl.Float64).mean(),
            standard_error=standard_error(pl.col("test")),
            validation_loss=pl.col("validation").cast(pl.Float64).mean(),
            seeds=pl.len(),
        )
        .sort("test_loss")
        .select(mixer_name().alias("method"), pl.all())
    )
    caption = (
        "Every arm has the same stream of fresh sequences (but those on the pool), batch, number of samples and width; its "
        "learning rate is the one of the grid with the least validation loss, of the first seed on a CPU, of all on an "
        f"accelerator. Best first. {HYBRIDS}"
    )
    return Drawn(
        table,
        caption,
        (figure, "On equal terms, with a final LayerNorm and fresh sequences; relu2 features."),
    )


def shifts(frame: pl.DataFrame, _: bool) -> Drawn:
    """Losses on test sets that differ from training in one thing."""
    last = at_the_end(last_point(_best_arms(frame))).filter(pl.col("set") != "validation")
    table = over_seeds(last, ["method", "set"]).rename({"set": "shift"})
    figure = figures.losses_under_shifts(
        table.select("method", "shift", "value", "standard_error"), loss=LOSS
    )
    caption = (
        "Loss at the last point on test sets that differ from the training data in one thing: the weights' or the inputs' "
        "variances (0.5, 1, 1.5, 1, 1.75), weights twice as large, or labels with noise of standard deviation 0.5, the "
        "prediction being judged without it. Of every mixer the optimiser with the least validation loss is shown. "
        + HYBRIDS
    )
    return Drawn(table, "The same as numbers.", (figure, caption))


def positions(frame: pl.DataFrame, _: bool) -> Drawn:
    """Losses after every example beside those of least squares."""
    last = at_the_end(_best_arms(frame)).filter(set="test")
    table = over_seeds(last, ["method", "position"]).rename({"position": "examples"})
    floor = {examples: max(0.0, 1 - examples / DIM) for examples in range(POINTS)}
    table = table.with_columns(
        least_squares=pl.col("examples").cast(pl.Int64).replace_strict(floor, return_dtype=pl.Float64)
    )
    figure = figures.losses_by_examples(
        table.select("method", pl.col("examples").cast(pl.Int64), "value", "standard_error"),
        loss=LOSS,
        floor=floor,
    )
    caption = (
        "A shorter context is an earlier position. Without noise, least squares of least norm is Bayes-optimal: after k "
        f"examples it loses 1 - k/{DIM}, and nothing from k = {DIM} on."
    )
    return Drawn(table, "The same as numbers.", (figure, caption))


def _best_arms(frame: pl.DataFrame) -> pl.DataFrame:
    """Of every mixer the arm of least mean validation loss among those with fresh sequences, LayerNorm and relu2 features,
    at the learning rate that was chosen; with the mixer's name as `method`."""
    chosen = frame.filter(pl.col("chosen") & plain())
    judged = at_the_end(last_point(chosen)).filter(set="validation")
    best = (
        judged.group_by("mixers", "optimizer", maintain_order=True)
        .agg(pl.col("loss").mean())
        .sort("loss")
        .unique("mixers", keep="first", maintain_order=True)
    )
    found = chosen.join(best.select("mixers", "optimizer"), on=["mixers", "optimizer"], maintain_order="left")
    return found.with_columns(method=mixer_name())


def depth(as_published: pl.DataFrame, matched: pl.DataFrame, published_sizes: bool) -> Drawn:
    """Loss against depth, as published and on equal terms."""
    columns = ["panel", "method", "layers", "value", "standard_error", "seeds", "published"]
    theirs = final(as_published, published_sizes)
    if "published" not in theirs.columns:
        theirs = theirs.with_columns(published=pl.lit(None, pl.Float64))
    theirs = theirs.rename({"architecture": "method", "loss": "value"}).with_columns(
        panel=pl.lit("as published")
    )
    ends = at_the_end(last_point(matched.filter(pl.col("chosen") & alike()))).filter(set="test")
    ours = over_seeds(
        ends.select(
            pl.format("on equal terms, {}", optimizer_name()).alias("panel"),
            mixer_name().alias("method"),
            "layers",
            "loss",
        ),
        ["panel", "method", "layers"],
    ).with_columns(published=pl.lit(None, pl.Float64))
    whole = pl.concat(
        [
            frame.with_columns(pl.col("layers", "seeds").cast(pl.Int64)).select(columns)
            for frame in (theirs, ours)
        ]
    )
    depths = pl.col("layers").n_unique().over("panel")
    shown = whole.filter(depths > 1) if whole.select((depths > 1).any()).item() else whole
    panels = shown["panel"].unique(maintain_order=True)
    floors = pl.DataFrame({"problem": panels, "method": "floor", "value": 0.0})
    drawn = shown.rename({"panel": "problem"}).drop("seeds").with_columns(pl.col("published").cast(pl.String))
    figure = figures.losses_against_depth(
        pl.concat([drawn, floors], how="diagonal"),
        loss=f"test loss at the last point ({LOSS})",
        columns=min(3, len(panels)),
    )
    caption = (
        "As published, learning rate, batch, number of steps, final LayerNorm, initial values and activation differ "
        "between them; on equal terms only how tokens are mixed does, and with it the learning rate that is chosen. "
        "Error bars: two standard errors over seeds. Without noise the Bayes-optimal loss after 9 examples in "
        f"{DIM} dimensions is zero. {HYBRIDS}"
    )
    if len(shown) < len(whole):
        caption += " An optimiser with one depth is in the table only."
    return Drawn(
        whole.sort("panel", "layers", "value", maintain_order=True), "As numbers.", (figure, caption)
    )
