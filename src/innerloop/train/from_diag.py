"""FULL trained from DIAG, which it contains: never worse, and where gradients alone do not come near, far better.

A warm chain solves DIAG of every depth; each, written as FULL, goes on by first-order training, and the better of the two
on a fresh draw is kept. Without noise losses of deep models are many orders of magnitude below what Muon or Adam reach from
random values; there this is how FULL gets to them.
"""

from dataclasses import dataclass, replace

import numpy as np

from innerloop.models.linear import LinearTransformer
from innerloop.train import judge, second_order
from innerloop.train.checkpoint import part
from innerloop.train.first_order import FirstOrder, FirstOrderState
from innerloop.train.warm_chain import ChainState, WarmChain

_CHAIN = 0.4  # share of the work, about


@dataclass(frozen=True)
class FromDiagState:
    """Where a run stands.

    Attributes:
        chain: of DIAG.
        kept: the FULL models of the depths that are done, in order.
        onwards: first-order training of the next depth, if it has begun.
    """

    chain: ChainState
    kept: tuple[LinearTransformer, ...] = ()
    onwards: FirstOrderState | None = None


@dataclass(frozen=True)
class FromDiag:
    """Trains FULL models from DIAG's; a trainer in the sense of `innerloop.train.loop`.

    Args:
        chain: solves DIAG, with as many heads as the FULL models shall have.
        onwards: how a FULL model goes on; its own parameters are not used.
        judge: sequences of the draw on which the better is chosen.
    """

    chain: WarmChain
    onwards: FirstOrder
    judge: int = 102_400

    def start(self) -> FromDiagState:
        return FromDiagState(self.chain.start())

    def finished(self, state: FromDiagState) -> bool:
        return self.chain.finished(state.chain) and len(state.kept) == len(state.chain.solved)

    def progress(self, state: FromDiagState) -> float:
        """Share of the work done, from 0 to 1."""
        if not self.chain.finished(state.chain):
            return _CHAIN * self.chain.progress(state.chain)
        begun = 0.0 if state.onwards is None else self.onwards.progress(state.onwards)
        return _CHAIN + (1 - _CHAIN) * (len(state.kept) + begun) / len(state.chain.solved)

    def current(self, state: FromDiagState) -> LinearTransformer:
        if not self.chain.finished(state.chain):
            return self.chain.current(state.chain)
        if state.onwards is None:
            return state.kept[-1] if state.kept else state.chain.solved[0]
        return self.onwards.current(state.onwards)

    def by_depth(self, state: FromDiagState) -> dict[int, LinearTransformer]:
        """The FULL models of every depth that the chain solved."""
        return {model.layers: model for model in state.kept}

    def advance(self, state: FromDiagState) -> tuple[FromDiagState, dict]:
        """What the chain or the first-order trainer does in a reporting interval."""
        if not self.chain.finished(state.chain):
            chain, row = self.chain.advance(state.chain)
            return replace(state, chain=chain), row
        trainer = self._trainer(state)
        before = trainer.start() if state.onwards is None else state.onwards
        after, row = trainer.advance(before)
        if not trainer.finished(after):
            return replace(state, onwards=after), row
        kept = self._better(trainer.model, trainer.current(after))
        return replace(state, kept=(*state.kept, kept), onwards=None), row

    def pack(self, state: FromDiagState) -> dict[str, np.ndarray]:
        """The state as named arrays, for a checkpoint."""
        arrays = {f"chain_{name}": array for name, array in self.chain.pack(state.chain).items()}
        for index, model in enumerate(state.kept):
            arrays[f"kept_{index}"] = second_order.flat(model)
        if state.onwards is not None:
            trainer = self._trainer(state)
            arrays |= {f"onwards_{name}": array for name, array in trainer.pack(state.onwards).items()}
        return arrays

    def unpack(self, arrays: dict[str, np.ndarray]) -> FromDiagState:
        """The inverse of `pack`."""
        chain = self.chain.unpack(part(arrays, "chain_"))
        flat = part(arrays, "kept_")
        kept = tuple(
            second_order.unflat(model.as_full(), flat[str(index)])
            for index, model in enumerate(chain.solved[: len(flat)])
        )
        state = FromDiagState(chain, kept)
        if begun := part(arrays, "onwards_"):
            state = replace(state, onwards=self._trainer(state).unpack(begun))
        return state

    def _trainer(self, state: FromDiagState) -> FirstOrder:
        """Of the depth that is next."""
        return replace(self.onwards, model=state.chain.solved[len(state.kept)].as_full())

    def _better(self, before: LinearTransformer, after: LinearTransformer) -> LinearTransformer:
        fresh = self.chain.task, self.chain.objective, self.chain.seed, self.judge
        return (before, after)[judge.least((before, after), *fresh)]
