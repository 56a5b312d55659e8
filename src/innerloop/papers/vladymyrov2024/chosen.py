"""Which run holds an entry that several yield: the one whose model is best on sequences that nothing else draws.

FULL of five layers, say, comes from random values by a run of its own and, a layer at a time, from a deeper model. Neither
is always the better, and the sequences of Table 1 are not to decide which.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import polars as pl
from jaxtyping import Float

from innerloop.evaluation.losses import in_precision
from innerloop.files import write_atomically
from innerloop.memory import shed_programs
from innerloop.models.linear import LinearTransformer
from innerloop.papers.vladymyrov2024.measured import Part, choice_of, task_of
from innerloop.papers.vladymyrov2024.study import Entry
from innerloop.study import load_run
from innerloop.train import judge
from innerloop.train.objectives import Examples
from innerloop.train.second_order import mean_loss

_SEED = 2**31 - 24  # of no run
_DRAWS, COUNT = 3, 102_400  # fresh draws, about as large as the paper's
ALIKE = 1.02  # medians within this factor of the least
STRETCH = 1.15  # of eigenvalues and of squared labels, of one draw more
POLE = 2.0  # times the least loss there


class Judged(NamedTuple):
    """What the runs of an entry lose: the median and the mean over draws, and the mean with larger inputs and labels."""

    medians: Float[np.ndarray, "runs"]
    means: Float[np.ndarray, "runs"]
    beyond: Float[np.ndarray, "runs"]

    @property
    def best(self) -> int:
        """Which run is kept: of those whose median is within 2 % of the least and that have no pole, the one of the least
        mean.

        A draw as large as the paper's hardly ever shows a pole that one sequence in a million meets, so medians compare
        with what was published. One just beyond the tail shows it: a run that loses more than twice the least there has
        one.
        """
        medians, beyond = (np.where(np.isnan(each), np.inf, each) for each in (self.medians, self.beyond))
        alike = medians <= ALIKE * medians.min()
        safe = alike & (beyond <= POLE * beyond[alike].min())
        return judge.least_of(np.where(safe, self.means, np.inf))


def choose(part: Part, runs: Sequence[Path], folder: Path) -> None:
    """Judge the models of one entry that the folders of `runs` hold, and write the frame "choice" into `folder`: a row a
    run, with what it loses and whether it is kept."""
    (entry,) = part.entries
    found = judged([load_run(run).exact_by_depth[entry.layers] for run in runs], entry.problem)
    kept = found.best
    rows = [
        {
            **entry._asdict(),
            "run": run.name,
            "median": median,
            "mean": mean,
            "beyond": beyond,
            "kept": place == kept,
        }
        for place, (run, median, mean, beyond) in enumerate(zip(runs, *found, strict=True))
    ]
    write_atomically(folder / part.file("choice"), pl.DataFrame(rows).write_parquet)
    shed_programs()


def judged(models: Sequence[LinearTransformer], problem: str) -> Judged:
    """Losses of the models on fresh draws."""
    with jax.enable_x64(True):  # losses without noise are far below what float32 resolves
        exact = [in_precision(model, "float64") for model in models]
        fresh, larger = _draws(problem)
        losses = np.array([[mean_loss(model, draw) for draw in fresh] for model in exact])
        beyond = np.array([mean_loss(model, larger) for model in exact])
    return Judged(np.median(losses, axis=1), losses.mean(axis=1), beyond)


@lru_cache(maxsize=1)  # the entries of a problem follow each other
def _draws(problem: str) -> tuple[tuple[Examples, ...], Examples]:
    """Fresh draws, and one whose contexts are those of inputs and labels that are larger by a common factor."""
    task = task_of(problem)
    *fresh, last = (judge.draw_fresh(task, "bayes", _SEED, COUNT, draw=draw) for draw in range(_DRAWS + 1))
    larger = replace(last, moments=replace(last.moments, S=STRETCH * last.moments.S))
    return tuple(fresh), larger


def chosen(
    candidates: Mapping[Entry, tuple[str, ...]], entries: Iterable[Entry], folder: Path
) -> dict[Entry, str]:
    """The run of each of the `entries`: the only candidate, or the one that its choice in `folder` says."""

    def kept(entry: Entry) -> str:
        (only, *others) = candidates[entry]
        if not others:
            return only
        return pl.read_parquet(folder / choice_of(entry).file("choice")).filter("kept")["run"].item()

    return {entry: kept(entry) for entry in entries}
