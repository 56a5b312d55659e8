"""The command `innerloop`. Results go to standard output, progress and messages to standard error.

A command imports what it needs when it runs: `runs` and `--help` wait for no more than that.

Exit codes: 0 done; 2 the input is wrong, said in one message; 75 stopped by a scheduler, to be run again with --resume;
1 anything else.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from innerloop.as_json import without_nan

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="The laboratory for the learning algorithm that runs inside a forward pass.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TYPER_INTERRUPTED = 130  # how Typer ends after Ctrl-C
_REQUEUE = 75  # EX_TEMPFAIL: try again later

_JSON = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output and nothing else.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, its pictures and the runs.")] = Path(
        "demo"
    ),
) -> None:
    """Train GD++ and DIAG of several depths on sigma ~ U(0, 5), compare them with every baseline, write a report."""
    from innerloop import display
    from innerloop.papers.demo import run_demo

    run_demo(out, console=display.console())


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="vladymyrov2024 or goel2026.")],
    only: Annotated[
        str | None,
        typer.Option(
            help="Outputs, separated by commas; vladymyrov2024: table1, figure1 to figure7, regret, theorems, mechanisms, "
            "findings; goel2026: curves, speed, matched, shifts, positions, attention, probes, findings. By default all."
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="smoke: to see that it works. quick: every output at a size for a laptop. full: all."
        ),
    ] = "quick",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default runs/PAPER-BUDGET.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the folder.")] = False,
    engine: Annotated[
        str, typer.Option(help="local: processes of this machine. ray: a Ray cluster, for training.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="ray: of a running cluster, or auto.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of this machine; by default one a core. On a GPU: 1.")
    ] = None,
) -> None:
    """Train, measure and draw a paper's tables and figures, with the published numbers beside ours.

    Example: innerloop reproduce vladymyrov2024 --budget smoke --only table1,figure2 --out smoke
    """
    from innerloop import display
    from innerloop.study import SpecError
    from innerloop.study.engines import Local, Ray, default_workers
    from innerloop.study.spec import nearest
    from innerloop.train import Preempted

    papers = ["vladymyrov2024", "goel2026"]
    if paper not in papers:
        raise SpecError(f"{paper}: unknown paper{nearest(paper, papers)}")
    _check_engine(engine)
    if paper == "goel2026" and engine == "ray":
        raise ValueError(
            "--engine ray is for vladymyrov2024; goel2026 trains in processes of this machine: --engine local"
        )
    processes = workers or default_workers()
    folder = out or Path("runs") / f"{paper}-{budget}"
    console = display.console()
    about: dict = {
        "budget": budget,
        "only": [name.strip() for name in only.split(",")] if only is not None else [],
        "resume": resume,
        "workers": processes,
        "console": console,
    }
    try:
        if paper == "goel2026":
            from innerloop.papers.goel2026.reproduce import reproduce as reproduce_goel2026

            reproduce_goel2026(folder, **about)
            return
        from innerloop.papers.vladymyrov2024.reproduce import reproduce as reproduce_vladymyrov2024

        chosen = Local(processes) if engine == "local" else Ray(address)
        failed = reproduce_vladymyrov2024(folder, engine=chosen, **about)
    except Preempted as stopped:
        raise _stopped(stopped, folder, console) from None
    _print_failed(failed, console)
    if failed:
        raise typer.Exit(1)


@app.command()
def train(
    spec: Annotated[Path, typer.Argument(help="YAML file that says task, model and training.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: --set train.seed=3. Repeatable.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Run folder, or s3://, gs://; by default runs/NAME, named after the spec."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    track: Annotated[
        list[str] | None, typer.Option(help="Tell a tracker too: tensorboard, wandb or mlflow. Repeatable.")
    ] = None,
) -> None:
    """Train one model.

    Example: innerloop train run.yaml --set model.layers=7 --out runs/deep
    """
    from innerloop import display
    from innerloop.signals import asked_to_stop
    from innerloop.study import load_spec, train_run
    from innerloop.train import Preempted

    described = load_spec(spec, settings or [])
    folder = _address(out) if out else Path("runs") / described.name()
    console = display.console()
    with asked_to_stop() as asked, display.training(console, described.name()) as report:
        try:
            run = train_run(
                described,
                folder,
                resume=resume,
                report=report,
                stop=lambda: bool(asked()),
                track=_checked(track),
            )
        except Preempted:
            console.print(f"stopped; what was trained is kept in {folder}, go on by --resume")
            raise typer.Exit(_REQUEUE) from None
    console.print(
        f"trained in {run.seconds:.1f} s; the run is in {folder}. Next: innerloop evaluate {folder}"
    )


@app.command()
def sweep(
    study: Annotated[Path, typer.Argument(help="YAML file that says the base run and the axes.")],
    out: Annotated[
        str | None,
        typer.Option(help="Study folder, or s3://, gs://; by default runs/NAME, named after the study."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local: processes of this machine. ray: a Ray cluster.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="ray: of a running cluster, or auto.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="local: processes; by default one a core.")
    ] = None,
    gpus: Annotated[
        float, typer.Option(min=0, help="ray: GPUs, or a fraction of one, for each group.")
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in the folder.")] = False,
    track: Annotated[
        list[str] | None, typer.Option(help="Tell a tracker too: tensorboard, wandb or mlflow. Repeatable.")
    ] = None,
) -> None:
    """Train every run of a study, those of one shape together, and keep all results in its tables.

    Stopped by SIGTERM, it saves and exits with 75, which asks a scheduler to run it again, with --resume.

    Example: innerloop sweep study.yaml --dry-run
    """
    from innerloop import display
    from innerloop.study import load_study_spec, make_plan, run_study
    from innerloop.study.engines import Local, Ray, default_workers
    from innerloop.train import Preempted

    _check_engine(engine)
    described, name = load_study_spec(study)
    processes = workers or default_workers()
    plan = make_plan(described, name, workers=processes)
    folder = _address(out) if out else Path("runs") / name
    console = display.console()
    together = sum(group.together for group in plan.groups)
    console.print(
        f"{name}: {len(plan.runs)} runs in {len(plan.groups)} groups ({together} of several runs that train together), "
        f"about {display.duration(plan.seconds(processes))} on {processes} processes",
        highlight=False,
        soft_wrap=True,
    )
    for group in plan.groups:
        console.print(
            f"  {group.name}: {len(group.runs)} x {group.runs[0].name}", highlight=False, soft_wrap=True
        )
    if dry_run:
        return
    chosen = Local(processes) if engine == "local" else Ray(address, gpus=gpus)
    try:
        with display.study(console, name) as report:
            failed = run_study(plan, folder, chosen, resume=resume, report=report, track=_checked(track))
    except Preempted as stopped:
        raise _stopped(stopped, folder, console) from None
    _print_failed(failed, console)
    console.print(f"the study is in {folder}. Next: innerloop runs {folder}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def runs(
    folder: Annotated[
        str, typer.Argument(help="A study, or a folder of studies and runs; s3://, gs:// too.")
    ] = "runs",
    where: Annotated[
        str | None,
        typer.Option(help="SQL condition, such as \"model.kind = 'diag' and adjusted_loss < 0.05\"."),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """List runs, best first.

    Example: innerloop runs --where "model.layers = 4 and status = 'done'"
    """
    from innerloop.study.listing import list_runs

    try:
        found = list_runs(folder, where)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    if as_json:
        print(json.dumps(without_nan(found), allow_nan=False))
    else:
        from innerloop import display

        display.runs(found)


@app.command()
def compare(
    folders: Annotated[list[str], typer.Argument(help="Run folders; s3://, gs:// too.")],
    as_json: _JSON = False,
) -> None:
    """Judge several trained models of one problem on the same sequences, and say where they differ.

    Example: innerloop compare runs/one runs/other
    """
    from innerloop import display
    from innerloop.evaluation import compare_runs
    from innerloop.study import load_run

    found = {folder: load_run(folder) for folder in folders}
    problems = {
        f"{run.spec.task.noise}, d = {run.spec.task.dim}, n = {run.spec.task.context}"
        for run in found.values()
    }
    if len({str(run.spec.task) for run in found.values()}) > 1:
        raise ValueError(
            f"the runs are of different problems, which have no common scale: {'; '.join(sorted(problems))}"
        )
    first = next(iter(found.values())).spec
    with display.console().status("evaluating"):
        table = compare_runs(
            {name: run.exact_model for name, run in found.items()},
            first.task.build(),
            sequences=first.evaluate.sequences,
            seed=first.evaluate.seed,
        )
    if as_json:
        print(json.dumps(without_nan(table.to_dicts()), allow_nan=False))
    else:
        display.comparison(table, title=f"adjusted loss, sigma ~ {first.task.noise}")


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="Run folder; s3://, gs:// too.")],
    as_json: _JSON = False,
) -> None:
    """Judge a trained model against every baseline and the Bayes floor."""
    from innerloop import display
    from innerloop.evaluation import evaluate as judge
    from innerloop.evaluation import loss_by_sigma
    from innerloop.study import load_run

    found = load_run(run)
    task, how = found.spec.task.build(), found.spec.evaluate
    with display.console().status("evaluating"):
        model = judge(found.exact_model, task, sequences=how.sequences, seed=how.seed)
        profile = loss_by_sigma(found.exact_model, task, seed=how.seed)
        answer = _baselines(task, how.sequences, how.seed)
    last = profile.filter(profile["layer"] == found.model.layers)
    answer["model"] = {
        "adjusted_loss": model.adjusted_loss.as_dict(),
        "regret": model.regret.as_dict(),
        "worst_share": model.worst_share,
        "not_finite": model.not_finite,
        "per_layer": [estimate.as_dict() for estimate in model.per_layer],
        "per_sigma": last.select("sigma", "value", se="standard_error").to_dicts(),
    }
    _keep_evaluation(run, model)
    _show(answer, as_json, title=f"{run}: adjusted loss (half squared error)")


@app.command()
def algorithm(
    run: Annotated[str, typer.Argument(help="Run folder; s3://, gs:// too.")],
    style: Annotated[str, typer.Option("--format", help="text, markdown or latex.")] = "text",
    threshold: Annotated[
        float,
        typer.Option(help="Leave out the cheapest terms, up to this share of the adjusted loss together."),
    ] = 0.01,
    as_json: _JSON = False,
) -> None:
    """Say what algorithm a run has learned, layer by layer: formulas, what each term is, and what it is worth.

    Example: innerloop algorithm runs/mine --format markdown > algorithm.md
    """
    from innerloop import display
    from innerloop.probe import describe
    from innerloop.study import load_run

    if style not in ("text", "markdown", "latex"):
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


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Run folder; s3://, gs:// too.")],
    to: Annotated[Path, typer.Option(help="FILE.py, which needs only NumPy, or FILE.onnx.")],
) -> None:
    """Write a trained model to one file that does not need innerloop.

    Example: innerloop export runs/mine --to regression.py
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


