"""Which run holds an entry that several yield: the one whose model is best on sequences that nothing else draws.

FULL of five layers, say, comes from random values by a run of its own and, a layer at a time, from a deeper model. Neither
is always the better, and the sequences of Table 1 are not to decide which.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
import polars as pl

from innerloop.evaluation.losses import in_precision
from innerloop.files import write_atomically
from innerloop.memory import shed_programs
from innerloop.models.linear import LinearTransformer
from innerloop.papers.vladymyrov2024.measured import Part, choice_of, task_of
from innerloop.papers.vladymyrov2024.study import HEAVY, NOISELESS, Entry
from innerloop.study import load_run
from innerloop.train import judge
from innerloop.train.objectives import Examples
from innerloop.train.second_order import Pool, mean_loss, pool_losses, take

_SEED = 2**31 - 24  # of no run
_DRAWS, _COUNT = 5, 102_400  # fresh draws, and sequences in each
_EXTREME = 2048  # of a draw


def choose(part: Part, runs: Sequence[Path], folder: Path) -> None:
    """Judge the models of one entry that the folders of `runs` hold, and write the frame "choice" into `folder`: a row a
    run, with its loss and whether it is the least."""
    (entry,) = part.entries
    models = [load_run(run).exact_by_depth[entry.layers] for run in runs]
    losses = judged(models, entry)
    best = judge.least_of(losses)
    rows = [
        {**entry._asdict(), "run": run.name, "loss": loss, "chosen": place == best}
        for place, (run, loss) in enumerate(zip(runs, losses, strict=True))
    ]
    write_atomically(folder / part.file("choice"), pl.DataFrame(rows).write_parquet)
    shed_programs()


def judged(models: Sequence[LinearTransformer], entry: Entry) -> list[float]:
    """What each of the models is judged by: an estimate of the mean loss over all draws, from the first of them and the
    extreme sequences of all, which tell a model with a pole from one without. Where single sequences carry the mean of any
    model, as in Table 1, the median over draws as large as the paper's."""
    with jax.enable_x64(True):  # losses without noise are far below what float32 resolves
        models = [in_precision(model, "float64") for model in models]
        if entry.problem == NOISELESS and entry.layers >= HEAVY:
            draws = _draws(entry.problem)
            return [float(np.median([mean_loss(model, draw) for draw in draws])) for model in models]
        pool = _stratified(entry.problem)
        return [float(pool_losses(model, pool.examples) @ pool.weights) for model in models]


# The entries of a problem follow each other.
@lru_cache(maxsize=1)
def _draws(problem: str) -> tuple[Examples, ...]:
    return tuple(_draw(problem, draw) for draw in range(_DRAWS))


@lru_cache(maxsize=1)
def _stratified(problem: str) -> Pool:
    """The first draw and the extreme sequences of the others, with weights by which a sum over them estimates the mean over
    all draws."""
    first = _draw(problem, 0)
    usual = np.setdiff1d(np.arange(_COUNT), judge.extreme(first.moments.S, _EXTREME))
    weights = np.ones(_COUNT)
    weights[usual] = (_DRAWS * _COUNT - _DRAWS * _EXTREME) / len(usual)
    pool = Pool(first, weights)
    for number in range(1, _DRAWS):
        draw = _draw(problem, number)
        pool += Pool(take(draw, judge.extreme(draw.moments.S, _EXTREME)), np.ones(_EXTREME))
    return replace(pool, weights=pool.weights / pool.weights.sum())


def _draw(problem: str, number: int) -> Examples:
    return judge.draw_fresh(task_of(problem), "bayes", _SEED, _COUNT, draw=number)


def chosen(
    candidates: Mapping[Entry, tuple[str, ...]], entries: Iterable[Entry], folder: Path
) -> dict[Entry, str]:
    """The run of each of the `entries`: the only candidate, or the one that its choice in `folder` says."""

    def best(entry: Entry) -> str:
        (only, *others) = candidates[entry]
        if not others:
            return only
        return pl.read_parquet(folder / choice_of(entry).file("choice")).filter("chosen")["run"].item()

    return {entry: best(entry) for entry in entries}
