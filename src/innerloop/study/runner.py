"""Carry a study out: plan, groups, engine, tables; and go on with one that was stopped anywhere.

What is done is read off the tables and the run folders, never off a list that a crash could leave stale. A group's work is
a pure function of its specs and its folders, so it may be done again: by the same process, another one, or another host.
"""

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from innerloop.evaluation import Evaluation, evaluate_many
from innerloop.files import remove_leftovers, write_atomically
from innerloop.study.errors import SpecError
from innerloop.study.plan import Group, Plan, PlannedRun
from innerloop.study.remote import Mirror, mirrored
from innerloop.study.run import Job, drop_unreported, load_run, status_of, train_runs
from innerloop.study.store import SCHEMAS, Store
from innerloop.study.tracking import check_trackers
from innerloop.train import Preempted

_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Task:
    """One group to do, all that a worker anywhere needs.

    Attributes:
        folder: of the study, or its URL.
        study: its name.
        group: the runs that are not done.
        track: names of trackers to tell.
    """

    folder: Path | str
    study: str
    group: Group
    track: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a task: the error's message if it failed."""

    task: Task
    error: str | None = None


@runtime_checkable
class Engine(Protocol):
    """Something that does tasks, several at a time."""

    def outcomes(self, tasks: Sequence[Task], tell: Callable[[Any], None]) -> Iterator[Outcome]:
        """Every task's outcome as it comes; `tell` hears (group, progress, row) while they run.

        Raises:
            Preempted: the process was asked to stop; what runs has been saved.
        """
        ...


@dataclass(frozen=True)
class Progress:
    """What a display of a study needs.

    Attributes:
        share: of the work, from 0 to 1.
        done, failed, total: runs.
        seconds_left: an estimate, None at the start.
        detail: the latest row in words.
    """

    share: float
    done: int
    failed: int
    total: int
    seconds_left: float | None
    row: dict


def run_study(
    plan: Plan,
    folder: Path | str,
    engine: Engine,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
    track: Sequence[str] = (),
) -> list[Outcome]:
    """Do all runs of `plan` that are not done, and return the tasks that failed.

    Args:
        folder: a folder, or the URL of one on object storage.

    Raises:
        SpecError: the folder holds a study and `resume` is not set, or holds another study, or cannot be written.
        Preempted: the process was asked to stop; `resume` goes on.
    """
    with mirrored(folder) as mirror:
        check_trackers(track, mirror.address)
        here = mirror.folder
        mirror.pull("study.yaml", "done", "tables")
        _prepare(plan, here, resume)
        _mend(plan, mirror)
        tasks = [replace(task, folder=mirror.address, track=tuple(track)) for task in _left(plan, mirror)]
        if tasks:
            (here / "done").unlink(missing_ok=True)  # a table lost rows since
        mirror.push()  # before anything is trained: an address that cannot be written is said now
        failed = _carry_out(plan, tasks, engine, report)
        mirror.pull("tables")
        if mirror.apart:  # workers elsewhere only add: nobody compacts what another one is numbering
            for table in SCHEMAS:
                Store(here).compact_if_many(table)
        if not failed and not _left(plan, mirror):
            (here / "done").touch()  # readers need not look for runs that are not in the tables
        mirror.push()
    return failed


def _carry_out(
    plan: Plan, tasks: list[Task], engine: Engine, report: Callable[[Progress], None] | None
) -> list[Outcome]:
    """Let the engine do the tasks, report how they go, and return those that failed."""
    count = sum(len(task.group.runs) for task in tasks)
    already, began = len(plan.runs) - count, time.monotonic()
    shares = {task.group.name: 0.0 for task in tasks}
    weight = {task.group.name: len(task.group.runs) / max(count, 1) for task in tasks}
    counts = {"done": already, "failed": 0}

    def tell(row: dict | None = None) -> None:
        if report is not None:
            share = sum(weight[name] * shares[name] for name in shares)
            elapsed = time.monotonic() - began
            seconds = elapsed * (1 - share) / share if share > 0.02 else None
            report(Progress(share, counts["done"], counts["failed"], len(plan.runs), seconds, row or {}))

    def heard(message: tuple[str, float, dict]) -> None:
        name, share, row = message
        shares[name] = max(shares[name], share)
        tell(row)

    failed = []
    tell()
    for outcome in engine.outcomes(tasks, heard):
        name = outcome.task.group.name
        shares[name] = 1.0
        counts["failed" if outcome.error else "done"] += len(outcome.task.group.runs)
        if outcome.error:
            failed.append(outcome)
        tell()
    return failed


def do_task(
    task: Task, tell: Callable[[Any], None] | None = None, stop: Callable[[], bool] | None = None
) -> None:
    """Train, judge and record a group's runs; what a worker does.

    Raises:
        Preempted: `stop` said so.
    """

    def report(progress: float, row: dict) -> None:
        if tell is not None:
            tell((task.group.name, progress, row))

    with mirrored(task.folder) as mirror, _alone(mirror.folder, task.group):
        folders = [run_folder(mirror.folder, run) for run in task.group.runs]
        if mirror.apart:  # what a former try has left
            mirror.pull(*(folder.relative_to(mirror.folder).as_posix() for folder in folders))
            for folder in folders:
                drop_unreported(folder)
        jobs = [
            Job(run.spec, folder, task.track) for run, folder in zip(task.group.runs, folders, strict=True)
        ]
        with mirror.pushing():
            try:
                train_runs(jobs, resume=True, report=report, stop=stop, saved=mirror.saved)
            except (Preempted, KeyboardInterrupt):
                raise
            except BaseException:
                with suppress(OSError):  # on a full disk the error itself says more
                    _record(task, mirror, {}, status="failed")
                raise
            _record(task, mirror, _judged(task, mirror.folder), status="done")


