"""`innerloop demo`: the main job at a size that a laptop does in two minutes.

GD++ and DIAG of several depths on sigma ~ U(0, 5), each a warm chain in a process of its own, then one comparison with
every baseline, the Bayes floor and the published column.
"""

import multiprocessing
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from innerloop import display
from innerloop.evaluation import Evaluation, evaluate_many, judge_baselines, losses_by_sigma
from innerloop.evaluation.losses import CHUNK, Draws, draw_losses
from innerloop.papers.vladymyrov2024 import CONTEXT, DIM, published
from innerloop.predictors import BayesOptimal
from innerloop.report import Comparison, Entry, write_report
from innerloop.study import RunSpec, SpecError, environment, load_run, parse_spec, train_run
from innerloop.tasks import LinearRegression
from innerloop.threads import one_thread_each

_NOISE = "uniform(0,5)"
# Long ones first: two processes share them. GD++ stops at two layers for the sake of time: the third takes it to ConstRR,
# beyond which it cannot go.
_CHAINS = {
    "diag": {"kind": "diag", "layers": 4},
    "diag free": {"kind": "diag", "layers": 4, "heads": 2},
    "gd++": {"kind": "gd++", "layers": 2},
}
_WORKERS = 2
_messages: Any = None  # a worker's queue to the main process
_SEQUENCES = 1_000_000  # the tail of a polynomial of degree 2 * 3^layers shows only in large draws


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
        queue = context.Queue()
        with (
            tempfile.TemporaryDirectory() as programs,
            ProcessPoolExecutor(
                _WORKERS, mp_context=context, initializer=_begin, initargs=(queue, programs)
            ) as workers,
        ):
            seconds, baselines = _train(workers, queue, folders, stages)
            runs = {method: load_run(folder) for method, folder in folders.items()}
            models = {
                f"{method}/{depth}": model
                for method, run in runs.items()
                for depth, model in run.exact_by_depth.items()
            }
            judged = _judge(workers, queue, models, stages)
            comparison = _compare(workers, judged, baselines, runs, seconds, out, stages)
            page = write_report(comparison, out, executor=workers)
        stages.finish("report")
    Console().print(_summary(comparison))
    console.print(f"report: {page}")
    return page


def _spec(method: str) -> RunSpec:
    return parse_spec(
        {
            "task": {"dim": DIM, "context": CONTEXT, "noise": _NOISE},
            "model": _CHAINS[method],
            # Half of the usual sample, by which shallow models lose no more than sampling error; and on this problem one
            # cold start a depth is enough.
            "train": {"sample": 2048, "starts": 1},
        }
    )


def _stages() -> dict[str, float]:
    """The demo's stages and about how long each takes, in seconds."""
    return {"train": 75.0, "judge": 25.0, "compare": 8.0, "report": 8.0}


def _task() -> LinearRegression:
    return _spec("diag").task.build()


def _begin(queue: Any, programs: str) -> None:
    """A worker process: where it sends its progress, and where it shares compiled programs with the other."""
    global _messages
    _messages = queue
    one_thread_each()
    jax.config.update("jax_compilation_cache_dir", programs)


def _train(
    workers: ProcessPoolExecutor, queue: Any, folders: dict[str, Path], stages: display.Stages
) -> tuple[dict[str, float], Future]:
    """Train every chain; returns the seconds that each took, and the baselines to come.

    The first process trains the longest chain; the second begins with the baselines, and by then finds the programs
    that the chains share compiled.
    """
    longest, *others = folders
    pending = {workers.submit(_train_one, longest, folders[longest]): longest}
    baselines = workers.submit(_baselines)
    pending |= {workers.submit(_train_one, method, folders[method]): method for method in others}
    done = dict.fromkeys(folders, 0.0)
    weight = {method: chain["layers"] for method, chain in _CHAINS.items()}

    def heard(message: tuple[str, float, dict]) -> None:
        method, progress, row = message
        done[method] = progress
        share = sum(weight[name] * done[name] for name in done) / sum(weight.values())
        stages.update("train", share, f"{method} {display.detail(row, None)}")

    return {pending[future]: future.result() for future in display.listen(queue, pending, heard)}, baselines


