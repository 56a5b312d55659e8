"""What comes out: each output's pictures and tables, drawn from the measured frames and from nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from innerloop import figures
from innerloop.figures.axes import power
from innerloop.figures.grid import spelt
from innerloop.papers.findings import grids
from innerloop.papers.vladymyrov2024.findings import SINGLE_CARRY, findings, results, worse
from innerloop.papers.vladymyrov2024.measured import Part, read
from innerloop.papers.vladymyrov2024.study import NOISELESS, PAPERS, SPREAD
from innerloop.report import Grid, Picture, Section, Table1, html, number, write_table1
from innerloop.tasks import Categorical, parse_noise

_BASELINES = ("constrr", "adarr", "tunedrr")
_ROUNDING = 1e-26  # half a squared error that is 0 but for float64
_SINGLE = "Ours are single runs, seed 0; the paper's the best of five."
_MEDIAN = (
    "Without noise, at 4 layers or more, the mean is carried by one sequence in 100 000 or fewer: there ours is the "
    "median of the means of draws of 100 000 sequences, which is what the published numbers are means of."
)


@dataclass(frozen=True)
class Drawn:
    """An output's content: figures by file name with their captions, tables for the page, and the HTML of Table 1."""

    pictures: dict[str, tuple[Figure, str]] = field(default_factory=dict)
    grids: tuple[Grid, ...] = ()
    html: str = ""


@dataclass(frozen=True)
class Output:
    """Something of the paper's that can be asked for.

    Attributes:
        title: for readers.
        needs: whether it needs a part.
        draw: from a function that gives frames by name, and the folder for tables, to its content.
    """

    title: str
    needs: Callable[[Part], bool]
    draw: Callable[[Callable[[str], pl.DataFrame], Path], Drawn]


def make(name: str, parts: tuple[Part, ...], measured: Path, folder: Path) -> Section:
    """Draw the output of this name from the frames in `measured`, write its files into `folder`, and return its
    section."""
    output = OUTPUTS[name]
    own = [part for part in parts if output.needs(part)]
    drawn = output.draw(lambda frame: read(measured, own, frame), folder)
    pictures = tuple(
        Picture(file, figures.save_and_show(figure, folder, file), caption)
        for file, (figure, caption) in drawn.pictures.items()
    )
    return Section(name, output.title, drawn.html, drawn.grids, pictures)


