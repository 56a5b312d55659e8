"""`innerloop reproduce goel2026`: train what is asked for, draw it, and show it all on one page.

budget.json       what is trained: a folder holds results of one budget and setting
measured/         the losses of every program and arm, and what arms do inside, in Parquet
curves.*, ..      the outputs, each file named after its output
report.html       all of them
sessions.jsonl    how long the command took, each time
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl
from rich.console import Console

from innerloop import display
from innerloop.files import remove_leftovers, write_atomically
from innerloop.papers.goel2026.measured import carry_out
from innerloop.papers.goel2026.outputs import OUTPUTS, make
from innerloop.papers.goel2026.study import BUDGETS, Budget, Job, jobs
from innerloop.papers.options import budget_of, outputs_of
from innerloop.papers.processes import Pool, compiling, processes
from innerloop.papers.sessions import session
from innerloop.report import write_document
from innerloop.study import SpecError, environment

_DRAWING = 3.0  # seconds an output, about
_INTRODUCTION = (
    "A decoder reads x and y of noise-free linear regression in 5 dimensions, one after the other, and predicts every y. "
    "Attention is softmax or linear. Losses are squared errors divided by the dimension, so that predicting zero loses one."
)


def reproduce(
    out: Path, *, budget: str, only: Sequence[str], resume: bool, workers: int, console: Console
) -> None:
    """Make the outputs named `only` (none: all) in the folder `out`.

    Args:
        workers: processes that train and draw; a GPU they share, and only compile side by side.

    Raises:
        SpecError: a name is unknown; `out` holds results and `resume` is not set, or of another budget; or it cannot be
            written.
        Preempted: the process was asked to stop; `resume` goes on with the jobs that are not done.
    """
    amount, wanted = budget_of(budget, BUDGETS), outputs_of(only, OUTPUTS)
    measured = _prepared(out, budget, amount, resume)
    left = missing(jobs(amount), wanted, measured)
    seconds = dict(amount.seconds)
    train = sum(seconds[job.kind] for job in left) / max(1, min(workers, len(left)))
    console.print(
        f"goel2026-{budget}: {', '.join(wanted)}; {len(left)} of {len(jobs(amount))} programs and arms to train, "
        f"about {display.duration(train + _DRAWING * len(wanted) / workers)} on {workers} processes",
        highlight=False,
        soft_wrap=True,
    )
    stages = {"train": train, "draw": _DRAWING * len(wanted) / workers}
    with (
        session(out, outputs=wanted, workers=workers),
        compiling(hasty=budget == "smoke"),
        display.stages(console, stages) as progress,
        processes(workers) as pool,
    ):
        _train(pool, left, amount, measured, seconds, progress)
        made = [
            name
            for name in OUTPUTS
            if name in wanted
            or ((out / f"{name}.csv").exists() and not missing(jobs(amount), [name], measured))
        ]
        _draw(pool, made, out, budget, progress)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)


def about_budget(name: str, amount: Budget) -> dict:
    """What all results in a folder have in common, in the types of JSON."""
    kept = {key: value for key, value in asdict(amount).items() if key not in ("arms", "seconds")}
    return json.loads(json.dumps({"name": name, **kept}))


def _prepared(out: Path, budget: str, amount: Budget, resume: bool) -> Path:
    """The folder of frames in `out`, which holds nothing yet or results of the same budget and setting."""
    about, ours = out / "budget.json", about_budget(budget, amount)
    try:
        if about.exists():
            if not resume:
                raise SpecError(
                    f"{out} already holds results; go on with them by --resume, or choose another --out"
                )
            if (before := _read_about(about)) != ours:
                what = "with other settings, of another version" if before.get("name") == budget else ""
                said = f"{before.get('name', 'unknown')} {what}".strip()
                raise SpecError(f"{out} holds results of --budget {said}; choose another --out")
        measured = out / "measured"
        measured.mkdir(parents=True, exist_ok=True)
        remove_leftovers(measured)
        write_atomically(about, lambda file: file.write(json.dumps(ours, indent=1).encode()))
    except OSError as error:
        raise SpecError(f"cannot write to {out}: {error.strerror or error}") from None
    return measured


def _read_about(path: Path) -> dict:
    found = json.loads(path.read_text())
    return found if isinstance(found, dict) else {"name": found}  # only the name, in earlier versions


def missing(of: list[Job], outputs: list[str], measured: Path) -> list[Job]:
    """Those jobs that have left no file of a kind that one of the outputs needs."""
    needed = {kind for name in outputs for kind in OUTPUTS[name].kinds}
    return [
        job
        for job in of
        if any(kind in needed and not (measured / file).exists() for kind, file in job.files.items())
    ]


def _needed(frames: dict[str, pl.DataFrame], name: str) -> dict[str, pl.DataFrame]:
    """Those of the output `name`."""
    return {kind: frames[kind] for kind in OUTPUTS[name].kinds}


def _train(
    pool: Pool,
    left: list[Job],
    amount: Budget,
    measured: Path,
    seconds: dict[str, float],
    progress: display.Stages,
) -> None:
    """Do what is missing, the longest first; a job that is done is on disk."""
    waiting = {job.name: seconds[job.kind] for job in sorted(left, key=lambda job: -seconds[job.kind])}
    whole = sum(waiting.values())
    by_name = {job.name: job for job in left}
    for name, _ in pool.outcomes({name: (carry_out, by_name[name], amount, measured) for name in waiting}):
        del waiting[name]
        progress.update("train", 1 - sum(waiting.values()) / whole, name)
    progress.finish("train")


def _draw(pool: Pool, shown: list[str], out: Path, budget: str, progress: display.Stages) -> None:
    """The outputs, and the page with them and those that were made before."""
    amount = budget_of(budget, BUDGETS)
    frames = {
        kind: pl.concat(
            [pl.read_parquet(out / "measured" / job.files[kind]) for job in jobs(amount) if kind in job.files]
        )
        for kind in {kind for name in shown for kind in OUTPUTS[name].kinds}
    }
    calls = {name: (make, name, _needed(frames, name), amount.share == 1, out) for name in shown}
    sections = {}
    for name, section in pool.outcomes(calls):
        sections[name] = section
        progress.update("draw", len(sections) / len(shown), name)
    write_document(
        out / "report.html",
        title="In-Context Learning in Linear vs. Quadratic Attention Models, reproduced",
        introduction=_INTRODUCTION,
        sections=tuple(sections[name] for name in shown),
        facts={
            "command": f"innerloop reproduce goel2026 --budget {budget} --out {out} --resume",
            "sizes": f"as published: width {amount.width or 256}, {amount.share:.3g} of the steps, {amount.seeds} seeds; "
            f"on equal terms: width {amount.setting.width}, {amount.setting.layers} layers, {amount.setting.steps} steps "
            f"of {amount.setting.batch} sequences, {amount.seeds} seeds",
            **environment(),
        },
    )
    progress.finish("draw")
