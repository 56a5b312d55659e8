"""The loop around a trainer: report, checkpoint, resume. The trainer's step is pure; everything with an effect is here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from innerloop.models.linear import LinearTransformer
from innerloop.train.checkpoint import Checkpoints


@runtime_checkable
class Trainer(Protocol):
    """A training algorithm as a state machine: the same state always goes on the same way."""

    def start(self) -> Any: ...

    def advance(self, state: Any) -> tuple[Any, dict]:
        """One reporting interval: the new state, and a row of what to report (`phase`, `layers`, `loss`, ..)."""
        ...

    def finished(self, state: Any) -> bool: ...

    def progress(self, state: Any) -> float: ...

    def current(self, state: Any) -> LinearTransformer: ...

    def by_depth(self, state: Any) -> dict[int, LinearTransformer]: ...

    def pack(self, state: Any) -> dict[str, np.ndarray]: ...

    def unpack(self, arrays: dict[str, np.ndarray]) -> Any: ...


@dataclass(frozen=True)
class Report:
    """What a progress display needs after an interval.

    Attributes:
        row: step, phase, layers, loss, regret, seconds and what the trainer adds.
        progress: share of the work done, from 0 to 1.
        seconds_left: an estimate, None at the start.
    """

    row: dict
    progress: float
    seconds_left: float | None


def run(
    trainer: Trainer,
    *,
    regret: Callable[[LinearTransformer], float],
    report: Callable[[Report], None] | None = None,
    before_saving: Callable[[], None] | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    save_every: float = 2.0,
) -> Any:
    """Train to the end and return the final state.

    Args:
        regret: judges the current model for the report.
        report: called after every interval.
        before_saving: called before every checkpoint: what was reported must be on disk by then, for a resumed run
            starts after it.
        checkpoints: where states are kept; None keeps none.
        resume: go on from the newest readable checkpoint, if there is one.
        save_every: seconds between checkpoints; the last state is always saved.
    """
    step, state = 0, None
    if resume and checkpoints is not None and (found := checkpoints.latest()) is not None:
        step, state = found[0], trainer.unpack(found[1])
    if state is None:
        state = trainer.start()
    began = saved = time.monotonic()
    before = trainer.progress(state)
    while not trainer.finished(state):
        state, row = trainer.advance(state)
        step += 1
        now = time.monotonic()
        if report is not None:
            progress = trainer.progress(state)
            left = (now - began) * (1 - progress) / (progress - before) if progress > before else None
            row = {"step": step, **row, "regret": regret(trainer.current(state)), "seconds": now - began}
            report(Report(row, progress, left))
        if checkpoints is not None and (now - saved > save_every or trainer.finished(state)):
            if before_saving is not None:
                before_saving()
            checkpoints.save(step, trainer.pack(state))
            saved = now
    return state
