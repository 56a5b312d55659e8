"""The command `innerloop`. Results go to standard output, progress and messages to standard error.

A command imports what it needs when it runs: `runs`, `--help` and completion wait for no more than that.

Exit codes: 0 done; 2 the input is wrong, said in one message; 75 stopped by a scheduler, to be run again with --resume;
1 anything else.
"""

import sys
import warnings
from typing import Annotated

import typer

from innerloop.commands import doctor, judging, making, showing
from innerloop.commands.explained import Explained
from innerloop.commands.options import escaped

_TYPER_INTERRUPTED = 130  # how Typer ends after Ctrl-C

app = typer.Typer(
    help="The laboratory for the learning algorithm that runs inside a forward pass.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    making.demo,
    making.reproduce,
    making.train,
    making.sweep,
    judging.runs,
    judging.compare,
    judging.evaluate,
    showing.algorithm,
    showing.export,
    showing.explore,
    judging.baselines,
    doctor.doctor,
):
    app.command(cls=Explained)(command)


def _say_version(asked: bool) -> bool:
    if asked:
        import innerloop

        print(f"innerloop {innerloop.__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every user's mistake becomes one message and exit code 2."""
    warnings.simplefilter("default", UserWarning)
    try:
        app()
    except ValueError as error:
        _message(f"[bold red]error:[/] {escaped(str(error))}")
        sys.exit(2)
    except SystemExit as ended:
        if ended.code != _TYPER_INTERRUPTED:
            raise
        _message("stopped; what was saved is kept, go on by --resume")
        sys.exit(1)


def _message(text: str) -> None:
    from innerloop import display

    display.console().print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