def _table1(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    losses = frame("losses")
    table = results(losses)
    note = f"{_SINGLE} {_MEDIAN}" if len(losses.filter(SINGLE_CARRY)) else _SINGLE
    write_table1(table, folder, note=note)
    tails = losses.filter(pl.col("layers").is_not_null() & (pl.col("problem") == NOISELESS))
    return Drawn(html=html(Table1.of(table, note)), grids=(_tails(tails),) if len(tails) else ())


def _tails(losses: pl.DataFrame) -> Grid:
    names = ("value", "draws_median", "draws_least", "draws_greatest", "median", "q99", "q999", "worst_share")
    heads = ("mean", "median draw", "least", "greatest", "median sequence", "99 %", "99.9 %", "worst's share")
    return Grid(
        f"Without noise: the mean over all {losses['sequences'][0]:,} sequences, the means of draws of 100 "
        "000 (median, least, greatest), quantiles over sequences, and the share of the mean that the worst "
        "one carries.",
        ("model", "layers", *heads),
        tuple(
            (row["method"], str(row["layers"]), *(number(row[name]) for name in names))
            for row in losses.iter_rows(named=True)
        ),
    )


def _figure1(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    table = _lines_by_depth(results(frame("losses")).filter(pl.col("method") != "OLS"))
    caption = (
        "Adjusted loss against the number of layers. Filled: ours, bars of two standard errors; hollow and "
        "dashed: the paper's Table 1. Below the black line no predictor can be. A line leaves its panel where one sequence "
        "carries the mean. GD++ applies one filter f(Sigma) to alpha, of which the best is ridge with the constant level "
        "E sigma^2, that is ConstRR."
    )
    return Drawn({"figure1": (figures.losses_against_depth(table), caption)})


def _figure2(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    profiles = _final(frame("profiles"))
    every_depth = [
        _lines(profiles.filter(problem=SPREAD, method=method), panel=method)
        for method in _methods(profiles.filter(problem=SPREAD))
    ]
    return Drawn(
        {
            "figure2": (
                figures.losses_against_sigma(_by_problem(profiles)),
                "Adjusted loss at each level of sigma, the deepest model of each kind; shaded: the levels "
                "trained on. The Bayes-optimal predictor is best in the mean over these, not at each.",
            ),
            "figure2_depths": (
                figures.losses_against_sigma(
                    _with_bayes(every_depth, profiles.filter(problem=SPREAD)),
                    in_distribution=SPREAD,
                    columns=3,
                    share=True,
                ),
                f"The same for every depth, trained on {SPREAD}.",
            ),
        }
    )


def _figure3(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    figure = figures.losses_against_sigma(_by_problem(_final(frame("profiles"))), columns=2)
    caption = (
        "As Figure 2, trained on levels of sigma (dotted): outside them nothing was asked of the models."
    )
    return Drawn({"figure3": (figure, caption)})


def _figure4(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    rows = frame("matrices").sort("matrix", "layer", "head", "row", "column")
    size = {name: rows[name].n_unique() for name in ("layer", "head", "row", "column")}
    p, q = (rows.filter(matrix=name)["value"].to_numpy().reshape(*size.values()) for name in "PQ")
    title = f"FULL, {_plural(rows['layers'][0])}, {spelt(rows['problem'][0])}"
    caption = (
        "P and Q of every layer in the paper's convention: a layer adds P S Q to every token, S the plain "
        "sum over the context. c P and Q / c are the same layer, so each row of maps has a scale of its "
        "own."
    )
    return Drawn({"figure4": (figures.heat_maps(p, q, title=title), caption)})


def _figure5(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    layers = frame("layers").filter(pl.col("value").is_finite())
    table = layers.select(
        pl.col("method").alias("panel"), _plural_of("layers").alias("method"), "seed", "layer", "value"
    )
    caption = (
        f"Adjusted loss of the prediction read off after each layer, trained on {SPREAD}: median over "
        f"{layers['seed'].n_unique()} seeds and the band of all. Only the last layer was trained for."
    )
    return Drawn({"figure5": (figures.losses_after_layer(table, floor=layers["floor"][0]), caption)})


def _figure6(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    profiles = _final(frame("profiles")).with_columns(value="unadjusted", standard_error="unadjusted_se")
    figure = figures.losses_against_sigma(
        _by_problem(profiles, ("oracle",)), loss="unadjusted loss (half squared error)"
    )
    caption = "The loss itself at each level of sigma, the deepest model of each kind; the oracle is ridge told sigma."
    return Drawn({"figure6": (figure, caption)})


def _figure7(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    profiles = frame("profiles").filter(problem=SPREAD)
    bayes = _final(profiles).filter(method="bayes")
    pictures = {}
    for method in _methods(profiles):
        own = profiles.filter(pl.col("method") == method, pl.col("layer") > 0)
        deep = own.filter(pl.col("layers") > 1)
        panels = [
            part.with_columns(panel=_plural_of("layers"), method=pl.format("after layer {}", "layer")).select(
                _PANEL
            )
            for _, part in (own if deep.is_empty() else deep).group_by("layers", maintain_order=True)
        ]
        figure = figures.losses_against_sigma(
            _with_bayes(panels, bayes), in_distribution=SPREAD, share=True, title=spelt(method)
        )
        caption = (
            f"Adjusted loss after each layer at each level of sigma, trained on {SPREAD}, a panel a depth."
        )
        pictures[f"figure7_{method.replace('++', 'pp')}"] = (figure, caption)
    return Drawn(pictures)


def _regret(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    losses = frame("losses").filter(pl.col("layers").is_not_null() & pl.col("regret").is_finite())
    table = losses.select(
        "problem",
        "method",
        "layers",
        value=pl.when(SINGLE_CARRY).then("draws_median").otherwise("regret"),  # without noise the floor is 0
        standard_error=pl.when(~SINGLE_CARRY).then("regret_se"),
    )
    caption = (
        "What is left to gain: adjusted loss minus the Bayes floor. Hollow: not told apart from 0. A line leaves its panel "
        "where one sequence carries the mean."
    )
    if len(losses.filter(SINGLE_CARRY)):
        caption = f"{caption} {_MEDIAN}"
    figure = figures.regrets_against_depth(_lines_by_depth(table), panels="problem", columns=4)
    return Drawn({"regret": (figure, caption)})


_PHASES = {
    "solve": "Levenberg-Marquardt",
    "polish": "the same, a larger sample",
    "muon": "Muon",
    "adam": "Adam",
}


def _curves(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    losses, curves = frame("losses"), frame("curves")
    floors = dict(losses.filter(method="floor").select("problem", "value").iter_rows())
    rows, lines, published = [], [], {}
    for entry in worse(losses):
        if not entry.resists or entry.layers is None:
            continue
        name = f"{spelt(entry.problem)}\n{spelt(entry.method)}, {_plural(entry.layers)}"
        rows.append((name.replace("\n", ": "), number(entry.value), entry.published, f"{entry.distance:.1f}"))
        own = curves.filter(
            pl.col("phase").is_in(list(_PHASES)),  # not trials
            pl.col("regret").is_finite() & (pl.col("regret") > 0),
            problem=entry.problem,
            method=entry.method,
            layers=entry.layers,
        )
        if len(own) < 2:  # solved at once, or with poles from its first report on
            continue
        count = (pl.col("report") - pl.col("report").min() + 1).alias("report")
        lines.append(
            own.select(pl.lit(name).alias("entry"), pl.col("phase").replace(_PHASES), count, "regret")
        )
        if (left := float(entry.published) - floors[entry.problem]) > 0:
            published[name, lines[-1]["phase"][-1]] = left
    grid = Grid(
        "Entries of Table 1 that are worse than published by more than two of both standard errors together. The distance "
        "is in units of these.",
        ("entry", "ours", "published", "distance"),
        tuple(rows) or (("none", "", "", ""),),
    )
    if not lines:
        return Drawn(grids=(grid,))
    table = pl.concat(lines)
    table.with_columns(pl.col("entry").str.replace("\n", ": ", literal=True)).write_csv(folder / "curves.csv")
    figure = figures.losses_while_training(
        table.select(
            pl.col("entry").alias("panel"),
            pl.col("phase").alias("method"),
            pl.lit(0).alias("seed"),
            pl.col("report").alias("sequences"),
            pl.col("regret").alias("value"),
        ),
        loss="regret of the model in training",
        published=published,
        seen="iterations of Levenberg-Marquardt, or hundreds of Muon's updates",
        share=False,
        columns=3,
    )
    caption = (
        "Regret on a fixed draw while the best start of that depth is trained, where it is not solved at once. A hollow "
        "mark is the published number less the Bayes floor, where it is above that."
    )
    return Drawn({"curves": (figure, caption)}, (grid,))


def _theorems(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    checks, solver, contexts = (frame(name) for name in ("checks", "solver", "contexts"))
    layers = solver.filter(pl.col("layers").is_finite()).select(
        "condition",
        method=pl.format("error {}", pl.col("error").map_elements(power, pl.String)),
        value="layers",
        standard_error=pl.lit(None, pl.Float64),
    )
    none = pl.lit(None, pl.Float64).alias("standard_error")
    measured = contexts.select(pl.lit("two layers").alias("method"), "context", "value", "standard_error")
    limit = contexts.select(
        pl.lit("limit / n").alias("method"), "context", pl.col("limit").alias("value"), none
    )
    grid = Grid(
        "Each theorem held against the trained models, or against the model written down by hand.",
        ("theorem", "model", "claim", "measured", "bound", "holds"),
        tuple(
            (
                row["theorem"],
                row["model"],
                row["claim"],
                f"{row['measured']:.3g}",
                f"{row['bound']:.3g}",
                "yes" if row["holds"] else "no",
            )
            for row in checks.iter_rows(named=True)
        ),
    )
    checks.write_csv(folder / "theorems.csv")
    return Drawn(
        {
            "theorems_5_1": (
                figures.layers_against_condition(layers, title="GD++ as a solver"),
                "Theorem 5.1: layers of GD++ that solve a linear system to a relative error, against its "
                "condition number. On this logarithmic axis O(log kappa) is a straight line, and a squared "
                "error costs one layer more.",
            ),
            "theorems_5_2": (
                figures.error_against_context(
                    pl.concat([measured, limit]), title="Two layers, sigma \N{ELEMENT OF} {1, 3}"
                ),
                "Theorem 5.2: distance of a two-layer model written down by hand from ridge with the true "
                "sigma, and its limit, worked out to the first order in 1 / n.",
            ),
        },
        (grid,),
    )


def _mechanisms(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    ablated, scales, steps = (frame(name) for name in ("ablations", "scales", "steps"))
    without = pl.col("without").str.replace_all(r"w_(\w\w)", "$$w_{${1}}$$").str.replace_all(r"\+", ", ")
    dots = ablated.filter(pl.col("adjusted_loss").is_finite()).select(
        "method",
        ablation=pl.when(pl.col("without") == "").then(pl.lit("nothing")).otherwise(without),
        value="adjusted_loss",
        standard_error="adjusted_loss_se",
    )
    lines = steps.select(
        "residual_variance",
        "value",
        "standard_error",
        panel="method",
        method=pl.format("layer {}", "layer"),
    )
    ablated.write_csv(folder / "mechanisms_ablations.csv")
    return Drawn(
        {
            "mechanisms_ablations": (
                figures.ablations(dots, floor=ablated["floor"][0], title="Without ..."),
                "Adjusted loss of trained models without some of their flows, on the same sequences and "
                "not trained again. One whose loss overflows is left out here; it is in "
                "mechanisms_ablations.csv.",
            ),
            "mechanisms_output_scale": (
                figures.output_scale(scales.select("method", "residual_variance", "value", "standard_error")),
                "How much of least squares is predicted, against the noise that the context shows (section 5.2).",
            ),
            "mechanisms_step_sizes": (
                figures.step_sizes(lines),
                "How far each layer goes along the gradient, against the noise that the context shows (section 5.3).",
            ),
        }
    )


_PANEL = ("panel", "method", "sigma", "value", "standard_error")


def _final(profiles: pl.DataFrame) -> pl.DataFrame:
    """The rows of the last layer of each model, and of predictors without layers."""
    return profiles.filter(pl.col("layer") == pl.col("layers").fill_null(0))


def _by_problem(profiles: pl.DataFrame, more: tuple[str, ...] = _BASELINES) -> pl.DataFrame:
    """A panel a problem: the paper's models at their deepest in Table 1, what they are compared with, and Bayes."""
    deepest = pl.col("layers") == pl.col("layers").filter(pl.col("layers") < 8).max().over(
        "problem", "method"
    )
    flat = pl.col("layers").is_null() & pl.col("method").is_in([*more, "bayes"])
    shown = profiles.filter(flat | (pl.col("method").is_in(PAPERS) & deepest))
    return _clean(shown.rename({"problem": "panel"}).select(_PANEL))


def _lines(profiles: pl.DataFrame, *, panel: str) -> pl.DataFrame:
    return profiles.with_columns(panel=pl.lit(panel), method=_plural_of("layers")).select(_PANEL)


def _with_bayes(panels: list[pl.DataFrame], profiles: pl.DataFrame) -> pl.DataFrame:
    """Panels, each with the line of the Bayes-optimal predictor."""
    bayes = profiles.filter(pl.col("method") == "bayes")
    own = [bayes.with_columns(panel=pl.lit(panel["panel"][0])).select(_PANEL) for panel in panels]
    return _clean(pl.concat([each for pair in zip(panels, own, strict=True) for each in pair]))


def _clean(frame: pl.DataFrame) -> pl.DataFrame:
    """What is 0 but for rounding as 0, so that no axis runs down to it; and no infinity, which no axis holds."""
    rounding = pl.col("value").abs() < _ROUNDING
    zeros = [pl.when(rounding).then(0.0).otherwise(name).alias(name) for name in ("value", "standard_error")]
    return frame.filter(pl.col("value").is_finite()).with_columns(zeros)


def _lines_by_depth(frame: pl.DataFrame) -> pl.DataFrame:
    """Clean, and without the points of lines that are 0, which are below every logarithmic axis."""
    return _clean(frame).filter(pl.col("layers").is_null() | (pl.col("value") != 0))


def _methods(profiles: pl.DataFrame) -> Iterator[str]:
    """The paper's methods that there are."""
    there = set(profiles["method"])
    return (method for method in PAPERS if method in there)


def _plural_of(column: str) -> pl.Expr:
    return pl.format(
        "{} layer{}", column, pl.when(pl.col(column) == 1).then(pl.lit("")).otherwise(pl.lit("s"))
    )


def _plural(layers: int) -> str:
    return f"{layers} layer{'s' if layers > 1 else ''}"


def _findings(frame: Callable[[str], pl.DataFrame], folder: Path) -> Drawn:
    found = findings(frame)
    found.write_csv(folder / "findings.csv")
    return Drawn(grids=grids(found))


def _of(*kinds: str) -> Callable[[Part], bool]:
    return lambda part: part.kind in kinds


def _profiles_of(categorical: bool) -> Callable[[Part], bool]:
    return lambda part: (
        part.kind == "profiles" and isinstance(parse_noise(part.about), Categorical) == categorical
    )


OUTPUTS = {
    "table1": Output("Table 1", _of("losses"), _table1),
    "figure1": Output("Figure 1: loss against depth", _of("losses"), _figure1),
    "figure2": Output("Figure 2: loss against sigma", _profiles_of(False), _figure2),
    "figure3": Output("Figure 3: loss against sigma, levels", _profiles_of(True), _figure3),
    "figure4": Output("Figure 4: matrices", _of("matrices"), _figure4),
    "figure5": Output("Figure 5: loss after each layer", _of("layers"), _figure5),
    "figure6": Output("Figure 6: unadjusted loss", _of("profiles"), _figure6),
    "figure7": Output(
        "Figure 7: layer by layer",
        lambda part: (part.kind, part.about) == ("profiles", SPREAD),
        _figure7,
    ),
    "regret": Output("Regret against depth", _of("losses"), _regret),
    "curves": Output("Training curves of entries that resist", _of("losses", "curves"), _curves),
    "theorems": Output("Theorems", _of("theorems"), _theorems),
    "mechanisms": Output("Mechanisms", _of("mechanisms"), _mechanisms),
    "findings": Output("What it says", _of("losses", "tails", "choice", "layers", "theorems"), _findings),
}
