"""What the measured frames say of the paper: each question with its numbers, their errors, and a verdict."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from innerloop.figures.style import looks
from innerloop.papers.findings import answered, finding
from innerloop.papers.vladymyrov2024.chosen import ALIKE, COUNT, POLE, STRETCH, Judged
from innerloop.papers.vladymyrov2024.measured import task_of
from innerloop.papers.vladymyrov2024.printed import printed_table_1
from innerloop.papers.vladymyrov2024.study import HEAVY, NOISELESS
from innerloop.report import Table1
from innerloop.train.spectral import Spectrum

# The share of the Bayes floor that the best seven-layer model may leave, and what is hoped for.
_GAPS = {
    "uniform(0,3)": (0.04, 0.01),
    "uniform(0,5)": (0.04, 0.01),
    "uniform(0,7)": (0.04, 0.01),
    "categorical(1,3,5)": (0.15, 0.05),
}
_DEEPEST = 7
_CERTAIN = 2  # standard errors of a difference

SINGLE_CARRY = (pl.col("problem") == NOISELESS) & (pl.col("layers") >= HEAVY)
"""Of the losses, those whose mean single sequences carry."""


def findings(frame: Callable[[str], pl.DataFrame]) -> pl.DataFrame:
    """All questions, from a function that gives the frames "losses", "differences", "tails", "layers", "checks" and
    "choice" by name."""
    losses, differences = frame("losses"), frame("differences")
    tables = [
        _against_the_paper(losses),
        _filters(losses),
        _safe(frame("tails")),
        _gaps(losses),
        _compared(differences, "full", "diag", "Is FULL better than DIAG with one head?"),
        _compared(differences, "full", "diag free", "Is FULL better than DIAG with two heads?"),
        _compared(differences, "diag free", "diag", "Does a second head help DIAG?"),
        _compared(differences, "full two heads", "full", "Does a second head help FULL?"),
        _choices(frame("choice")),
        _spread(frame("layers")),
        _theorems(frame("checks")),
        _tails(losses),
        _entries(losses),
    ]
    return pl.concat([table for table in tables if len(table)])


def results(losses: pl.DataFrame) -> pl.DataFrame:
    """The losses as `innerloop.figures.results.checked_results` wants them, beside the published numbers."""
    frame = losses.with_columns(
        value=pl.when(SINGLE_CARRY).then("draws_median").otherwise("value").fill_nan(np.inf),
        standard_error=pl.when(~SINGLE_CARRY & pl.col("standard_error").is_finite()).then("standard_error"),
        method=pl.col("method").replace("ols", "OLS"),
    )
    joined = frame.join(
        printed_table_1(),
        on=["problem", "method", "layers"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    return joined.select("problem", "method", "layers", "value", "standard_error", "published")


class Worse(NamedTuple):
    """An entry of Table 1 that is worse than published.

    Attributes:
        problem, method: of what.
        layers: None for a predictor that has none.
        value: ours.
        standard_error: its own, None where it is a median.
        published: the paper's number as printed.
        published_error: the standard error that this has.
    """

    problem: str
    method: str
    layers: int | None
    value: float
    standard_error: float | None
    published: str
    published_error: float

    @property
    def distance(self) -> float:
        """From the published number, in units of both errors together."""
        errors = np.hypot(self.published_error, self.standard_error or 0.0)
        return float((self.value - float(self.published)) / errors)

    @property
    def resists(self) -> bool:
        """Whether it is further away than errors explain."""
        return self.distance > _CERTAIN


def worse(losses: pl.DataFrame) -> list[Worse]:
    """The entries that are worse than published, in the table's order."""
    known = {
        (problem, _label(method), layers): (method, error)
        for problem, method, layers, error in losses.select(
            "problem", "method", "layers", "published_error"
        ).iter_rows()
    }
    found = []
    for row, problem, cell in Table1.of(results(losses)).cells():
        if cell.published is not None and cell.verdict == "worse":
            method, error = known[problem, row.method, row.layers]
            found.append(
                Worse(problem, method, row.layers, cell.value, cell.standard_error, cell.published, error)
            )
    return found


def _against_the_paper(losses: pl.DataFrame) -> pl.DataFrame:
    counts, entries = Table1.of(results(losses)).counts(), worse(losses)
    known = sum(counts.values())
    rows = [
        finding(
            f"{entry.problem}: {_label(entry.method)}{_deep(entry.layers)}",
            entry.value,
            entry.standard_error,
            bar=f"<= {entry.published}",
            note=f"the published one's own standard error would be {entry.published_error:.2g}: {entry.distance:.1f} of "
            "both together",
        )
        for entry in entries
    ]
    answer = (
        f"Of {known} entries, baselines included, {counts['better']} are better than published, {counts['tie']} tie within "
        f"rounding and two standard errors of ours, {counts['worse']} are worse"
    )
    if not rows:
        rows = [finding("entries worse than published", 0.0, bar="0", note=f"of {known}")]
        return answered("Does Table 1 reproduce?", f"{answer}.", rows)
    apart = sum(entry.resists for entry in entries)
    answer += (
        f", listed here. Published numbers have an error too: one query for each of 100 000 sequences has the standard "
        f"error that a row names, and {apart} are worse by more than {_CERTAIN} of both errors together. Where single "
        "sequences carry the mean, it is half of what lies between the median of our draws of 100 000 sequences and the "
        "draw that 2.3 % of them are below. The published are the best of five besides."
    )
    return answered("Does Table 1 reproduce?", answer, rows)


