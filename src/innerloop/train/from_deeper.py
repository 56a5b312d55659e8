"""FULL trained from a deeper one: a model with one layer more than asked for is trained, loses the layer that it misses
least and is trained on, and so down to one layer.

From random values Muon ends, at three layers, in a basin that is hardly better than DIAG; a model of four layers does not,
and what is left of it without one of its layers leads to the better basin. To go on takes fewer steps than to begin: one
run yields every depth sooner than a run for each.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from innerloop.models.linear import LinearTransformer
from innerloop.train import judge, second_order
from innerloop.train.checkpoint import part
from innerloop.train.first_order import FirstOrder, FirstOrderState
from innerloop.train.settings import ONWARD, TRIAL


@dataclass(frozen=True)
class FromDeeperState:
    """Where a run stands.

    Attributes:
        solved: the models that are trained, the deepest first, which has one layer more than asked for.
        trials: the last of them without one of its layers, each trained for a while.
        best: of all trials, once they are done.
        under_way: first-order training of the next.
    """

    solved: tuple[LinearTransformer, ...] = ()
    trials: tuple[LinearTransformer, ...] = ()
    best: LinearTransformer | None = None
    under_way: FirstOrderState | None = None


@dataclass(frozen=True)
class FromDeeper:
    """Trains FULL models of every depth below one that is trained first; a trainer in the sense of `innerloop.train.loop`.

    Args:
        gradients: how all are trained; its model is where the deepest starts. Trials without a layer, and the training of
            the best of them, have fewer steps, as `TRIAL` and `ONWARD` say.
        seed: of the draw on which the better is chosen.
        judge: its sequences.
    """

    gradients: FirstOrder
    seed: int = 0
    judge: int = 102_400

    def start(self) -> FromDeeperState:
        return FromDeeperState()

    def finished(self, state: FromDeeperState) -> bool:
        return bool(state.solved) and state.solved[-1].layers == 1

    def progress(self, state: FromDeeperState) -> float:
        """Share of the work done, from 0 to 1; deeper models cost more."""
        deepest = self.gradients.model.layers
        costs = [_cost(deepest)]
        for layers in range(deepest - 1, 0, -1):
            costs += [_cost(layers) / math.prod(TRIAL)] * (layers + 1) + [_cost(layers) / ONWARD]
        place = len(state.trials) + sum(
            1 if k == 0 else model.layers + 2 for k, model in enumerate(state.solved)
        )
        done = sum(costs[:place])
        if state.under_way is not None:
            done += costs[place] * self._trainer(state).progress(state.under_way)
        return done / sum(costs)

    def current(self, state: FromDeeperState) -> LinearTransformer:
        if state.under_way is not None:
            return self._trainer(state).current(state.under_way)
        if state.best is not None:
            return state.best
        return (self.gradients.model, *state.solved, *state.trials)[-1]

    def by_depth(self, state: FromDeeperState) -> dict[int, LinearTransformer]:
        """The models of every depth but that of the first."""
        return {model.layers: model for model in reversed(state.solved[1:])}

    def advance(self, state: FromDeeperState) -> tuple[FromDeeperState, dict]:
        """A reporting interval of the training that is next."""
        trainer = self._trainer(state)
        after, row = trainer.advance(trainer.start() if state.under_way is None else state.under_way)
        row |= {"phase": self._phase(state)}
        if not trainer.finished(after):
            return replace(state, under_way=after), row
        model = trainer.current(after)
        if not state.solved:
            return FromDeeperState((model,)), row
        if state.best is not None:
            return FromDeeperState((*state.solved, self._better(state.best, model))), row
        trials = (*state.trials, model)
        best = self._better(*trials) if len(trials) == state.solved[-1].layers else None
        return replace(state, trials=trials, best=best, under_way=None), row

    def pack(self, state: FromDeeperState) -> dict[str, np.ndarray]:
        """The state as named arrays, for a checkpoint."""
        models = {f"solved_{index}": model for index, model in enumerate(state.solved)}
        models |= {f"trial_{index}": model for index, model in enumerate(state.trials)}
        models |= {} if state.best is None else {"best": state.best}
        arrays = {name: second_order.flat(model) for name, model in models.items()}
        if state.under_way is not None:
            packed = self._trainer(state).pack(state.under_way)
            arrays |= {f"under_way_{name}": array for name, array in packed.items()}
        return arrays

    def unpack(self, arrays: dict[str, np.ndarray]) -> FromDeeperState:
        """The inverse of `pack`."""
        like = self.gradients.model
        solved, trials = [], []
        for index in range(len(part(arrays, "solved_"))):
            solved.append(second_order.unflat(like, arrays[f"solved_{index}"]))
            like = like.without_layer(0) if like.layers > 1 else like
        for index in range(len(part(arrays, "trial_"))):
            trials.append(second_order.unflat(like, arrays[f"trial_{index}"]))
        best = second_order.unflat(like, arrays["best"]) if "best" in arrays else None
        state = FromDeeperState(tuple(solved), tuple(trials), best)
        if begun := part(arrays, "under_way_"):
            state = replace(state, under_way=self._trainer(state).unpack(begun))
        return state

    def _phase(self, state: FromDeeperState) -> str:
        """What the training that is next is called in reports."""
        if not state.solved:
            return "deeper"
        if state.best is not None:
            return self.gradients.optimizer
        return f"without layer {len(state.trials) + 1}"

    def _trainer(self, state: FromDeeperState) -> FirstOrder:
        """Of the training that is next; the trials of a depth have one stream of sequences, so that they differ in their
        layers alone."""
        if not state.solved:
            return self.gradients
        whole, stage = self.gradients, 2 * len(state.solved)
        if state.best is not None:
            steps = max(1, whole.steps // ONWARD)
            return replace(whole, model=state.best, steps=steps, data_seed=self._stream(stage))
        shares = whole.batch // whole.devices  # every device has as many
        return replace(
            whole,
            model=state.solved[-1].without_layer(len(state.trials)),
            steps=max(1, whole.steps // TRIAL[0]),
            batch=max(1, shares // TRIAL[1]) * whole.devices,
            data_seed=self._stream(stage - 1),
        )

    def _stream(self, stage: int) -> int:
        """The seed of the sequences of a later stage."""
        return (self.gradients.data_seed + stage * 0x3C6EF372) % 2**31

    def _better(self, *models: LinearTransformer) -> LinearTransformer:
        fresh = self.gradients.task, self.gradients.objective, self.seed, self.judge
        return models[judge.least(models, *fresh)]


def _cost(layers: int) -> float:
    """Of training, in units of a layer; drawing sequences costs about as much as two."""
    return layers + 2.0
