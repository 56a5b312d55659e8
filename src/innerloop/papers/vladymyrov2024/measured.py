"""What is measured on the trained models: tidy frames, one Parquet file each, so that what was killed goes on where it was.

choice-ENTRY        losses of the runs that yield the same entry, on sequences of their own (findings)
tails-PROBLEM       GD++ without noise, with more or less of the largest eigenvalues in sight (findings)
losses-PROBLEM      adjusted loss, regret and tail of every model and baseline (Table 1, Figure 1, regret)
differences-PROBLEM what one kind of model loses above another of the same depth, on the same sequences (findings)
profiles-PROBLEM    losses at each sigma, after every layer (Figures 2, 3, 6 and 7)
layers-SEED         adjusted loss after every layer (Figure 5)
matrices            P and Q of one model (Figure 4)
curves-PROBLEM      regret while the models of a problem were trained
checks, solver, contexts              theorems
ablations, scales, steps              mechanisms
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from innerloop import probe
from innerloop.evaluation import (
    Estimate,
    Evaluation,
    baseline_predictors,
    evaluate_many,
    losses_by_sigma,
    sampled_errors,
)
from innerloop.evaluation.losses import CHUNK, draw_losses
from innerloop.files import write_atomically
from innerloop.memory import shed_programs
from innerloop.models import LinearTransformer
from innerloop.papers.vladymyrov2024.draws import (
    PUBLISHED_DRAW,
    error_of_one,
    further_draws,
    means_of_draws,
    tail,
)
from innerloop.papers.vladymyrov2024.printed import CONTEXT, DIM, published
from innerloop.papers.vladymyrov2024.study import (
    BUDGETS,
    DEPTHS,
    HEAVY,
    MATRICES,
    METHODS,
    NOISELESS,
    PAPERS,
    SPREAD,
    Budget,
    Entry,
)
from innerloop.predictors import BayesOptimal, RidgeOracle
from innerloop.study import load_run
from innerloop.tasks import LinearRegression, wishart_eigenvalues
from innerloop.train.spectral import Spectral, left_over

_FRAMES = {
    "losses": ("losses", "differences"),
    "theorems": ("checks", "solver", "contexts"),
    "mechanisms": ("ablations", "scales", "steps"),
}
_SECONDS = {"curves": 1.0, "choice": 3.0, "tails": 60.0}  # of what depends on no number of sequences
# Kinds of which a reader asks whether the first is better.
_PAIRS = (("full", "diag"), ("full", "diag free"), ("diag free", "diag"), ("full two heads", "full"))
# GD++ without noise, of so many layers, breaks beyond the eigenvalues that it was fitted on; so many are out of sight.
_SAFE_LAYERS = range(3, 8)
_SAFE_TAILS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_AT = 4  # layers of the model whose matrices and mechanisms are shown, or the nearest depth


@dataclass(frozen=True)
class Part:
    """One process' work: what it is, of which problem or seed, and the models that it needs."""

    kind: str
    about: str
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.about}".strip()

    def file(self, frame: str) -> str:
        """The name of the file of one of the part's frames."""
        about = "".join(sign if sign.isalnum() else "-" for sign in self.about).strip("-")
        return f"{frame}-{about}.parquet" if about else f"{frame}.parquet"

    @property
    def frames(self) -> tuple[str, ...]:
        return _FRAMES.get(self.kind, (self.kind,))

    def missing(self, folder: Path) -> bool:
        """Whether some of its frames are not in `folder`."""
        return not all((folder / self.file(frame)).exists() for frame in self.frames)

    def seconds(self, budget: Budget) -> float:
        """About how long it takes; for a first impression."""
        layers = sum(entry.layers for entry in self.entries)
        sequences = {
            "losses": budget.sequences,
            "profiles": 2 * budget.levels * budget.profile,  # every layer's prediction is read
            "layers": min(budget.sequences, PUBLISHED_DRAW),
        }.get(self.kind, budget.probes)
        if self.kind == "losses" and self.about == NOISELESS:
            sequences += budget.further_draws * PUBLISHED_DRAW
        if self.kind in _SECONDS:
            return _SECONDS[self.kind]
        return 12 + sequences * (20e-6 + 1.2e-6 * layers)