def _filters(losses: pl.DataFrame) -> pl.DataFrame:
    """The least that GD++ of any depth can lose, beside the deepest that is trained and what is published below it."""
    rows, below = [], 0
    lacking = [entry for entry in worse(losses) if entry.method == "gd++"]
    for (problem,), own in losses.filter(method="gd++").group_by("problem", maintain_order=True):
        value = Spectrum.of(task_of(str(problem))).floor
        deepest = own.sort("layers").row(-1, named=True)
        note = f"{deepest['layers']} layers end at {deepest['value']:.5g}"
        under = [entry for entry in lacking if entry.problem == problem and float(entry.published) < value]
        below += len(under)
        if under:
            errors = [(value - float(entry.published)) / entry.published_error for entry in under]
            note += (
                f"; published below it: {', '.join(str(entry.layers) for entry in under)} layers, by up to "
                f"{max(errors):.1f} of the published one's own standard error"
            )
        rows.append(finding(str(problem), value, note=note))
    answer = (
        "GD++ of any depth keeps, along every eigenvector of the inputs, a share of the least-squares solution that "
        "depends on the eigenvalue alone. Measured is the loss of the best such share, ridge with the mean of sigma^2, "
        "which no GD++ passes: an integral over the known density of the eigenvalues, without an error. "
        f"Of the {len(lacking)} entries of GD++ that are worse than published, {below} were published below it."
    )
    return answered("What is the least that GD++ can lose?", answer, rows)


def _safe(tails: pl.DataFrame) -> pl.DataFrame:
    """What GD++ without noise pays for not breaking, beside what was published."""
    rows = [
        finding(
            f"{row['problem']}: GD++{_deep(row['layers'])}, {row['tail']:.0e} out of sight",
            row["value"],
            bar=_printed("gd++", row["problem"], row["layers"]),
            note=f"loses more than predicting zero in {row['breaks']:.0e} of all sequences",
        )
        for row in tails.iter_rows(named=True)
    ]
    answer = (
        "GD++ without noise is a polynomial that is small on the eigenvalues that it was fitted on, and grows without "
        "bound beyond the largest. Measured is the least, of several hundred descents, of the mean loss over the known "
        "density of the eigenvalues, with so many in a sequence out of sight at either end; nothing is drawn. The bar is "
        "the published loss."
    )
    return answered("What does GD++ without noise pay for rarer poles?", answer, rows)


def _gaps(losses: pl.DataFrame) -> pl.DataFrame:
    """The regret of the best model at the greatest depth, in units of the floor."""
    rows, met = [], []
    for (problem,), own in losses.group_by("problem", maintain_order=True):
        floor = own.filter(method="floor")["value"][0]
        deep = own.filter(pl.col("layers") == own["layers"].max(), pl.col("regret").is_finite()).sort(
            "regret"
        )
        if floor <= 0 or deep.is_empty():
            continue
        best = deep.row(0, named=True)
        bar, hope = _GAPS.get(str(problem), (None, None))
        if bar is not None and best["layers"] == _DEEPEST:
            met.append(best["regret"] / floor <= bar)
        rows.append(
            finding(
                f"{problem}: {_label(best['method'])}{_deep(best['layers'])}",
                best["regret"] / floor,
                best["regret_se"] / floor,
                bar="" if bar is None else f"<= {bar}, hoped for {hope}",
                note=f"floor {floor:.5g}",
            )
        )
    answer = (
        "Regret of the best of our models as a share of the Bayes floor; no predictor can be below 0."
        + (f" {sum(met)} of {len(met)} bars are met." if met else "")
    )
    return answered("How close to Bayes does the best model come?", answer, rows)


def _relative(difference: float, regret: float) -> str:
    share = difference / regret
    return (
        f"{share:+.1%} of the other's regret" if abs(share) < 10 else f"{share:+.1e} times the other's regret"
    )


def _compared(differences: pl.DataFrame, one: str, other: str, question: str) -> pl.DataFrame:
    pairs = differences.filter(method=one, other=other)
    lower, higher = (
        pairs.filter(sign * pl.col("difference") > _CERTAIN * pl.col("standard_error")) for sign in (-1, 1)
    )
    rows = [
        finding(
            f"{pair['problem']}{_deep(pair['layers'])}",
            pair["difference"],
            pair["standard_error"],
            note=_relative(pair["difference"], pair["other_regret"]),
        )
        for pair in pairs.iter_rows(named=True)
    ]
    answer = (
        f"Loss of {_label(one)} minus that of {_label(other)} on the same sequences: lower in {len(lower)} of {len(pairs)} "
        f"problems and depths, higher in {len(higher)}, by more than {_CERTAIN} standard errors."
    )
    return answered(question, answer, rows)


