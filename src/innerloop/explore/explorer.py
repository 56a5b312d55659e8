"""What the page of `innerloop explore` shows, as plain numbers: no server is needed to ask for them."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

import jax
import numpy as np

from innerloop.evaluation.losses import in_precision
from innerloop.explore.asked import (
    MOST_FEATURES,
    MOST_POINTS,
    MOST_SEED,
    ContextAsked,
    DrawAsked,
    LossesAsked,
)
from innerloop.explore.context import (
    Layer,
    distances,
    draw,
    implicit_path,
    layers_of_flows,
    layers_of_matrices,
    references,
)
from innerloop.explore.sample import SEQUENCES, Judged, Sample
from innerloop.models.linear import Blockwise
from innerloop.study import Run

_FEATURES = 20  # to choose from, where the model works in any dimension


class Explorer:
    """One run, or two of the same problem, and a sample of fresh sequences on which they are judged.

    The sample is drawn, and its program compiled, beside what else is asked: `sample` and `losses` wait for it.

    Raises:
        ValueError: there are not one or two runs, they are of different problems, or have more features than can be shown.
    """

    def __init__(self, runs: Sequence[Run]):
        if not 1 <= len(runs) <= 2:
            raise ValueError(f"one run or two can be explored, got {len(runs)}")
        problems = {task.identity: task for task in (run.spec.task.build() for run in runs)}
        if len(problems) > 1:
            said = "; ".join(task.summary for task in problems.values())
            raise ValueError(f"the runs are of different problems, which have no common scale: {said}")
        self._task = runs[0].spec.task.build()
        if self._task.dim > MOST_FEATURES:
            raise ValueError(
                f"runs of up to {MOST_FEATURES} features can be explored, got dim {self._task.dim}"
            )
        self._runs = [_Shown(run) for run in runs]
        self._judged: dict[int, Judged] = {}
        self._sample = _begun(self._prepared)

    def about(self) -> dict:
        """The problem, the limits of what can be chosen, and the runs, with the flows of those that have them."""
        task = self._task
        stated = task.input_root is not None or task.weight_root is not None
        fixed = stated or any(run.flows is None for run in self._runs)
        dims = [task.dim, task.dim] if fixed else [1, max(_FEATURES, task.dim)]
        return {
            "problem": {
                "summary": task.summary,
                "dim": task.dim,
                "context": task.context,
                "sigma": [min(task.noise.arguments()), task.noise.maximum],
            },
            "limits": {
                "n": [1, MOST_POINTS],
                "dim": dims,
                "sigma": [0, task.noise.maximum + 1],
                "seed": [0, MOST_SEED],
            },
            "runs": [run.about() for run in self._runs],
        }

    def draw(self, asked: DrawAsked) -> dict:
        """A fresh context: x `(n, dim)`, y `(n,)` and the weights `(dim,)` that made it."""
        self._check_dim(asked.dim)
        found = draw(self._task, asked.n, asked.dim, asked.sigma, asked.seed)
        return {name: value.tolist() for name, value in asdict(found).items()}

    def context(self, asked: ContextAsked) -> dict:
        """The weights of least squares, ridge and Bayes, and of each run after every layer with its distances from them."""
        x, y = asked.arrays()
        self._check_dim(x.shape[1])
        if len(asked.flows) != len(self._runs):
            raise ValueError(
                f"flows must have an entry for each of the {len(self._runs)} runs, got {len(asked.flows)}"
            )
        known = references(self._task, x, y, asked.sigma)
        runs = []
        for run, flows in zip(self._runs, asked.flows, strict=True):
            path = implicit_path(run.layers(flows), x, y)
            away = {name: distances(path, weights).tolist() for name, weights in known.items()}
            runs.append({"path": path.tolist(), "distances": away})
        return {"references": {name: weights.tolist() for name, weights in known.items()}, "runs": runs}

    def sample(self) -> dict:
        """What the runs are judged on: how many sequences, the Bayes floor, and Bayes by sigma."""
        sample = self._sample.result()
        return {
            "sequences": SEQUENCES,
            "floor": sample.floor.as_dict(),
            "sigma": sample.sigmas.tolist(),
            "bayes": sample.bayes.tolist(),
        }

    def losses(self, asked: LossesAsked) -> dict:
        """A run's adjusted loss on the sample, and by sigma."""
        if asked.run >= len(self._runs):
            raise ValueError(f"run must be below {len(self._runs)}, the number of runs, got {asked.run}")
        sample, run = self._sample.result(), self._runs[asked.run]
        judged = self._judged[asked.run]
        if asked.flows is not None:
            judged = sample.judge_flows(run.checked(asked.flows))
        return {"adjusted": judged.adjusted.as_dict(), "by_sigma": judged.by_sigma.tolist()}

    def _prepared(self) -> Sample:
        sample = Sample(self._task, most=max(run.depth for run in self._runs))
        for index, run in enumerate(self._runs):
            self._judged[index] = (
                sample.judge(run.model) if run.flows is None else sample.judge_flows(run.flows)
            )
        return sample

    def _check_dim(self, dim: int) -> None:
        low, high = self.about()["limits"]["dim"]
        if not low <= dim <= high:
            allowed = f"{low}, that of the run" if low == high else f"from {low} to {high}"
            raise ValueError(f"dim must be {allowed}, got {dim}")


class _Shown:
    """A run as the page has it: a DIAG or GD++ by its flows, which can be moved, a FULL by its matrices."""

    def __init__(self, run: Run):
        self.name, self.model = str(run.folder), run.exact_model
        with jax.enable_x64(True):
            model = in_precision(run.exact_model, "float64")
            self.flows = np.asarray(model.flows()) if isinstance(model, Blockwise) else None
            self._matrices = tuple(np.asarray(each) for each in model.matrices())

    @property
    def depth(self) -> int:
        return self.model.layers

    def about(self) -> dict:
        flows = None if self.flows is None else self.flows.tolist()
        return {"name": self.name, "kind": self.model.kind, "layers": self.depth, "flows": flows}

    def checked(self, flows) -> np.ndarray:
        """Flows that were asked for, as an array.

        Raises:
            ValueError: the run has no flows, or another number of layers.
        """
        if self.flows is None:
            raise ValueError(f"{self.name} is a FULL model: it has no flows to move")
        if len(flows) != self.depth:
            raise ValueError(f"flows must have {self.depth} layers, as {self.name} has, got {len(flows)}")
        return np.array(flows, float)

    def layers(self, flows) -> list[Layer]:
        if flows is not None:
            return layers_of_flows(self.checked(flows))
        return layers_of_matrices(*self._matrices) if self.flows is None else layers_of_flows(self.flows)


def _begun(prepare) -> Future:
    """The result to be of `prepare`, which runs in a thread of its own."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="innerloop-sample")
    begun = pool.submit(prepare)
    pool.shutdown(wait=False)
    return begun