def parts_of(candidates: Mapping[Entry, Collection[str]], budget: Budget) -> tuple[Part, ...]:
    """All that is measured on these models: first the choice of those that several runs yield."""
    order = list(METHODS.values())
    entries = sorted(candidates, key=lambda entry: (order.index(entry.method), entry.layers, entry.seed))
    parts = [
        choice_of(entry)
        for entry in sorted(entries, key=lambda entry: budget.problems.index(entry.problem))
        if len(candidates[entry]) > 1
    ]
    for problem in budget.problems:
        own = [entry for entry in entries if entry.problem == problem and entry.seed == 0]
        table = [entry for entry in own if entry.layers in DEPTHS]
        shown = own if problem == SPREAD else _deepest(table)
        parts += [
            Part("losses", problem, tuple(table)),
            Part("profiles", problem, tuple(shown)),
            Part("curves", problem, tuple(table)),
        ]
    spread = [entry for entry in entries if entry.problem == SPREAD and entry.layers in DEPTHS]
    for seed in range(budget.seeds):
        own = [entry for entry in spread if entry.seed == seed and entry.method in PAPERS]
        parts.append(Part("layers", f"seed {seed}", tuple(own)))
    first = [entry for entry in spread if entry.seed == 0]
    full = [entry for entry in entries if (entry.problem, entry.method) == (MATRICES, "full")]
    checked = [entry for entry in _deepest(first) if entry.method in PAPERS]
    probed = [entry for entry in _nearest(first) if entry.method in ("diag", "diag free", "full")]
    return (
        *parts,
        *(Part("tails", problem, ()) for problem in budget.problems if problem == NOISELESS),
        Part("matrices", "", tuple(_nearest(full))),
        Part("theorems", "", tuple(checked)),
        Part("mechanisms", "", tuple(probed)),
    )


def choice_of(entry: Entry) -> Part:
    """The choice among the runs that yield `entry`."""
    return Part("choice", f"{entry.problem} {_named(entry)} seed {entry.seed}", (entry,))


def read(folder: Path, parts: Iterable[Part], frame: str) -> pl.DataFrame:
    """A frame of all of the `parts` that have it, in their order; empty if none has."""
    files = [folder / part.file(frame) for part in parts if frame in part.frames]
    return pl.concat([pl.read_parquet(file) for file in files]) if files else pl.DataFrame()


def measure(part: Part, budget: str, runs: dict[Entry, Path], folder: Path) -> None:
    """Do a part: load what it is about from the folders of the runs, and write its frames into `folder`."""
    loaded = {entry: load_run(runs[entry]) for entry in part.entries}
    if part.kind == "curves":
        frames = _curves({entry: run.history for entry, run in loaded.items()})
    else:
        models = {entry: run.exact_by_depth[entry.layers] for entry, run in loaded.items()}
        frames = _MEASURES[part.kind](part, models, BUDGETS[budget])
    for frame, found in frames.items():
        write_atomically(folder / part.file(frame), found.write_parquet)
    shed_programs()


def _tails(part: Part, models: dict, budget: Budget) -> dict[str, pl.DataFrame]:
    """GD++ solved with more or less of the tails of eigenvalues: what it loses within them, and how often it breaks."""
    task = task_of(part.about)
    everywhere = wishart_eigenvalues(task.dim, task.context)
    rows = []
    with jax.enable_x64(True):
        key = jax.random.key(0)
        for layers in _SAFE_LAYERS:
            start = LinearTransformer.gd_plus_plus(task.dim, layers, key=key, context=task.context)
            for tail in _SAFE_TAILS:
                trainer = Spectral(start, task, warm=False, tail=tail)
                state, found = trainer.advance(trainer.start())
                rho = np.asarray(left_over(trainer.current(state).w, jnp.asarray(everywhere.values)))
                breaks = everywhere.counts[~(rho**2 <= task.dim)].sum()  # more than by predicting zero
                rows.append((part.about, layers, tail, found["loss"], float(breaks)))
    names = ("problem", "layers", "tail", "value", "breaks")
    return {"tails": pl.DataFrame(rows, schema=names, orient="row")}