def _choices(choices: pl.DataFrame) -> pl.DataFrame:
    """The run that is kept against the one that would be but for its pole, else the next, where that matters."""
    if choices.is_empty():
        return answered("", "", [])
    rows, several = [], 0
    for (problem, method, layers, _), own in choices.group_by(
        "problem", "method", "layers", "seed", maintain_order=True
    ):
        kept = own.filter("kept").row(0, named=True)
        others = own.filter(~pl.col("kept")).sort("median")
        medians, means = (own[column].to_numpy() for column in ("median", "mean"))
        rival = own.row(Judged(medians, means, np.zeros(len(own))).best, named=True)
        next_best = others.row(0, named=True) if rival["kept"] else rival
        several += 1
        share, over_all, beyond = (
            kept[column] / next_best[column] for column in ("median", "mean", "beyond")
        )
        if min(share, over_all) < 1 / ALIKE or beyond < 1 / POLE:
            note = (
                f"{kept['run']}, not {next_best['run']}; of the means over all draws {over_all:.3g}, beyond the tail "
                f"{beyond:.3g}"
            )
            rows.append(finding(f"{problem}: {_label(method)}{_deep(layers)}", share, note=note))
    answer = (
        f"Of {several} entries that several runs yield, {len(rows)} have one that is more than {ALIKE - 1:.0%} better than "
        f"the next, or without its pole. Measured is the median loss over draws of {COUNT} sequences, that nothing else "
        "draws, over the next's; of runs that are closer the one of the least mean is kept, of those without a pole, which "
        f"a draw with eigenvalues {STRETCH - 1:.0%} larger would show."
    )
    return answered("Which run is kept where several yield an entry?", answer, rows)


def _spread(layers: pl.DataFrame) -> pl.DataFrame:
    """The last layer's loss over seeds, where there are several."""
    last = layers.filter(pl.col("layer") == pl.col("layers"), pl.col("value").is_finite())
    rows = [
        finding(
            f"{own['problem'][0]}: {_label(method)}{_deep(depth)}",
            float(np.ptp(own["value"].to_numpy())),
            note=f"median {own['value'].median():.5g} of {len(own)} seeds",
        )
        for (method, depth), own in last.group_by("method", "layers", maintain_order=True)
        if len(own) > 1
    ]
    return answered("How far are seeds apart?", "Greatest minus least adjusted loss over seeds.", rows)


def _theorems(checks: pl.DataFrame) -> pl.DataFrame:
    rows = [
        finding(
            f"{check['theorem']}, {check['model']}: {check['claim']}",
            check["measured"],
            bar=f"{check['bound']:.3g}",
            note="holds" if check["holds"] else "fails",
        )
        for check in checks.iter_rows(named=True)
    ]
    answer = (
        f"{int(checks['holds'].sum())} of {len(checks)} checks hold; each fails on a model broken on purpose."
    )
    return answered("Do the theorems hold for trained models?", answer, rows)


def _tails(losses: pl.DataFrame) -> pl.DataFrame:
    models = losses.filter(pl.col("layers").is_not_null())
    rows = [
        finding(
            f"{row['problem']}: {_label(row['method'])}{_deep(row['layers'])}",
            row["worst_share"],
            bar="finite",
            note=f"{row['not_finite']} of {row['sequences']:,} sequences not finite",
        )
        for (_,), own in models.group_by("problem", maintain_order=True)
        for row in own.sort("not_finite", "worst_share", descending=True, nulls_last=False).head(1).to_dicts()
    ]
    broken = int((models["not_finite"] > 0).sum())
    answer = (
        f"The worst sequence's share of the mean loss, of the model of each problem where it is greatest; {broken} of "
        f"{len(models)} models are not finite somewhere."
    )
    return answered("Does one sequence carry the mean?", answer, rows)


def _entries(losses: pl.DataFrame) -> pl.DataFrame:
    rows = [
        finding(
            f"{problem}: {row.method}{_deep(row.layers)}",
            cell.value,
            cell.standard_error,
            bar=cell.published or "",
            note=cell.verdict or "not in the paper",
        )
        for row, problem, cell in Table1.of(results(losses)).cells()
    ]
    return answered(
        "Every entry of Table 1, with what the paper lacks", "The bar is the published number.", rows
    )


def _printed(method: str, problem: str, layers: int) -> str:
    """The published number, as it is printed."""
    known = printed_table_1().filter(problem=problem, method=method, layers=layers)
    return known["published"].item()


def _label(method: object) -> str:
    return looks([str(method)])[str(method)].label


def _deep(layers: object) -> str:
    return "" if layers is None else f", {layers} layer{'s' * (layers != 1)}"
