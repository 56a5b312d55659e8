"""The outputs of `innerloop reproduce goel2026`: pictures, and a table in CSV, of the frames that the jobs left."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from innerloop import figures
from innerloop.evaluation.convergence import ratio_of_means
from innerloop.files import write_atomically
from innerloop.papers.findings import grids
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.papers.goel2026.findings import depth, findings, learned, sequences_needed
from innerloop.papers.goel2026.inside import LEAST_SQUARES
from innerloop.papers.goel2026.published import published
from innerloop.probe.linear_probes import LABEL
from innerloop.report import Grid, Picture, Section, number

_LOSS = f"squared error / {DIM}"
_HYBRIDS = (
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


@dataclass(frozen=True)
class Output:
    """What can be asked for.

    Attributes:
        title: in the report.
        kinds: of the frames that it needs.
        draw: makes it of these, in order; told whether the published sizes were trained.
    """

    title: str
    kinds: tuple[str, ...]
    draw: Callable[..., Drawn]


def make(name: str, frames: dict[str, pl.DataFrame], published_sizes: bool, folder: Path) -> Section:
    """Draw the output `name`, write its files into `folder`, and give its part of the report."""
    output = OUTPUTS[name]
    drawn = output.draw(*(frames[kind] for kind in output.kinds), published_sizes)
    write_atomically(folder / f"{name}.csv", drawn.table.write_csv)
    if drawn.grids:
        return Section(name, output.title, grids=drawn.grids)
    table = drawn.table if drawn.shown is None else drawn.shown
    rows = tuple(tuple(_text(value) for value in row) for row in table.iter_rows())
    grid = Grid(drawn.caption, tuple(column.replace("_", " ") for column in table.columns), rows)
    if drawn.picture is None:
        return Section(name, output.title, grids=(grid,))
    figure, caption = drawn.picture
    picture = Picture(name, figures.save_and_show(figure, folder, name), caption)
    return Section(name, output.title, grids=(grid,), pictures=(picture,))


def _text(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


# As published: columns architecture, layers, seed, step, sequences_seen, set, position, loss, parameters.


def _curves(frame: pl.DataFrame, published_sizes: bool) -> Drawn:
    last = _last_point(frame).filter((pl.col("set") == "isotropic") & (pl.col("step") > 0))
    table = last.select(
        _layers().alias("panel"),
        _architecture().alias("method"),
        "seed",
        pl.col("sequences_seen").alias("sequences"),
        pl.col("loss").alias("value"),
    )
    printed = _printed(frame) if published_sizes else {}
    figure = figures.losses_while_training(
        table, loss=f"test loss at the last point ({_LOSS})", published=printed
    )
    caption = (
        "The paper's training: learning rate, batch, number of steps and final LayerNorm differ between the two, so the "
        "curves do not say which attention is better on equal terms."
    )
    if not learned(_last_point(frame).filter(set="isotropic")):
        caption += " So few of the published steps end on the plateau at the loss of predicting zero."
    return Drawn(
        _final(frame, published_sizes), "Loss at the last of 10 points, over seeds.", (figure, caption)
    )


def _final(frame: pl.DataFrame, published_sizes: bool) -> pl.DataFrame:
    """The last evaluation of every program: loss, its standard error over seeds, and what the shifted weights add."""
    last = _last_point(frame).filter(pl.col("step") == pl.col("step").max().over("architecture", "layers"))
    wide = last.pivot(
        on="set", index=["architecture", "layers", "seed", "parameters", "sequences_seen"], values="loss"
    )
    shifted = pl.col("anisotropic") / pl.col("isotropic") - 1
    table = wide.group_by("layers", "architecture", maintain_order=True).agg(
        loss=pl.col("isotropic").cast(pl.Float64).mean(),
        standard_error=_standard_error(pl.col("isotropic")),
        lost_by_shifted_weights=shifted.cast(pl.Float64).mean(),
        its_standard_error=_standard_error(shifted),
        seeds=pl.len(),
        sequences_seen=pl.col("sequences_seen").first(),
        parameters=pl.col("parameters").first(),
    )
    table = table.with_columns(_architecture()).sort("layers", "architecture")
    if not published_sizes:
        return table
    printed = _printed(frame)
    values = [printed.get((depth(row["layers"]), row["architecture"])) for row in table.to_dicts()]
    return table.with_columns(published=pl.Series(values, dtype=pl.Float64))


_SPEED = {
    "layers": pl.Int64,
    "softmax": pl.Float64,
    "linear": pl.Float64,
    "softmax_by_seed": pl.String,
    "linear_by_seed": pl.String,
    "ratio": pl.Float64,
    "95_%_from": pl.Float64,
    "95_%_to": pl.Float64,
}


def _speed(frame: pl.DataFrame, published_sizes: bool) -> Drawn:
    rows = []
    for (layers,), same in _last_point(frame).group_by("layers", maintain_order=True):
        same = same.filter(set="isotropic")
        found = {}
        for (architecture,), own in same.group_by("architecture", maintain_order=True):
            found[architecture] = sequences_needed(own)
        if set(found) != {"quadratic", "linear"}:
            continue
        if not learned(same):
            rows.append({"layers": layers})
            continue
        ratio, low, high = ratio_of_means(found["quadratic"], found["linear"])
        rows.append(
            {
                "layers": layers,
                "softmax": float(found["quadratic"].mean()),
                "linear": float(found["linear"].mean()),
                "softmax_by_seed": _listed(found["quadratic"]),
                "linear_by_seed": _listed(found["linear"]),
                "ratio": ratio,
                "95_%_from": low,
                "95_%_to": high,
            }
        )
    caption = (
        "Training sequences until the test loss has covered 90 % of its way from its first value to its best; the ratio's "
        f"interval is a bootstrap over seeds. Published: a ratio of {published()['published']['convergence_speed_ratio']}."
    )
    if any(len(row) == 1 for row in rows):
        caption += " Where there are no numbers, neither has left the plateau at the loss of predicting zero."
    return Drawn(pl.DataFrame(rows, schema=_SPEED).sort("layers"), caption)


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:,.0f}" for value in values)


# On equal terms: columns mixers, optimizer, feature_map, final_layer_norm, data, layers, learning_rate, seed, step,
# sequences_seen, set, position, loss, chosen, parameters.

_ARM = ["mixers", "layers", "optimizer", "feature_map", "final_layer_norm", "data"]


def _matched(frame: pl.DataFrame, _: bool) -> Drawn:
    frame = _last_point(frame.filter("chosen"))
    main = frame.filter(
        (pl.col("set") == "test") & (pl.col("sequences_seen") > 0) & _alike() & (pl.col("loss") > 0)
    ).sort("layers", "optimizer", maintain_order=True)
    curves = main.select(
        pl.format("{}, {}", _layers(), _optimizer()).alias("panel"),
        _method().alias("method"),
        "seed",
        pl.col("sequences_seen").alias("sequences"),
        pl.col("loss").alias("value"),
    )
    columns = min(3, curves["panel"].n_unique())
    figure = figures.losses_while_training(
        curves, loss=f"test loss at the last point ({_LOSS})", columns=columns
    )
    last = _at_the_end(frame)
    wide = last.filter(pl.col("set").is_in(["test", "validation"])).pivot(
        on="set", index=[*_ARM, "learning_rate", "seed", "parameters"], values="loss"
    )
    table = (
        wide.group_by([*_ARM, "learning_rate", "parameters"], maintain_order=True)
        .agg(
            test_loss=pl.col("test").cast(pl.Float64).mean(),
            standard_error=_standard_error(pl.col("test")),
            validation_loss=pl.col("validation").cast(pl.Float64).mean(),
            seeds=pl.len(),
        )
        .sort("test_loss")
        .select(_method().alias("method"), pl.all())
    )
    caption = (
        "Every arm has the same stream of fresh sequences (but those on the pool), batch, number of samples and width; its "
        "learning rate is the one of the grid with the least validation loss, of the first seed on a CPU, of all on an "
        f"accelerator. Best first. {_HYBRIDS}"
    )
    return Drawn(
        table,
        caption,
        (figure, "On equal terms, with a final LayerNorm and fresh sequences; relu2 features."),
    )


def _shifts(frame: pl.DataFrame, _: bool) -> Drawn:
    last = _at_the_end(_last_point(_best_arms(frame))).filter(pl.col("set") != "validation")
    table = _over_seeds(last, ["method", "set"]).rename({"set": "shift"})
    figure = figures.losses_under_shifts(
        table.select("method", "shift", "value", "standard_error"), loss=_LOSS
    )
    caption = (
        "Loss at the last point on test sets that differ from the training data in one thing: the weights' or the inputs' "
        "variances (0.5, 1, 1.5, 1, 1.75), weights twice as large, or labels with noise of standard deviation 0.5, the "
        "prediction being judged without it. Of every mixer the optimiser with the least validation loss is shown. "
        + _HYBRIDS
    )
    return Drawn(table, "The same as numbers.", (figure, caption))


def _positions(frame: pl.DataFrame, _: bool) -> Drawn:
    last = _at_the_end(_best_arms(frame)).filter(set="test")
    table = _over_seeds(last, ["method", "position"]).rename({"position": "examples"})
    floor = {examples: max(0.0, 1 - examples / DIM) for examples in range(POINTS)}
    table = table.with_columns(
        least_squares=pl.col("examples").cast(pl.Int64).replace_strict(floor, return_dtype=pl.Float64)
    )
    figure = figures.losses_by_examples(
        table.select("method", pl.col("examples").cast(pl.Int64), "value", "standard_error"),
        loss=_LOSS,
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
    chosen = frame.filter(pl.col("chosen") & _plain())
    judged = _at_the_end(_last_point(chosen)).filter(set="validation")
    best = (
        judged.group_by("mixers", "optimizer", maintain_order=True)
        .agg(pl.col("loss").mean())
        .sort("loss")
        .unique("mixers", keep="first", maintain_order=True)
    )
    found = chosen.join(best.select("mixers", "optimizer"), on=["mixers", "optimizer"], maintain_order="left")
    return found.with_columns(method=_method())


def _alike() -> pl.Expr:
    """Fresh sequences, a final LayerNorm and the paper's features."""
    return (pl.col("data") == "fresh") & pl.col("final_layer_norm") & (pl.col("feature_map") == "relu2")