def _losses(part: Part, models: dict, budget: Budget) -> dict[str, pl.DataFrame]:
    task = task_of(part.about)
    predictors = {_named(entry): model for entry, model in models.items()}
    of = {_named(entry): (entry.method, entry.layers) for entry in models}
    baselines = baseline_predictors(task)
    drawn = draw_losses(predictors | baselines, task, range(-(-budget.sequences // CHUNK)), per_layer=False)
    judged = drawn.evaluations(budget.sequences)
    heavy = part.about == NOISELESS
    deep = {_named(entry): model for entry, model in models.items() if heavy and entry.layers >= HEAVY}
    further = further_draws(deep, task, budget)
    worse = {}
    rows = []
    for name, evaluation in judged.items():
        method, layers = of.get(name, (name, None))
        adjusted = (drawn.regret[name][:, -1] + drawn.spread)[: budget.sequences]
        beyond = further.get(name, np.empty(0))
        row = {"method": method, "layers": layers, **_row(evaluation), **tail(adjusted, beyond)}
        rows.append(row)
        paper = published(method, part.about, layers)
        if paper is None or evaluation.adjusted_loss.value <= paper:
            continue
        if len(beyond):
            row["published_error"] = error_of_one(means_of_draws(adjusted, beyond))
        else:
            worse[name] = row
    errors = sampled_errors(
        {name: (predictors | baselines)[name] for name in worse}, task, sequences=PUBLISHED_DRAW
    )
    for name, row in worse.items():
        row["published_error"] = errors[name]
    floor = next(iter(judged.values())).floor
    rows.append({"method": "floor", "value": floor.value, "standard_error": floor.standard_error})
    problem = pl.lit(part.about).alias("problem")
    last = {name: each[: budget.sequences, -1] for name, each in drawn.regret.items()}
    return {
        "losses": pl.DataFrame(rows, infer_schema_length=None).select(problem, pl.all()),
        "differences": _differences(of, last).select(problem, pl.all()),
    }


def _differences(of: dict[str, tuple[str, int]], regrets: dict[str, np.ndarray]) -> pl.DataFrame:
    """Means of paired differences, of the pairs in `_PAIRS` that are there, finite ones."""
    names = {key: name for name, key in of.items()}
    rows = []
    for one, other in _PAIRS:
        for depth in DEPTHS:
            if (one, depth) not in names or (other, depth) not in names:
                continue
            ours, theirs = regrets[names[one, depth]], regrets[names[other, depth]]
            found = Estimate.of(ours - theirs)
            if np.isfinite(found.value):
                rows.append((one, other, depth, found.value, found.standard_error, float(theirs.mean())))
    columns = {
        "method": pl.String,
        "other": pl.String,
        "layers": pl.Int64,
        "difference": pl.Float64,
        "standard_error": pl.Float64,
        "other_regret": pl.Float64,
    }
    return pl.DataFrame(rows, schema=columns, orient="row")


def _row(evaluation: Evaluation) -> dict[str, float | int]:
    return {
        "value": evaluation.adjusted_loss.value,
        "standard_error": evaluation.adjusted_loss.standard_error,
        "regret": evaluation.regret.value,
        "regret_se": evaluation.regret.standard_error,
        "worst_share": evaluation.worst_share,
        "not_finite": evaluation.not_finite,
        "sequences": evaluation.sequences,
    }


def _profiles(part: Part, models: dict, budget: Budget) -> dict[str, pl.DataFrame]:
    task = task_of(part.about)
    baselines = {
        name: predictor for name, predictor in baseline_predictors(task).items() if name != "ols"
    } | {"oracle": RidgeOracle(task)}
    sigmas = np.linspace(0, task.noise.maximum + 1, budget.levels)
    layers = {_named(entry): entry.layers for entry in models}
    predictors = baselines | {_named(entry): model for entry, model in models.items()}
    found = losses_by_sigma(predictors, task, sigmas=sigmas, sequences=budget.profile)
    frame = found.select(
        pl.lit(part.about).alias("problem"),
        pl.col("method").str.split(", ").list.first(),
        pl.col("method").replace_strict(layers, default=None, return_dtype=pl.Int64).alias("layers"),
        pl.all().exclude("method"),
    )
    return {"profiles": frame}


def _layers(part: Part, models: dict, budget: Budget) -> dict[str, pl.DataFrame]:
    named = {_named(entry): model for entry, model in models.items()}
    judged = evaluate_many(named, task_of(SPREAD), sequences=min(budget.sequences, PUBLISHED_DRAW))
    rows = [
        {
            "problem": SPREAD,
            "method": entry.method,
            "layers": entry.layers,
            "seed": entry.seed,
            "layer": layer,
            "value": estimate.value,
            "standard_error": estimate.standard_error,
            "floor": evaluation.floor.value,
        }
        for entry, evaluation in zip(models, judged.values(), strict=True)
        for layer, estimate in enumerate(evaluation.per_layer)
    ]
    return {"layers": pl.DataFrame(rows)}


def _curves(histories: dict[Entry, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """What was reported of each depth, counted from its own first report."""
    own = [
        history.filter(layers=entry.layers)
        .with_row_index("report", offset=1)
        .select(
            pl.lit(entry.problem).alias("problem"),
            pl.lit(entry.method).alias("method"),
            pl.col("layers", "report").cast(pl.Int64),
            "phase",
            "regret",
        )
        for entry, history in histories.items()
    ]
    return {"curves": pl.concat(own)}


def _matrices(part: Part, models: dict, budget: Budget) -> dict[str, pl.DataFrame]:
    ((entry, model),) = models.items()
    rows = [
        {
            "problem": entry.problem,
            "layers": entry.layers,
            "matrix": name,
            "layer": layer + 1,
            "head": head + 1,
            "row": row,
            "column": column,
            "value": float(matrix[layer, head, row, column]),
        }
        for name, matrix in zip("PQ", (np.asarray(each) for each in model.matrices()), strict=True)
        for layer, head, row, column in np.ndindex(matrix.shape)
    ]
    return {"matrices": pl.DataFrame(rows)}


def _theorems(part: Part, models: dict, budget: Budget) -> dict[str, pl.DataFrame]:
    task, some = task_of(SPREAD), max(8, budget.probes // 256)
    solver = probe.check_linear_solver(conditions=budget.conditions)
    contexts = probe.check_two_levels(contexts=budget.contexts, sequences=max(256, budget.probes // 4))
    checks = [("construction", solver), ("construction", contexts)]
    for entry, model in models.items():
        name = _named(entry)
        checks += [
            (name, probe.check_linear_map(model, task, sequences=some)),
            (name, probe.check_recursion(model, task, sequences=some)),
            (name, probe.check_no_quadratic(model, task, sequences=max(2, budget.probes // 4096))),
        ]
        if entry.method != "full":
            checks.append((name, probe.check_momentum(model, task, sequences=some)))
    rows = [
        {
            "theorem": check.name,
            "model": name,
            "claim": check.claim,
            "measured": check.measured,
            "bound": check.bound,
            "holds": check.verdict,
        }
        for name, check in checks
    ]
    frame = pl.DataFrame(rows).sort("theorem", maintain_order=True)
    return {"checks": frame, "solver": solver.data, "contexts": contexts.data}


def _mechanisms(part: Part, models: dict, budget: Budget) -> dict[str, pl.DataFrame]:
    task = task_of(SPREAD)
    named = {_named(entry): model for entry, model in models.items()}
    ablated = [
        probe.ablations(model, task, sequences=budget.probes).select(pl.lit(name).alias("method"), pl.all())
        for name, model in named.items()
        if not name.startswith("full")
    ]
    floor = pl.lit(_floor(task, budget).value).alias("floor")
    predictors = named | {"bayes": BayesOptimal(task)}
    return {
        "ablations": pl.concat(ablated).with_columns(floor),
        "scales": probe.output_scales(predictors, task, sequences=budget.probes),
        "steps": probe.step_sizes(named, task, sequences=budget.probes),
    }


def _floor(task: LinearRegression, budget: Budget) -> Estimate:
    chunks = range(-(-budget.probes // CHUNK))
    return Estimate.of(draw_losses({}, task, chunks).spread[: budget.probes])


def task_of(problem: str) -> LinearRegression:
    """The paper's, with this law of sigma."""
    return LinearRegression(DIM, CONTEXT, problem)


def _named(entry: Entry) -> str:
    return f"{entry.method}, {entry.layers} layer{'s' if entry.layers > 1 else ''}"


def _deepest(entries: Sequence[Entry]) -> list[Entry]:
    """The deepest of each method."""
    return list({entry.method: entry for entry in entries}.values())  # they come sorted


def _nearest(entries: Sequence[Entry]) -> list[Entry]:
    """Of each method the one whose depth is nearest to `_AT`."""
    far = sorted(entries, key=lambda entry: -abs(entry.layers - _AT))
    return list({entry.method: entry for entry in far}.values())


_MEASURES: dict[str, Callable[[Part, dict, Budget], dict[str, pl.DataFrame]]] = {
    "tails": _tails,
    "losses": _losses,
    "profiles": _profiles,
    "layers": _layers,
    "matrices": _matrices,
    "theorems": _theorems,
    "mechanisms": _mechanisms,
}
