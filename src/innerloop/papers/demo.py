"""`innerloop demo`: the main job at a size that a laptop does in two minutes.

GD++ and DIAG of several depths on sigma ~ U(0, 5), each a warm chain in a process of its own, then one comparison with
every baseline, the Bayes floor and the published column.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from innerloop import display
from innerloop.evaluate import Evaluation, baseline_predictors, evaluate_many, loss_by_sigma
from innerloop.evaluate.losses import CHUNK, Draws, draw_losses
from innerloop.papers.vladymyrov2024 import CONTEXT, DIM, published
from innerloop.predictors import BayesOptimal
from innerloop.report import Comparison, Entry, write_report
from innerloop.study import RunSpec, SpecError, environment, load_run, parse_spec, train_run

_NOISE = "uniform(0,5)"
# Long ones first: two processes share them.
_CHAINS = {
    "diag": {"kind": "diag", "layers": 5},
    "diag free": {"kind": "diag", "layers": 4, "heads": 2},
    "gd++": {"kind": "gd++", "layers": 4},
}
_WORKERS = 2
_SEQUENCES = 1_000_000  # the tail of a polynomial of degree 2 * 3^layers shows only in large draws
_BASELINE_SEQUENCES = 200_000


def run_demo(out: Path, *, console: Console) -> Path:
    """Train, compare, and write the report into `out`; returns the page's path.

    Raises:
        SpecError: `out` already holds a demo, or cannot be written.
    """
    folders = {method: out / "runs" / _spec(method).name() for method in _CHAINS}
    if any(folder.exists() for folder in folders.values()):
        raise SpecError(f"{out} already holds a demo; choose another --out or remove it")
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"cannot write to {out}: {error.strerror}") from None
    with display.stages(console, _stages()) as stages:
        context = multiprocessing.get_context("spawn")  # a fork would inherit JAX's threads
        with context.Manager() as manager, ProcessPoolExecutor(_WORKERS, mp_context=context) as workers:
            seconds = _train(workers, manager.Queue(), folders, stages)
            runs = {method: load_run(folder) for method, folder in folders.items()}
            models = {f"{method}/{depth}": model for method, run in runs.items() for depth, model in run.exact_by_depth.items()}
            judged = _judge(workers, manager.Queue(), models, stages)
            comparison = _compare(judged, runs, seconds, out, stages)
        page = write_report(comparison, out)
        stages.finish("report")
    Console().print(_summary(comparison))
    console.print(f"report: {page}")
    return page


def _spec(method: str) -> RunSpec:
    return parse_spec({"task": {"dim": DIM, "context": CONTEXT, "noise": _NOISE}, "model": _CHAINS[method]})


def _stages() -> dict[str, float]:
    """The demo's stages and about how long each takes, in seconds."""
    return {"train": 55.0, "judge": 30.0, "baselines": 15.0, "profiles": 10.0, "report": 6.0}


def _train(workers: ProcessPoolExecutor, queue: Any, folders: dict[str, Path], stages: display.Stages) -> dict[str, float]:
    """Train every chain; returns the seconds that each took."""
    pending = {workers.submit(_train_one, method, folder, queue): method for method, folder in folders.items()}
    done = dict.fromkeys(folders, 0.0)
    weight = {method: chain["layers"] for method, chain in _CHAINS.items()}

    def heard(message: tuple[str, float, dict]) -> None:
        method, progress, row = message
        done[method] = progress
        share = sum(weight[name] * done[name] for name in done) / sum(weight.values())
        stages.update("train", share, f"{method} {display.detail(row, None)}")

    return {pending[future]: future.result() for future in display.listen(queue, pending, heard)}


def _train_one(method: str, folder: Path, queue: Any) -> float:
    return train_run(
        _spec(method), folder, report=lambda update: queue.put((method, update.progress, update.row))
    ).seconds


