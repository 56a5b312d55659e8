"""What a person reads in a terminal: tables on standard output, progress on standard error."""

import queue as queues
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from innerloop.train import Report


def console() -> Console:
    """Standard error; results have standard output to themselves."""
    return Console(stderr=True)


def bar(where: Console) -> Progress:
    """A progress bar with room for loss, regret and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[detail]}"),
        console=where,
    )


def detail(row: dict, seconds_left: float | None) -> str:
    """The end of a progress line."""
    left = "" if seconds_left is None else f", {seconds_left:.0f} s left"
    return f"depth {row['layers']} {row['phase']}: loss {row['loss']:.5g}, regret {row['regret']:.5g}{left}"


@contextmanager
def training(where: Console, name: str) -> Iterator["Callable[[Report], None]"]:
    """A bar for one training run; yields what to call after every interval."""
    quiet = not where.is_terminal
    with bar(where) as progress:
        task = progress.add_task(name, total=1.0, detail="compiling")
        told = -1

        def report(update: "Report") -> None:
            nonlocal told
            text = detail(update.row, update.seconds_left)
            progress.update(task, completed=update.progress, detail=text)
            if quiet and (tenth := int(10 * update.progress)) > told:  # a log file gets a line every tenth
                told = tenth
                where.print(f"{name}: {100 * update.progress:.0f}%, {text}", highlight=False)

        yield report
        progress.update(task, completed=1.0)


@contextmanager
def study(where: Console, name: str) -> Iterator[Callable[[Any], None]]:
    """A bar for a study; yields what to call with its progress."""
    quiet = not where.is_terminal
    with bar(where) as progress:
        task = progress.add_task(name, total=1.0, detail="starting")
        told = -1

        def report(update: Any) -> None:
            nonlocal told
            failed = f", {update.failed} failed" if update.failed else ""
            left = "" if update.seconds_left is None else f", {duration(update.seconds_left)} left"
            text = f"{update.done} of {update.total} runs done{failed}{left}"
            progress.update(task, completed=update.share, detail=text)
            if quiet and (tenth := int(10 * update.share)) > told:
                told = tenth
                where.print(f"{name}: {100 * update.share:.0f}%, {text}", highlight=False, soft_wrap=True)

        yield report


def duration(seconds: float) -> str:
    """A time that a person can read."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def runs(rows: list[dict], most: int = 100) -> None:
    """Print a table of runs."""
    table = Table(title=f"{len(rows)} runs" + (f", the first {most}" if len(rows) > most else ""))
    for column in ("run", "study", "status", "adjusted loss", "± s.e.", "regret", "seconds"):
        left = column in ("run", "study", "status")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows[:most]:
        numbers = [
            "" if row[name] is None else f"{row[name]:{form}}"
            for name, form in (
                ("adjusted_loss", ".5f"),
                ("adjusted_loss_se", ".5f"),
                ("regret", ".5f"),
                ("seconds", ".1f"),
            )
        ]
        table.add_row(row["run"], row["study"] or "", row["status"] or "", *numbers)
    Console().print(table)


def comparison(frame: Any, *, title: str) -> None:
    """Print models beside each other."""
    table = Table(title=title)
    for column in ("run", "adjusted loss", "± s.e.", "regret", "minus the best", "± s.e. of the difference"):
        table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
    for row in frame.iter_rows(named=True):
        names = ("adjusted_loss", "adjusted_loss_se", "regret", "difference", "difference_se")
        table.add_row(row["run"], *(f"{row[name]:.5f}" for name in names))
    Console().print(table)


def baselines(answer: dict, *, title: str) -> None:
    """Print the predictors of a problem, the model's if there is one among them, and the floor, worst first."""
    table = Table(title=f"{title}, sigma ~ {answer['noise']}, d = {answer['dim']}, n = {answer['context']}")
    for column in ("predictor", "adjusted loss", "standard error", "tuned"):
        table.add_column(column, justify="left" if column in ("predictor", "tuned") else "right")
    rows = dict(answer["baselines"])
    if "model" in answer:
        rows = {"model": answer["model"]["adjusted_loss"]} | rows
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["value"]):
        tuned = ", ".join(f"{key} = {value:.4g}" for key, value in row.get("tuned", {}).items())
        table.add_row(name, f"{row['value']:.5f}", f"{row['se']:.5f}", tuned)
    floor = answer["floor"]
    table.add_row(
        "Bayes floor (no predictor can do better)", f"{floor['value']:.5f}", f"{floor['se']:.5f}", ""
    )
    Console().print(table)


def facts(answer: dict) -> None:
    """Print names and what is known of them, a line each."""
    table = Table(show_header=False, box=None)
    for name, value in answer.items():
        # The brackets of an extra, innerloop[remote], are no markup.
        table.add_row(name, Text(", ".join(value) if isinstance(value, list) else str(value)))
    Console().print(table)


class Stages:
    """One bar over several stages of roughly known length, with the time left."""

    def __init__(self, progress: Progress, where: Console, seconds: dict[str, float]):
        self._progress, self._where, self._seconds = progress, where, seconds
        self._task = progress.add_task("starting", total=sum(seconds.values()), detail="")
        self._began, self._told = time.monotonic(), -1

    def update(self, stage: str, share: float, detail: str) -> None:
        """`share` of `stage` is done."""
        names = list(self._seconds)
        done = sum(self._seconds[name] for name in names[: names.index(stage)]) + share * self._seconds[stage]
        total = sum(self._seconds.values())
        elapsed = time.monotonic() - self._began
        # The plan's own estimate until there is something to go by, then the pace so far.
        left = (total - done) * (elapsed / done if done > 0.1 * total else 1)
        text = f"{detail}, {left:.0f} s left"
        self._progress.update(self._task, completed=done, description=stage, detail=text)
        tenth = int(10 * done / total)
        if not self._where.is_terminal and tenth > self._told:
            self._told = tenth
            self._where.print(f"{stage}: {100 * done / total:.0f}%, {text}", highlight=False, soft_wrap=True)

    def finish(self, stage: str) -> None:
        self.update(stage, 1.0, "done")


@contextmanager
def stages(where: Console, seconds: dict[str, float]) -> Iterator[Stages]:
    """A bar over stages that take about `seconds` each."""
    with bar(where) as progress:
        yield Stages(progress, where, seconds)


def listen(queue: Any, futures: Iterable[Future], heard: Callable[[Any], None]) -> Iterator[Future]:
    """Pass messages of worker processes to `heard` until their futures are done; yields each future as it ends."""
    pending = list(futures)
    while pending:
        try:
            heard(queue.get(timeout=0.2))
        except queues.Empty:
            for future in [future for future in pending if future.done()]:
                pending.remove(future)
                yield future