def run_folder(folder: Path, run: PlannedRun) -> Path:
    """Where a study keeps a run."""
    return folder / "runs" / run.name


def _prepare(plan: Plan, folder: Path, resume: bool) -> None:
    spec = folder / "study.yaml"
    if spec.exists():
        if not resume:
            raise SpecError(
                f"{folder} already holds a study; go on with it by --resume, or choose another --out"
            )
        if spec.read_text() != plan.source:
            raise SpecError(f"{folder} holds another study (its study.yaml differs); choose another --out")
        for each in (folder, *(folder / "tables" / table for table in SCHEMAS)):
            remove_leftovers(each)
        return
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        write_atomically(spec, lambda file: file.write(plan.source.encode()))
    except OSError as error:
        raise SpecError(f"cannot write to {folder}: {error.strerror}") from None


def _mend(plan: Plan, mirror: Mirror) -> None:
    """Set damaged files of the tables aside. Runs that are no longer in a table are done again from their folders.

    History needs more: a run that failed once has older rows in another file, and would look recorded.
    """
    folder, store = mirror.folder, Store(mirror.folder)
    damaged = {table for table in SCHEMAS if store.set_aside(table)}
    if "history" in damaged:
        mirror.pull("runs", wanted=lambda name: name.endswith(("/metrics.parquet", "/status.json")))
        store.add("history", [row for run in plan.runs for row in _history(folder, run)])


def _history(folder: Path, run: PlannedRun) -> list[dict]:
    return [{"run": run.name} | row for row in status_of(run_folder(folder, run))["history"]]


def _left(plan: Plan, mirror: Mirror) -> list[Task]:
    """The groups with runs that are not in the tables as done, or whose models are gone; and these runs of theirs."""
    folder, done = mirror.folder, _done(mirror.folder)
    if not mirror.apart:  # run folders elsewhere are not looked into
        done = {run for run in done if (folder / "runs" / run / "model.npz").exists()}
    left = [(group, tuple(run for run in group.runs if run.name not in done)) for group in plan.groups]
    return [Task(folder, plan.name, replace(group, runs=runs)) for group, runs in left if runs]


def _done(folder: Path) -> set[str]:
    """Runs whose rows are in all three tables."""
    store = Store(folder)
    runs = store.query("runs", "status = 'done'")["run"]
    recorded = [set(store.read(table)["run"]) for table in ("history", "evaluations")]
    return set(runs).intersection(*recorded)


def _judged(task: Task, folder: Path) -> dict[str, Evaluation]:
    """Every run's losses; runs of one problem are judged on the same sequences."""
    alike: dict[tuple, list[PlannedRun]] = {}
    for run in task.group.runs:
        alike.setdefault((run.spec.task.model_dump_json(), run.spec.evaluate), []).append(run)
    judged: dict[str, Evaluation] = {}
    for runs in alike.values():
        spec = runs[0].spec
        judged |= evaluate_many(
            {run.name: load_run(run_folder(folder, run)).exact_model for run in runs},
            spec.task.build(),
            sequences=spec.evaluate.sequences,
            seed=spec.evaluate.seed,
            per_layer=False,
        )
    return judged


def _record(task: Task, mirror: Mirror, judged: dict[str, Evaluation], *, status: str) -> None:
    """The rows of a group's runs, history first: a run is done when its row in `runs` says so."""
    store = Store(mirror.folder)
    history, evaluations, rows = [], [], []
    for run in task.group.runs:
        folder = run_folder(mirror.folder, run)
        found = status_of(folder)
        own = found["history"]
        history += [{"run": run.name} | row for row in own]
        row = {
            "run": run.name,
            "study": task.study,
            "group": task.group.name,
            "status": status,
            **run.spec.model_dump(mode="json"),
            "train": run.spec.train.resolved(run.spec.model.kind).model_dump(mode="json"),
            "seconds": found["seconds"],
            "revision": found["revision"],
            "skipped": own[-1].get("skipped") if own else None,
        }
        if (evaluation := judged.get(run.name)) is not None:
            table = evaluation.table()
            evaluations += [{"run": run.name} | line for line in table.to_dicts()]
            row |= evaluation.summary()
        rows.append(row)
    for table, added in (("history", history), ("evaluations", evaluations), ("runs", rows)):
        store.add(table, added, above=mirror.names(f"tables/{table}"))


@contextmanager
def _alone(folder: Path, group: Group) -> Iterator[None]:
    """Hold a group's lock: a worker whose driver has died may still be at it for a moment."""
    locks = folder / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / group.name).open("w") as file:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise OSError(f"{group.name} in {folder} is being trained by another process") from None
                time.sleep(0.2)
        yield
