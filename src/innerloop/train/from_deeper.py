"""FULL trained from a deeper one: a model with one layer more is trained, and then loses the layer that it misses least.

From random values Muon ends, at three layers, in a basin that is hardly better than DIAG; a model of four layers does not,
and what is left of it without one of its layers leads to the better basin.
"""

from dataclasses import dataclass, replace

import numpy as np

from innerloop.models.linear import LinearTransformer
from innerloop.train import second_order
from innerloop.train.checkpoint import part
from innerloop.train.first_order import FirstOrder, FirstOrderState
from innerloop.train.settings import TRIAL


@dataclass(frozen=True)
class FromDeeperState:
    """Where a run stands.

    Attributes:
        deeper: the model with one layer more, once it is trained.
        trials: models without one of its layers, each trained for a while.
        best: of all trials, once they are done; at the end that or what further training made of it.
        under_way: first-order training of the next.
        done: whether nothing is left to do.
    """

    deeper: LinearTransformer | None = None
    trials: tuple[LinearTransformer, ...] = ()
    best: LinearTransformer | None = None
    under_way: FirstOrderState | None = None
    done: bool = False


@dataclass(frozen=True)
class FromDeeper:
    """Trains a FULL model from one that is a layer deeper; a trainer in the sense of `innerloop.train.loop`.

    Args:
        gradients: how all are trained; its model is where the deeper one starts. Trials have a quarter of its steps.
        seed: of the draw on which the better is chosen.
        judge: its sequences.
    """

    gradients: FirstOrder
    seed: int = 0
    judge: int = 102_400

    def start(self) -> FromDeeperState:
        return FromDeeperState()

    def finished(self, state: FromDeeperState) -> bool:
        return state.done

    def progress(self, state: FromDeeperState) -> float:
        """Share of the work done, from 0 to 1."""
        layers = self.gradients.model.layers
        done = (state.deeper is not None) + len(state.trials) / TRIAL + state.done
        if state.under_way is not None:
            trainer = self._trainer(state)
            done += trainer.steps / self.gradients.steps * trainer.progress(state.under_way)
        return min(1.0, done / (2 + layers / TRIAL))

    def current(self, state: FromDeeperState) -> LinearTransformer:
        if state.under_way is not None:
            return self._trainer(state).current(state.under_way)
        models = (self.gradients.model, state.deeper, *state.trials[-1:], state.best)
        return [model for model in models if model is not None][-1]

    def by_depth(self, state: FromDeeperState) -> dict[int, LinearTransformer]:
        """The shallower model alone."""
        assert state.best is not None
        return {state.best.layers: state.best}

    def advance(self, state: FromDeeperState) -> tuple[FromDeeperState, dict]:
        """A reporting interval of the training that is next."""
        trainer = self._trainer(state)
        after, row = trainer.advance(trainer.start() if state.under_way is None else state.under_way)
        row |= {"phase": self._phase(state)}
        if not trainer.finished(after):
            return replace(state, under_way=after), row
        model, state = trainer.current(after), replace(state, under_way=None)
        if state.deeper is None:
            return replace(state, deeper=model), row
        if state.best is not None:
            return replace(state, best=self._better(state.best, model), done=True), row
        state = replace(state, trials=(*state.trials, model))
        if len(state.trials) == self.gradients.model.layers:
            state = replace(state, best=self._better(*state.trials))
        return state, row

    def pack(self, state: FromDeeperState) -> dict[str, np.ndarray]:
        """The state as named arrays, for a checkpoint."""
        models = {"deeper": state.deeper, "best": state.best}
        models |= {f"trial_{index}": model for index, model in enumerate(state.trials)}
        arrays = {name: second_order.flat(model) for name, model in models.items() if model is not None}
        if state.under_way is not None:
            packed = self._trainer(state).pack(state.under_way)
            arrays |= {f"under_way_{name}": array for name, array in packed.items()}
        return arrays | {"done": np.array(state.done)}

    def unpack(self, arrays: dict[str, np.ndarray]) -> FromDeeperState:
        """The inverse of `pack`."""

        def model(name: str, like: LinearTransformer) -> LinearTransformer | None:
            return second_order.unflat(like, arrays[name]) if name in arrays else None

        shallow = self.gradients.model.without_layer(0)
        trials = (model(f"trial_{index}", shallow) for index in range(self.gradients.model.layers))
        state = FromDeeperState(
            deeper=model("deeper", self.gradients.model),
            trials=tuple(trial for trial in trials if trial is not None),
            best=model("best", shallow),
            done=bool(arrays["done"]),
        )
        if begun := part(arrays, "under_way_"):
            state = replace(state, under_way=self._trainer(state).unpack(begun))
        return state

    def _phase(self, state: FromDeeperState) -> str:
        """What the training that is next is called in reports."""
        if state.deeper is None:
            return "deeper"
        if state.best is not None:
            return self.gradients.optimizer
        return f"without layer {len(state.trials) + 1}"

    def _trainer(self, state: FromDeeperState) -> FirstOrder:
        """Of the training that is next; trials have one stream of sequences, so that they differ in their layers alone."""
        if state.deeper is None:
            return self.gradients
        if state.best is not None:
            return replace(self.gradients, model=state.best, data_seed=self._stream(2))
        model, steps = state.deeper.without_layer(len(state.trials)), max(1, self.gradients.steps // TRIAL)
        return replace(self.gradients, model=model, steps=steps, data_seed=self._stream(1))

    def _stream(self, stage: int) -> int:
        """The seed of the sequences of a later stage."""
        return (self.gradients.data_seed + stage * 0x3C6EF372) % 2**31

    def _better(self, *models: LinearTransformer) -> LinearTransformer:
        fresh = self.gradients.task, self.gradients.objective, self.seed, self.judge
        return models[second_order.least(models, *fresh)]
