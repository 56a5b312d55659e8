"""Progress on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

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
def training(where: Console, name: str) -> Iterator[Callable[[Report], None]]:
    """A bar for one training run; yields what to call after every interval."""
    quiet = not where.is_terminal
    with bar(where) as progress:
        task = progress.add_task(name, total=1.0, detail="compiling")
        told = -1

        def report(update: Report) -> None:
            nonlocal told
            text = detail(update.row, update.seconds_left)
            progress.update(task, completed=update.progress, detail=text)
            if quiet and (tenth := int(10 * update.progress)) > told:  # a log file gets a line every tenth
                told = tenth
                where.print(f"{name}: {100 * update.progress:.0f}%, {text}", highlight=False)

        yield report
        progress.update(task, completed=1.0)