def _plain() -> pl.Expr:
    """Those, with the setting's depth: the others are deeper."""
    return _alike() & (pl.col("layers") == pl.col("layers").min())


def _depth(as_published: pl.DataFrame, matched: pl.DataFrame, published_sizes: bool) -> Drawn:
    columns = ["panel", "method", "layers", "value", "standard_error", "seeds", "published"]
    theirs = _final(as_published, published_sizes)
    if "published" not in theirs.columns:
        theirs = theirs.with_columns(published=pl.lit(None, pl.Float64))
    theirs = theirs.rename({"architecture": "method", "loss": "value"}).with_columns(
        panel=pl.lit("as published")
    )
    ends = _at_the_end(_last_point(matched.filter(pl.col("chosen") & _alike()))).filter(set="test")
    ours = _over_seeds(
        ends.select(
            pl.format("on equal terms, {}", _optimizer()).alias("panel"),
            _method().alias("method"),
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
        loss=f"test loss at the last point ({_LOSS})",
        columns=min(3, len(panels)),
    )
    caption = (
        "As published, learning rate, batch, number of steps, final LayerNorm, initial values and activation differ "
        "between them; on equal terms only how tokens are mixed does, and with it the learning rate that is chosen. "
        "Error bars: two standard errors over seeds. Without noise the Bayes-optimal loss after 9 examples in "
        f"{DIM} dimensions is zero. {_HYBRIDS}"
    )
    if len(shown) < len(whole):
        caption += " An optimiser with one depth is in the table only."
    return Drawn(
        whole.sort("panel", "layers", "value", maintain_order=True), "As numbers.", (figure, caption)
    )


# Inside arms: columns mixers, optimizer, feature_map, final_layer_norm, data, layers, validation_loss, and those of
# `innerloop.papers.goel2026.inside`.


def _attention(frame: pl.DataFrame, _: bool) -> Drawn:
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
        f"validation loss, its first seed. Tokens are x0, y0, x1, .., and predictions are read at x. {_HYBRIDS}"
    )
    told = "Where the token of the last x, at which the query is answered, looks most; the CSV has all pairs."
    return Drawn(table, told, (figure, caption), shown)


