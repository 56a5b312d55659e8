"""The loop around a trainer: report, checkpoint, resume. The trainer's step is pure; everything with an effect is here."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from innerloop.models.linear import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train.checkpoint import Checkpoints
from innerloop.train.first_order import FirstOrder, advance_together


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


class Preempted(Exception):
    """Training was asked to stop; what was trained is in the checkpoints."""


@dataclass(frozen=True)
class Member:
    """One of the runs that train side by side.

    Attributes:
        trainer: how it learns.
        task: what it learns.
        report: called after every interval.
        before_saving: called before every checkpoint: what was reported must be on disk by then, for a resumed run
            starts after it.
        checkpoints: where states are kept; None keeps none.
    """

    trainer: Trainer
    task: LinearRegression
    report: Callable[[Report], None] | None = None
    before_saving: Callable[[], None] | None = None
    checkpoints: Checkpoints | None = None


def run(
    members: Sequence[Member],
    regrets: Callable[[Sequence[LinearRegression], Sequence[LinearTransformer]], Sequence[float]],
    *,
    resume: bool = False,
    save_every: float = 2.0,
    stop: Callable[[], bool] | None = None,
    saved: Callable[[], None] | None = None,
) -> list[Any]:
    """Train all members to the end and return their final states.

    Members that stand at the same step advance together, in one compiled program, where there are several.

    Args:
        regrets: judges the current models, each on its task, for the report.
        resume: go on from the newest readable checkpoint of each, if there is one.
        save_every: seconds between checkpoints, or more where saving takes long; the last state is always saved.
        stop: asked after every interval; if it says so, everything is saved.
        saved: called after checkpoints were saved.

    Raises:
        Preempted: `stop` said so before the end.
    """
    places = [_begun(member, resume) for member in members]
    began = last = time.monotonic()
    before = [member.trainer.progress(state) for member, (_, state) in zip(members, places, strict=True)]
    unsaved: set[int] = set()
    cost = 0.0
    while left := [k for k, (_, state) in enumerate(places) if not members[k].trainer.finished(state)]:
        # Those that are behind, after a crash between two checkpoints, catch up first.
        step = min(places[k][0] for k in left)
        together = [k for k in left if places[k][0] == step]
        states = [places[k][1] for k in together]
        if len(together) == 1:
            results = [members[together[0]].trainer.advance(states[0])]
        else:
            trainers = [cast(FirstOrder, members[k].trainer) for k in together]
            results = advance_together(trainers, states)
        judged = regrets(
            [members[k].task for k in together],
            [members[k].trainer.current(state) for k, (state, _) in zip(together, results, strict=True)],
        )
        now = time.monotonic()
        for k, (state, row), regret in zip(together, results, judged, strict=True):
            places[k] = (step + 1, state)
            unsaved.add(k)
            _tell(members[k], state, {"step": step + 1, **row, "regret": regret}, now - began, before[k])
        stopping = stop is not None and stop()
        ended = any(members[k].trainer.finished(places[k][1]) for k in together)
        if ended or stopping or now - last > max(save_every, 20 * cost):
            for k in sorted(unsaved):
                _save(members[k], *places[k])
            unsaved.clear()
            if saved is not None:
                saved()
            last = time.monotonic()
            cost = last - now
        if stopping and any(not member.trainer.finished(places[k][1]) for k, member in enumerate(members)):
            raise Preempted
    return [state for _, state in places]


def _begun(member: Member, resume: bool) -> tuple[int, Any]:
    if resume and member.checkpoints is not None and (found := member.checkpoints.latest()) is not None:
        return found[0], member.trainer.unpack(found[1])
    return 0, member.trainer.start()


def _tell(member: Member, state: Any, row: dict, seconds: float, before: float) -> None:
    if member.report is None:
        return
    progress = member.trainer.progress(state)
    left = seconds * (1 - progress) / (progress - before) if progress > before else None
    member.report(Report(row | {"seconds": seconds}, progress, left))


def _save(member: Member, step: int, state: Any) -> None:
    if member.checkpoints is not None:
        if member.before_saving is not None:
            member.before_saving()
        member.checkpoints.save(step, member.trainer.pack(state))