def _train_one(method: str, folder: Path) -> float:
    return train_run(
        _spec(method), folder, report=lambda update: _messages.put((method, update.progress, update.row))
    ).seconds


def _judge(
    workers: ProcessPoolExecutor, queue: Any, models: dict, stages: display.Stages
) -> dict[str, Evaluation]:
    """Every model on the same million sequences, the chunks dealt out to the workers."""
    chunks = range(-(-_SEQUENCES // CHUNK))
    halves = [chunks[worker::_WORKERS] for worker in range(_WORKERS)]
    pending = {workers.submit(_judge_some, models, half): half for half in halves}
    heard = []

    def count(_: int) -> None:
        heard.append(1)
        stages.update(
            "judge",
            len(heard) / len(chunks),
            f"{len(heard) * CHUNK:,} sequences through {len(models)} models",
        )

    parts = {pending[future]: future.result() for future in display.listen(queue, pending, count)}
    return Draws.joined([parts[half] for half in halves]).evaluations()


def _judge_some(models: dict, chunks: range) -> Draws:
    draws = []
    for chunk in chunks:
        draws.append(draw_losses(models, _task(), [chunk], per_layer=False))
        _messages.put(1)
    return Draws.joined(draws)


def _compare(
    workers: ProcessPoolExecutor,
    judged: dict[str, Evaluation],
    baselines: Future,
    runs: dict,
    seconds: dict,
    out: Path,
    stages: display.Stages,
) -> Comparison:
    deepest = {method: run.exact_model for method, run in runs.items()}
    shown = {f"{method}, {model.layers} layers": model for method, model in deepest.items()}
    jobs = [baselines, workers.submit(_by_layer, deepest), workers.submit(_profiles, shown)]
    for count, _ in enumerate(as_completed(jobs)):
        stages.update("compare", (count + 1) / len(jobs), "baselines and profiles")
    judged_baselines, by_layer, profiles = (job.result() for job in jobs)
    entries = []
    for name, evaluation in judged.items():
        method, layers = name.split("/")
        if int(layers) == deepest[method].layers:
            evaluation = evaluation.with_layers(by_layer[method].per_layer)
        entries.append(
            Entry(method, int(layers), evaluation, published(method.split()[0], _NOISE, int(layers)))
        )
    p, q = deepest["diag"].matrices()
    return Comparison(
        noise=_NOISE,
        dim=DIM,
        context=CONTEXT,
        entries=tuple(entries),
        baselines=judged_baselines,
        floor=entries[0].evaluation.floor,
        profiles=profiles,
        matrices=(np.asarray(p), np.asarray(q), f"diag, {deepest['diag'].layers} layers"),
        training=seconds,
        environment=environment(),
        command=f"innerloop demo --out {out}",
    )


def _baselines() -> dict:
    return {
        name: (evaluation, published(name, _NOISE), predictor.tuned)
        for name, (predictor, evaluation) in judge_baselines(_task()).items()
    }


def _by_layer(models: dict) -> dict[str, Evaluation]:
    return evaluate_many(models, _task(), sequences=4 * CHUNK)


def _profiles(models: dict) -> pl.DataFrame:
    # Not from zero: there the optimum's loss vanishes, and on a log axis nothing else would be seen.
    sigmas = np.linspace(0.2, _task().noise.maximum + 1, 30)
    shown = models | {"bayes": BayesOptimal(_task())}
    profiles = losses_by_sigma(shown, _task(), sigmas=sigmas, sequences=2048)
    last = profiles.filter(pl.col("layer") == pl.col("layer").max().over("method"))
    return last.select("method", "sigma", "value", "standard_error")


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