@app.command()
def explore(
    run: Annotated[str, typer.Argument(help="Run folder; s3://, gs:// too.")],
    other: Annotated[
        str | None, typer.Argument(metavar="RUN2", help="Another run of the same problem, to compare.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; by default any that is free.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine can open the page.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Show a run as a page in the browser: drag points, step through layers, move its numbers, compare two runs.

    Example: innerloop explore runs/mine runs/other --port 8000
    """
    import contextlib
    import webbrowser

    from innerloop import display
    from innerloop.explore import Explorer
    from innerloop.study import load_run

    runs = [load_run(folder) for folder in (run, other) if folder is not None]
    try:
        from innerloop.explore import server
    except ModuleNotFoundError:
        raise ValueError('innerloop explore needs more packages: pip install "innerloop[explore]"') from None
    console = display.console()
    with server.listen(host, port) as listening, contextlib.suppress(KeyboardInterrupt):
        url = server.address(listening)
        console.print(f"the page is at {url}; Ctrl-C ends it", highlight=False, soft_wrap=True)
        if not server.is_loopback(host):
            console.print(f"[bold]note:[/] whoever reaches {host} can open it too", soft_wrap=True)
        if not no_browser:
            webbrowser.open(url)
        server.server(Explorer(runs), host).run(sockets=[listening])


@app.command()
def baselines(
    noise: Annotated[str, typer.Option(help="Law of sigma: fixed(s), uniform(a,b) or categorical(1,3,5).")],
    dim: Annotated[int, typer.Option(help="Number of features, d.")] = 10,
    context: Annotated[int, typer.Option(help="Examples in a prompt, n.")] = 20,
    sequences: Annotated[int, typer.Option(help="Fresh sequences to judge on.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed of the sequences and of tuning.")] = 0,
    as_json: _JSON = False,
) -> None:
    """Tune and judge the classical predictors of a problem, and its Bayes floor.

    Example: innerloop baselines --noise "uniform(0,5)"
    """
    from innerloop import display
    from innerloop.tasks import LinearRegression

    task = LinearRegression(dim, context, noise)
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be a whole number >= 0 and < 2^31, got {seed}")
    with display.console().status("tuning and judging"):
        answer = _baselines(task, sequences, seed)
    _show(answer, as_json, title="adjusted loss (half squared error)")


@app.command()
def doctor(as_json: _JSON = False) -> None:
    """Say what is installed, which devices are found, the precision, and where results go."""
    import jax

    from innerloop import display
    from innerloop.study import environment

    answer = environment() | {
        "devices": [str(device) for device in jax.devices()],
        "precision": "float64"
        if jax.config.read("jax_enable_x64")
        else "float32 (float64 inside runs that ask for it)",
        "results": str(Path("runs").resolve()),
        "object storage": _object_storage(),
    }
    if as_json:
        print(json.dumps(answer))
    else:
        display.facts(answer)


def _object_storage() -> str:
    """Which kinds of it the installed packages reach."""
    from importlib.util import find_spec

    kinds = [kind for kind, package in {"s3": "s3fs", "gs": "gcsfs"}.items() if find_spec(package)]
    return ", ".join(kinds) or 'no: pip install "innerloop[remote]"'


def _check_engine(engine: str) -> None:
    if engine not in ("local", "ray"):
        raise ValueError(f"--engine must be local or ray, got {engine!r}")


def _stopped(stopped: Exception, folder: Path | str, console: "Console") -> typer.Exit:
    """How a command ends whose study was asked to stop by the signal that `stopped` names."""
    console.print(f"stopped; what was done is kept in {folder}, go on by --resume")
    return typer.Exit(1 if str(stopped) == "SIGINT" else _REQUEUE)


def _print_failed(failed: list, console: "Console") -> None:
    for outcome in failed:
        console.print(
            f"[bold red]failed:[/] {outcome.task.group.name}: {_escaped(outcome.error or '')}", soft_wrap=True
        )


def _checked(track: list[str] | None) -> list[str]:
    from innerloop.study.tracking import check_tracker

    for name in track or []:
        check_tracker(name)
    return track or []


def _address(text: str) -> Path | str:
    """Where a command's results go, which other processes must see too."""
    from innerloop.study.remote import address_of

    if text.startswith("memory:"):
        raise ValueError(
            f"{text} is memory of one process, for tests; results go to a folder, s3:// or gs://"
        )
    return address_of(text)


def _keep_evaluation(run: str, model) -> None:
    """Where `innerloop runs` finds it; a folder that cannot be written is no reason to lose the answer."""
    import contextlib

    from innerloop.files import write_atomically
    from innerloop.study import SpecError
    from innerloop.study.remote import mirrored

    text = json.dumps(without_nan(model.summary()), indent=2).encode()
    with contextlib.suppress(OSError, SpecError), mirrored(run) as mirror:
        write_atomically(mirror.folder / "evaluation.json", lambda file: file.write(text))
        mirror.push()


def _baselines(task, sequences: int, seed: int) -> dict:
    """What `innerloop baselines --json` prints."""
    from innerloop.evaluation import judge_baselines

    judged = judge_baselines(task, sequences=sequences, seed=seed)
    _, any_of_them = judged["ols"]
    return {
        "noise": str(task.noise),
        "dim": task.dim,
        "context": task.context,
        "sequences": sequences,
        "oracle": any_of_them.oracle.as_dict(),
        "floor": any_of_them.floor.as_dict(),
        "baselines": {
            name: evaluation.adjusted_loss.as_dict() | {"tuned": predictor.tuned}
            for name, (predictor, evaluation) in judged.items()
        },
    }


def _show(answer: dict, as_json: bool, *, title: str) -> None:
    from innerloop import display

    if as_json:
        print(json.dumps(without_nan(answer), allow_nan=False))
    else:
        display.baselines(answer, title=title)


def main() -> None:
    """Run the command line; every user's mistake becomes one message and exit code 2."""
    warnings.simplefilter("default", UserWarning)
    try:
        app()
    except ValueError as error:  # Pydantic's too
        _message(f"[bold red]error:[/] {_escaped(_described(error))}")
        sys.exit(2)
    except SystemExit as ended:
        if ended.code != _TYPER_INTERRUPTED:
            raise
        _message("stopped; what was saved is kept, go on by --resume")
        sys.exit(1)


def _described(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    from innerloop.study.spec import describe
    from innerloop.train import Training

    return describe(error, Training)


def _message(text: str) -> None:
    from innerloop import display

    display.console().print(text, highlight=False, soft_wrap=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
