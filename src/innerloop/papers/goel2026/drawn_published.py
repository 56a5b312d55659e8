"""The grid as published, drawn.

Columns: architecture, layers, seed, step, sequences_seen, set, position, loss, parameters.
"""

import numpy as np
import polars as pl

from innerloop import figures
from innerloop.evaluation.convergence import ratio_of_means
from innerloop.papers.goel2026.drawn import (
    LOSS,
    Drawn,
    architecture_name,
    last_point,
    layers_named,
    standard_error,
)
from innerloop.papers.goel2026.findings import depth, learned, sequences_needed
from innerloop.papers.goel2026.published import published


def curves(frame: pl.DataFrame, published_sizes: bool) -> Drawn:
    """Test loss while training, a panel a depth."""
    last = last_point(frame).filter((pl.col("set") == "isotropic") & (pl.col("step") > 0))
    table = last.select(
        layers_named().alias("panel"),
        architecture_name().alias("method"),
        "seed",
        pl.col("sequences_seen").alias("sequences"),
        pl.col("loss").alias("value"),
    )
    printed = _printed(frame) if published_sizes else {}
    figure = figures.losses_while_training(
        table, loss=f"test loss at the last point ({LOSS})", published=printed
    )
    caption = (
        "The paper's training: learning rate, batch, number of steps and final LayerNorm differ between the two, so the "
        "curves do not say which attention is better on equal terms."
    )
    if not learned(last_point(frame).filter(set="isotropic")):
        caption += " So few of the published steps end on the plateau at the loss of predicting zero."
    return Drawn(
        final(frame, published_sizes), "Loss at the last of 10 points, over seeds.", (figure, caption)
    )


def final(frame: pl.DataFrame, published_sizes: bool) -> pl.DataFrame:
    """The last evaluation of every program: loss, its standard error over seeds, and what the shifted weights add."""
    last = last_point(frame).filter(pl.col("step") == pl.col("step").max().over("architecture", "layers"))
    wide = last.pivot(
        on="set", index=["architecture", "layers", "seed", "parameters", "sequences_seen"], values="loss"
    )
    shifted = pl.col("anisotropic") / pl.col("isotropic") - 1
    table = wide.group_by("layers", "architecture", maintain_order=True).agg(
        loss=pl.col("isotropic").cast(pl.Float64).mean(),
        standard_error=standard_error(pl.col("isotropic")),
        lost_by_shifted_weights=shifted.cast(pl.Float64).mean(),
        its_standard_error=standard_error(shifted),
        seeds=pl.len(),
        sequences_seen=pl.col("sequences_seen").first(),
        parameters=pl.col("parameters").first(),
    )
    table = table.with_columns(architecture_name()).sort("layers", "architecture")
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


def speed(frame: pl.DataFrame, published_sizes: bool) -> Drawn:
    """Sequences to 90 % of the way, and their ratio."""
    rows = []
    for (layers,), same in last_point(frame).group_by("layers", maintain_order=True):
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
    here = set(frame.select(layers_named(), architecture_name()).unique().iter_rows())
    return {line: value for line, value in known.items() if line in here}
