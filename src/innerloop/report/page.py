"""The report of a comparison of trained models with the baselines and the Bayes floor."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from innerloop import figures
from innerloop.evaluation import Estimate, Evaluation
from innerloop.files import write_atomically
from innerloop.report.document import Picture, number, render


@dataclass(frozen=True)
class Entry:
    """One trained model in a comparison.

    Attributes:
        method: its name in tables and legends, such as "diag" or "gd++".
        layers: its depth.
        evaluation: how well it does.
        published: the paper's number for it, None if the paper has none.
    """

    method: str
    layers: int
    evaluation: Evaluation
    published: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything that the report shows.

    Attributes:
        noise, dim, context: the problem.
        entries: the trained models.
        baselines: name -> (how well it does, the paper's number or None, tuned constants).
        floor: the Bayes floor.
        profiles: columns method, sigma, value, standard_error.
        matrices: P and Q of the model whose heat maps are shown, and its name.
        training: method -> seconds of training.
        commands: how to get these numbers again.
    """

    noise: str
    dim: int
    context: int
    entries: tuple[Entry, ...]
    baselines: dict[str, tuple[Evaluation, float | None, dict[str, float]]]
    floor: Estimate
    profiles: pl.DataFrame
    matrices: tuple[np.ndarray, np.ndarray, str]
    training: dict[str, float]
    environment: dict[str, str]
    command: str

    @property
    def sequences(self) -> int:
        return self.entries[0].evaluation.sequences

    @property
    def baseline_sequences(self) -> int:
        return next(iter(self.baselines.values()))[0].sequences

    def table(self) -> pl.DataFrame:
        """One row a model and baseline: method, layers, value, standard_error, published, regret, worst_share."""
        rows = [
            {
                "method": entry.method,
                "layers": entry.layers,
                "value": entry.evaluation.adjusted_loss.value,
                "standard_error": entry.evaluation.adjusted_loss.standard_error,
                "published": entry.published,
                "regret": entry.evaluation.regret.value,
                "worst_share": entry.evaluation.worst_share,
                "not_finite": entry.evaluation.not_finite,
            }
            for entry in self.entries
        ]
        for name, (evaluation, published, _) in self.baselines.items():
            rows.append(
                {
                    "method": name,
                    "layers": None,
                    "value": evaluation.adjusted_loss.value,
                    "standard_error": evaluation.adjusted_loss.standard_error,
                    "published": published,
                    "regret": evaluation.regret.value,
                    "worst_share": None,
                    "not_finite": None,
                }
            )
        return pl.DataFrame(rows, infer_schema_length=None)


def write_report(comparison: Comparison, folder: Path, *, executor: Executor | None = None) -> Path:
    """Write `report.html`, `table.csv` and the figures (PNG, PDF, SVG) into `folder`; returns the page's path.

    Args:
        executor: draws the figures, if it is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = comparison.table()
    write_atomically(folder / "table.csv", table.write_csv)
    draw = partial(_picture, comparison=comparison, folder=folder)
    pictures = list((executor.map if executor else map)(draw, _FIGURES))
    parts = {"comparison": comparison, "rows": table.to_dicts(), "pictures": pictures, "number": number}
    return render(folder / "report.html", "report.html.jinja", **parts)


def _picture(name: str, comparison: Comparison, folder: Path) -> Picture:
    figure, caption = _FIGURES[name](comparison)
    return Picture(name, figures.save_and_show(figure, folder, name), caption)


def _law(comparison: Comparison) -> str:
    return f"sigma ~ {comparison.noise}"


def _against_depth(comparison: Comparison) -> tuple[Figure, str]:
    ours = [(e.method, e.layers, e.evaluation.adjusted_loss, "ours") for e in comparison.entries]
    theirs = [
        (e.method, e.layers, Estimate(e.published, float("nan")), "published")
        for e in comparison.entries
        if e.published is not None
    ]
    depth = pl.DataFrame(
        {
            "method": [row[0] for row in ours + theirs],
            "layers": [row[1] for row in ours + theirs],
            "value": [row[2].value for row in ours + theirs],
            "standard_error": [row[2].standard_error if row[3] == "ours" else None for row in ours + theirs],
            "source": [row[3] for row in ours + theirs],
        }
    )
    baselines = {
        name: comparison.baselines[name][0].adjusted_loss.value
        for name in ("constrr", "adarr", "tunedrr")
        if name in comparison.baselines
    }
    return (
        figures.loss_against_depth(
            depth, floor=comparison.floor.value, baselines=baselines, title=_law(comparison)
        ),
        "Adjusted loss against depth (Figure 1's panel). Filled: ours, bars of two standard errors, mostly smaller "
        "than the markers. Hollow: the paper's table. Below the black line no predictor can be. GD++ applies one fixed "
        "filter f(Sigma) to alpha, and the best such filter is ridge with sigma^2 = E sigma^2, that is ConstRR: a "
        "GD++ below ConstRR is sampling error.",
    )


def _against_sigma(comparison: Comparison) -> tuple[Figure, str]:
    return (
        figures.loss_against_sigma(
            comparison.profiles, in_distribution=comparison.noise, title=_law(comparison)
        ),
        "Adjusted loss at each noise level (Figure 2's panel); shaded: the levels trained on. Within them the "
        "Bayes-optimal predictor is best on average, not at every level.",
    )


def _after_layers(comparison: Comparison) -> tuple[Figure, str]:
    return (
        figures.loss_after_layer(
            _per_layer(comparison), floor=comparison.floor.value, title=_law(comparison)
        ),
        "Adjusted loss of the prediction read off after each layer of the deepest models (Figure 5). Only the last "
        "layer was trained for; a model is free to be worse on its way.",
    )


def _regret(comparison: Comparison) -> tuple[Figure, str]:
    regret = pl.DataFrame(
        {
            "method": [entry.method for entry in comparison.entries],
            "layers": [entry.layers for entry in comparison.entries],
            "value": [entry.evaluation.regret.value for entry in comparison.entries],
            "standard_error": [entry.evaluation.regret.standard_error for entry in comparison.entries],
        }
    )
    return (
        figures.regret_against_depth(regret, title=_law(comparison)),
        "What is left to gain: adjusted loss minus the Bayes floor.",
    )


def _matrices(comparison: Comparison) -> tuple[Figure, str]:
    p, q, name = comparison.matrices
    return (
        figures.heat_maps(p, q, title=name),
        f"P and Q of every layer of {name} (Figure 4), in the paper's convention: a layer adds P S Q to every token, "
        "S the plain sum over the context.",
    )


# In the page's order; each gives a figure and its caption.
_FIGURES: dict[str, Callable[[Comparison], tuple[Figure, str]]] = {
    "figure1": _against_depth,
    "figure2": _against_sigma,
    "layers": _after_layers,
    "regret": _regret,
    "matrices": _matrices,
}


def _per_layer(comparison: Comparison) -> pl.DataFrame:
    """The deepest model of each method, after every layer."""
    deepest = {entry.method: entry for entry in sorted(comparison.entries, key=lambda entry: entry.layers)}
    rows = [
        (f"{method}, {entry.layers} layers", layer, estimate.value, estimate.standard_error)
        for method, entry in deepest.items()
        for layer, estimate in enumerate(entry.evaluation.per_layer)
    ]
    return pl.DataFrame(rows, schema=["method", "layer", "value", "standard_error"], orient="row")