def _judge(workers: ProcessPoolExecutor, queue: Any, models: dict, stages: display.Stages) -> dict[str, Evaluation]:
    """Every model on the same million sequences, the chunks dealt out to the workers."""
    chunks = range(-(-_SEQUENCES // CHUNK))
    halves = [chunks[worker::_WORKERS] for worker in range(_WORKERS)]
    pending = {workers.submit(_judge_some, models, half, queue): half for half in halves}
    heard = []

    def count(_: int) -> None:
        heard.append(1)
        stages.update("judge", len(heard) / len(chunks), f"{len(heard) * CHUNK:,} sequences through {len(models)} models")

    parts = {pending[future]: future.result() for future in display.listen(queue, pending, count)}
    return sum((parts[half] for half in halves[1:]), start=parts[halves[0]]).evaluations()


def _judge_some(models: dict, chunks: range, queue: Any) -> Draws:
    total = None
    for chunk in chunks:
        draws = draw_losses(models, _spec("diag").task.build(), [chunk], per_layer=False)
        total = draws if total is None else total + draws
        queue.put(1)
    assert total is not None
    return total


def _compare(judged: dict[str, Evaluation], runs: dict, seconds: dict, out: Path, stages: display.Stages) -> Comparison:
    task = _spec("diag").task.build()
    deepest = {method: run.exact_model for method, run in runs.items()}
    baselines = baseline_predictors(task)
    stages.update("baselines", 0.5, "tuned; judging")
    also = evaluate_many(baselines, task, sequences=_BASELINE_SEQUENCES)
    by_layer = evaluate_many(deepest, task)
    stages.finish("baselines")
    shown = {f"{method}, {model.layers} layers": model for method, model in deepest.items()}
    profiles = []
    for index, (name, predictor) in enumerate((shown | {"bayes": BayesOptimal(task)}).items()):
        profile = loss_by_sigma(predictor, task)
        last = profile.filter(pl.col("layer") == profile["layer"].max())
        profiles.append(last.select(pl.lit(name).alias("method"), "sigma", "value", "standard_error"))
        stages.update("profiles", (index + 1) / (len(shown) + 1), name)
    stages.finish("profiles")
    entries = []
    for name, evaluation in judged.items():
        method, depth = name.split("/")
        kind = method.split()[0]
        layers = int(depth)
        if layers == deepest[method].layers:
            evaluation = evaluation.with_layers(by_layer[method].per_layer)
        entries.append(Entry(method, layers, evaluation, published(kind, _NOISE, layers)))
    p, q = deepest["diag"].matrices()
    return Comparison(
        noise=_NOISE,
        dim=DIM,
        context=CONTEXT,
        entries=tuple(entries),
        baselines={
            name: (evaluation.adjusted_loss, published(name, _NOISE), baselines[name].tuned)
            for name, evaluation in also.items()
        },
        floor=next(iter(judged.values())).floor,
        profiles=pl.concat(profiles),
        matrices=(np.asarray(p), np.asarray(q), f"diag, {deepest['diag'].layers} layers"),
        training=seconds,
        environment=environment(),
        command=f"innerloop demo --out {out}",
    )


def _summary(comparison: Comparison) -> Table:
    table = Table(title=f"Adjusted loss (half squared error), sigma ~ {comparison.noise}")
    for column in ("predictor", "layers", "ours", "± s.e.", "published", "above the floor"):
        table.add_column(column, justify="left" if column == "predictor" else "right")
    for row in comparison.table().iter_rows(named=True):
        table.add_row(
            row["method"],
            str(row["layers"] or ""),
            f"{row['value']:.4f}",
            f"{row['standard_error']:.4f}",
            "" if row["published"] is None else f"{row['published']:.3f}",
            f"{row['regret']:.4f}",
        )
    floor = comparison.floor
    table.add_row("Bayes floor", "", f"{floor.value:.4f}", f"{floor.standard_error:.4f}", "", "0")
    return table
