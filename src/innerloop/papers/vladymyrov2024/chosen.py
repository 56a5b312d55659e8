"""Which run holds an entry that several yield: the one whose model is best on sequences that nothing else draws.

FULL of five layers, say, comes from random values by a run of its own and, a layer at a time, from a deeper model. Neither
is always the better, and the sequences of Table 1 are not to decide which.
"""

from collections.abc import Iterable, Mapping, Sequence
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
from innerloop.train.second_order import mean_loss

_SEED = 2**31 - 24  # of no run
_DRAWS, _COUNT = 3, 102_400
_GUARD, _EXTREME = 1e-3, 1024  # weight and number of extreme sequences, as in training


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
    """What each of the models is judged by: the mean loss, and a thousandth of that on extreme sequences, which tells a
    model with a pole from one without. Where single sequences carry the mean of any model, as in Table 1, the median over
    draws as large as the paper's."""
    with jax.enable_x64(True):  # losses without noise are far below what float32 resolves
        draws, extreme = _sequences(entry.problem)
        models = [in_precision(model, "float64") for model in models]
        if entry.problem == NOISELESS and entry.layers >= HEAVY:
            return [float(np.median([mean_loss(model, draw) for draw in draws])) for model in models]
        return [
            float(np.mean([mean_loss(model, draw) for draw in draws])) + _GUARD * mean_loss(model, extreme)
            for model in models
        ]


@lru_cache(maxsize=1)  # the entries of a problem follow each other
def _sequences(problem: str) -> tuple[tuple[Examples, ...], Examples]:
    """Fresh draws, and extreme sequences."""
    task, key = task_of(problem), jax.random.key(_SEED)
    draws = tuple(judge.draw_fresh(task, "bayes", _SEED, _COUNT, draw=draw) for draw in range(_DRAWS))
    return draws, judge.draw_extreme(task, "bayes", key, _EXTREME)


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
