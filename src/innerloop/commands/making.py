"""Commands that train: a demonstration, a paper, one run, a study."""

import contextlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from innerloop.commands import completion
from innerloop.commands.options import (
    REQUEUE,
    Address,
    Engine,
    Track,
    check_engine,
    checked_trackers,
    escaped,
    stopped,
    where,
)

if TYPE_CHECKING:
    from rich.console import Console

    from innerloop.study import RunSpec

RUNS = Path("runs")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, its pictures and the runs.")] = Path(
        "demo"
    ),
) -> None:
    """Train GD++ and DIAG of several depths on sigma ~ U(0, 5), compare them with every baseline, write a report.

    Examples:
        innerloop demo
        innerloop demo --out runs/demo
    """
    from innerloop import display
    from innerloop.papers.demo import run_demo

    run_demo(out, console=display.console())


def reproduce(
    paper: Annotated[
        str,
        typer.Argument(help=f"{' or '.join(completion.PAPERS)}.", autocompletion=completion.papers),
    ],
    only: Annotated[
        str | None,
        typer.Option(
            help=f"Outputs, separated by commas; {completion.said_outputs()}. By default all.",
            autocompletion=completion.outputs,
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(help=completion.said_budgets(), autocompletion=completion.budgets),
    ] = "quick",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default runs/PAPER-BUDGET.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the folder.")] = False,
    engine: Engine = "local",
    address: Address = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of this machine; by default one a core. A GPU they share."),
    ] = None,
) -> None:
    """Train, measure and draw a paper's tables and figures, with the published numbers beside ours.

    Examples:
        innerloop reproduce vladymyrov2024 --budget smoke --only table1,figure2  # what it does, in minutes
        innerloop reproduce vladymyrov2024 --resume                              # go on, or make more outputs
        innerloop reproduce goel2026 --only curves --out runs/curves
    """
    from innerloop import display
    from innerloop.papers.options import budget_of, outputs_of
    from innerloop.refused import nearest
    from innerloop.study import SpecError
    from innerloop.study.engines import Local, Ray, default_workers
    from innerloop.train import Preempted

    if paper not in completion.PAPERS:
        raise SpecError(f"{paper}: unknown paper{nearest(paper, completion.PAPERS)}")
    check_engine(engine)
    if paper == "goel2026" and engine == "ray":
        raise ValueError(
            "--engine ray is for vladymyrov2024; goel2026 trains in processes of this machine: --engine local"
        )
    processes = workers or default_workers()
    chosen = [name.strip() for name in only.split(",")] if only is not None else []
    budget_of(budget, completion.BUDGETS)  # these two before the seconds that a paper takes to import
    outputs_of(chosen, completion.OUTPUTS[paper])
    folder = out or RUNS / f"{paper}-{budget}"
    console = display.console()
    about: dict = {
        "budget": budget,
        "only": chosen,
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

        by = Local(processes) if engine == "local" else Ray(address)
        failed = reproduce_vladymyrov2024(folder, engine=by, **about)
    except Preempted as asked:
        raise stopped(asked, folder, console) from None
    _print_failed(failed, console)
    if failed:
        raise typer.Exit(1)


def train(
    spec: Annotated[
        Path,
        typer.Argument(help="YAML file that says task, model and training.", autocompletion=completion.specs),
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: --set train.seed=3. Repeatable.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Run folder, or s3://, gs://; by default runs/MODEL-PROBLEM-SEED-DATE-TIME."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in the folder; without --out, with the newest of the spec."
        ),
    ] = False,
    track: Track = None,
) -> None:
    """Train one model.

    Examples:
        innerloop train examples/diag.yaml                             # into a folder of its own in runs/
        innerloop train examples/diag.yaml --set model.layers=7 --out runs/deep
        innerloop train examples/diag.yaml --resume                    # go on after it was stopped
    """
    from innerloop import display
    from innerloop.signals import asked_to_stop
    from innerloop.study import load_spec, train_run
    from innerloop.study.run import finished
    from innerloop.train import Preempted

    described, trackers = load_spec(spec, settings or []), checked_trackers(track)
    folder = where(out) if out else _own_folder(described, resume)
    if isinstance(folder, Path):
        finished(folder, described, resume)  # refused before a bar is drawn
    console = display.console()
    try:
        with asked_to_stop() as asked, display.training(console, described.name()) as report:
            run = train_run(
                described,
                folder,
                resume=resume,
                report=report,
                stop=lambda: bool(asked()),
                track=trackers,
            )
    except Preempted:
        console.print(f"stopped; what was trained is kept in {folder}, go on by --resume", soft_wrap=True)
        raise typer.Exit(REQUEUE) from None
    except BaseException:
        if out is None:
            _remove_empty(Path(folder))
        raise
    console.print(
        f"trained in {run.seconds:.1f} s; the run is in {folder}. Next: innerloop evaluate {folder}",
        soft_wrap=True,
    )


def _own_folder(spec: "RunSpec", resume: bool) -> Path:
    """Where a run goes if nobody says: to a new folder, or, to go on, to the newest one of this very spec."""
    from innerloop.study.folders import new_folder
    from innerloop.study.run import folders_of

    there = folders_of(spec, RUNS)
    if there and resume:
        return list(there)[-1]
    for folder, status in there.items():
        if status != "done":
            raise ValueError(
                f"{folder} holds a run of this spec that is not done (status {status}); "
                "go on with it by --resume, or train another one by --out"
            )
    return new_folder(RUNS, spec.name(), datetime.now())


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is not empty
        folder.rmdir()


def sweep(
    study: Annotated[
        Path,
        typer.Argument(
            help="YAML file that says the base run and the axes.", autocompletion=completion.specs
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="Study folder, or s3://, gs://; by default runs/NAME, named after the study."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="local: processes; by default one a core.")
    ] = None,
    gpus: Annotated[
        float, typer.Option(min=0, help="ray: GPUs, or a fraction of one, for each group.")
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in the folder.")] = False,
    track: Track = None,
) -> None:
    """Train every run of a study, those of one shape together, and keep all results in its tables.

    Stopped by SIGTERM, it saves and exits with 75, which asks a scheduler to run it again, with --resume.

    Examples:
        innerloop sweep examples/study.yaml --dry-run       # how many runs, and about how long
        innerloop sweep examples/study.yaml --out runs/rates
        innerloop sweep examples/study.yaml --out runs/rates --resume
    """
    from innerloop import display
    from innerloop.study import load_study_spec, make_plan, run_study
    from innerloop.study.engines import Local, Ray, default_workers
    from innerloop.train import Preempted

    check_engine(engine)
    trackers = checked_trackers(track)
    described, name = load_study_spec(study)
    processes = workers or default_workers()
    plan = make_plan(described, name, workers=processes)
    folder = where(out) if out else RUNS / name
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
            failed = run_study(plan, folder, chosen, resume=resume, report=report, track=trackers)
    except Preempted as asked:
        raise stopped(asked, folder, console) from None
    _print_failed(failed, console)
    console.print(f"the study is in {folder}. Next: innerloop runs {folder}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _print_failed(failed: list, console: "Console") -> None:
    for outcome in failed:
        console.print(
            f"[bold red]failed:[/] {outcome.task.group.name}: {escaped(outcome.error or '')}", soft_wrap=True
        )