def _probes(frame: pl.DataFrame, _: bool) -> Drawn:
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
        f"{_HYBRIDS}"
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


def _findings(as_published: pl.DataFrame, matched: pl.DataFrame, _: bool) -> Drawn:
    found = findings(as_published, matched)
    return Drawn(found, "", grids=grids(found))


def _best_inside(frame: pl.DataFrame) -> pl.DataFrame:
    """Of every mixer the arm of least validation loss among those of `_best_arms`, with the mixer's name as `method`."""
    plain = frame.filter(_plain())
    best = plain.filter(pl.col("validation_loss") == pl.col("validation_loss").min().over("mixers"))
    return best.with_columns(method=_method())


def _method() -> pl.Expr:
    """What a reader is told of the column `mixers`."""
    mixers = pl.col("mixers")
    by_head, by_layer = mixers.str.contains("+", literal=True), mixers.str.contains(",", literal=True)
    named = pl.when(by_layer).then(pl.lit("hybrid by layer")).otherwise(mixers)
    return pl.when(by_head).then(pl.lit("hybrid by head")).otherwise(named)


def _over_seeds(frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    return frame.group_by(by, maintain_order=True).agg(
        value=pl.col("loss").cast(pl.Float64).mean(),
        standard_error=_standard_error(pl.col("loss")),
        seeds=pl.len(),
    )


def _standard_error(values: pl.Expr) -> pl.Expr:
    return values.cast(pl.Float64).std() / pl.len().sqrt()


def _last_point(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("position") == POINTS - 1)


def _at_the_end(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("step") == pl.col("step").max())


def _architecture() -> pl.Expr:
    return pl.col("architecture").replace({"quadratic": "softmax"})


def _optimizer() -> pl.Expr:
    return pl.col("optimizer").replace({"adam": "Adam", "muon": "Muon"})


def _layers() -> pl.Expr:
    return pl.format("{} layers", "layers").replace({"1 layers": "1 layer"})


def _printed(frame: pl.DataFrame) -> dict[tuple[str, str], float]:
    """The published loss of those (depth, architecture) that are in the frame and in the paper or its notebooks."""
    numbers = published()
    known = {
        ("6 layers", "linear"): numbers["published"]["test_mse_6_layers"]["linear"],
        ("6 layers", "softmax"): numbers["published"]["test_mse_6_layers"]["quadratic"],
        ("3 layers", "softmax"): numbers["seen_in_the_public_notebooks"]["quadratic_3_layers"]["isotropic"][
            0
        ],
    }
    here = set(frame.select(_layers(), _architecture()).unique().iter_rows())
    return {line: value for line, value in known.items() if line in here}


OUTPUTS = {
    "curves": Output("As published", ("published",), _curves),
    "speed": Output("How fast training is, as published", ("published",), _speed),
    "matched": Output("On equal terms", ("matched",), _matched),
    "depth": Output("Loss against depth", ("published", "matched"), _depth),
    "shifts": Output("Test sets that differ from training", ("matched",), _shifts),
    "positions": Output("Loss after every example", ("matched",), _positions),
    "attention": Output("What heads attend to", ("attention",), _attention),
    "probes": Output("How far each layer is from classical predictions", ("probes",), _probes),
    "findings": Output("What it says", ("published", "matched"), _findings),
}
