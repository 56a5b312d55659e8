"""Arguments and options that several commands share, and what is checked of them."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from innerloop.commands import completion

if TYPE_CHECKING:
    from rich.console import Console

REQUEUE = 75  # EX_TEMPFAIL: try again later

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output and nothing else.")
]
RunFolder = Annotated[
    str, typer.Argument(help="Run folder; s3://, gs:// too.", autocompletion=completion.runs)
]
Engine = Annotated[
    str,
    typer.Option(
        help="local: processes of this machine. ray: a Ray cluster.", autocompletion=completion.engines
    ),
]
Address = Annotated[str | None, typer.Option(help="ray: of a running cluster, or auto.")]
Track = Annotated[
    list[str] | None,
    typer.Option(
        help="Tell a tracker too: tensorboard, wandb or mlflow. Repeatable.",
        autocompletion=completion.trackers,
    ),
]


def check_engine(engine: str) -> None:
    if engine not in completion.ENGINES:
        raise ValueError(f"--engine must be local or ray, got {engine!r}")


def checked_trackers(track: list[str] | None) -> list[str]:
    """The trackers, if there are such and their packages are installed: said before a run has a folder."""
    from innerloop.study.tracking import check_tracker

    for name in track or []:
        check_tracker(name)
        package = "tensorboardX" if name == "tensorboard" else name
        if sys.modules.get(package) is None and find_spec(package) is None:
            raise ValueError(f'tracking by {name} needs {package}: pip install "innerloop[tracking]"')
    return track or []


def where(text: str) -> Path | str:
    """Where a command's results go, which other processes must see too."""
    from innerloop.study.remote import address_of

    if text.startswith("memory:"):
        raise ValueError(
            f"{text} is memory of one process, for tests; results go to a folder, s3:// or gs://"
        )
    return address_of(text)


def stopped(error: Exception, folder: Path | str, console: "Console") -> typer.Exit:
    """How a command ends whose study was asked to stop by the signal that `error` names."""
    console.print(f"stopped; what was done is kept in {folder}, go on by --resume")
    return typer.Exit(1 if str(error) == "SIGINT" else REQUEUE)


def escaped(text: str) -> str:
    """Text with brackets that a terminal could take for markup."""
    from rich.markup import escape

    return escape(text)
