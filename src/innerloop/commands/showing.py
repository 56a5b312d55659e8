"""Commands that show what a run has learned: in formulas, as a file, as a page."""

import json
from pathlib import Path
from typing import Annotated

import typer

from innerloop.as_json import without_nan
from innerloop.commands import completion
from innerloop.commands.options import AsJson, RunFolder


def algorithm(
    run: RunFolder,
    style: Annotated[
        str, typer.Option("--format", help="text, markdown or latex.", autocompletion=completion.styles)
    ] = "text",
    threshold: Annotated[
        float,
        typer.Option(help="Leave out the cheapest terms, up to this share of the adjusted loss together."),
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Say what algorithm a run has learned, layer by layer: formulas, what each term is, and what it is worth.

    Examples:
        innerloop algorithm runs/mine
        innerloop algorithm runs/mine --format markdown > algorithm.md
        innerloop algorithm runs/mine --threshold 0                    # leave no term out
    """
    from innerloop import display
    from innerloop.probe import describe
    from innerloop.study import load_run

    if style not in completion.STYLES:
        raise ValueError(f"--format must be text, markdown or latex, got {style!r}")
    found = load_run(run)
    with display.console().status("measuring what every term is worth"):
        described = describe(
            found.exact_model, found.spec.task.build(), threshold=threshold, seed=found.spec.evaluate.seed
        )
    if as_json:
        print(json.dumps(without_nan(described.as_dict()), allow_nan=False))
    else:
        print(getattr(described, style)(), end="")


def export(
    run: RunFolder,
    to: Annotated[Path, typer.Option(help="FILE.py, which needs only NumPy, or FILE.onnx.")],
) -> None:
    """Write a trained model to one file that does not need innerloop.

    Examples:
        innerloop export runs/mine --to regression.py
        innerloop export runs/mine --to regression.onnx  # needs the extra "onnx"
    """
    from innerloop import display
    from innerloop.portable import checked_target
    from innerloop.portable import export as write
    from innerloop.study import load_run
    from innerloop.study.about import about

    checked_target(to)
    found, console = load_run(run), display.console()
    with console.status("measuring the loss"):
        said = about(found)
    write(found.exact_model, to, about=said)
    console.print(f"the model is in {to}", soft_wrap=True)


def explore(
    run: RunFolder,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN2",
            help="Another run of the same problem, to compare.",
            autocompletion=completion.runs,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; by default any that is free.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine can open the page.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Show a run as a page in the browser: drag points, step through layers, move its numbers, compare two runs.

    Examples:
        innerloop explore runs/mine
        innerloop explore runs/mine runs/other --port 8000
    """
    import contextlib
    import webbrowser

    from innerloop import display
    from innerloop.study import load_run

    try:
        import innerloop.explore.server as server
        from innerloop.explore import Explorer
    except ModuleNotFoundError:
        raise ValueError('innerloop explore needs more packages: pip install "innerloop[explore]"') from None
    runs = [load_run(folder) for folder in (run, other) if folder is not None]
    console = display.console()
    with server.listen(host, port) as listening, contextlib.suppress(KeyboardInterrupt):
        url = server.address(listening)
        console.print(f"the page is at {url}; Ctrl-C ends it", highlight=False, soft_wrap=True)
        if not server.is_loopback(host):
            console.print(f"[bold]note:[/] whoever reaches {host} can open it too", soft_wrap=True)
        if not no_browser:
            webbrowser.open(url)
        server.server(Explorer(runs), host).run(sockets=[listening])
