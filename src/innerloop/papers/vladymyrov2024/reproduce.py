"""`innerloop reproduce vladymyrov2024`: train what is asked for, measure it, draw it, and show it all on one page.

study.yaml, runs/, tables/    the study, as `innerloop sweep` keeps it
measured/                     what was measured, in Parquet
sessions.jsonl                how long the command took, each time
table1.*, figure1.*, ..       the outputs, each file named after its output
report.html                   all of them
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from innerloop import display
from innerloop.files import remove_leftovers
from innerloop.papers.options import budget_of, outputs_of
from innerloop.papers.processes import Pool, compiling, processes
from innerloop.papers.sessions import session
from innerloop.papers.vladymyrov2024.chosen import choose, chosen
from innerloop.papers.vladymyrov2024.findings import results
from innerloop.papers.vladymyrov2024.measured import Part, measure, parts_of, read
from innerloop.papers.vladymyrov2024.outputs import OUTPUTS, make
from innerloop.papers.vladymyrov2024.study import BUDGETS, Budget, Entry, candidates, plan_of
from innerloop.report import TABLE1_STYLE, Table1, write_document
from innerloop.study import Plan, environment, load_study, run_study
from innerloop.study.runner import Engine, Outcome

_DRAWING = 4.0  # seconds an output, about
_INTRODUCTION = (
    "Each sequence is a regression problem of its own: weights w ~ N(0, I) in 10 dimensions, a noise level "
    "sigma, and 20 examples. A linear transformer reads them and predicts the label of a query. Losses are "
    "half the squared error; adjusted ones are what is lost beyond ridge regression told the true sigma. "
    "The Bayes floor is the best that any predictor can do without being told."
)


def reproduce(
    out: Path,
    *,
    budget: str,
    only: Sequence[str],
    resume: bool,
    engine: Engine,
    workers: int,
    console: Console,
) -> list[Outcome]:
    """Make the outputs named `only` (none: all) in the folder `out`; returns what failed in training.

    Args:
        workers: processes that measure and draw; the engine has its own that train.

    Raises:
        SpecError: a name is unknown; `out` holds a study and `resume` is not set, or another one, or cannot be written.
        Preempted: the process was asked to stop; `resume` goes on.
    """
    amount, wanted = budget_of(budget, BUDGETS), outputs_of(only, OUTPUTS)
    plan = plan_of(budget, workers=workers)
    rivals = candidates(plan.runs, amount)
    parts = parts_of(rivals, amount)
    needed = [part for part in parts if any(OUTPUTS[name].needs(part) for name in wanted)]
    shown = {entry for part in needed for entry in part.entries}
    choices = [part for part in parts if part.kind == "choice" and shown.issuperset(part.entries)]
    needed = [*choices, *(part for part in needed if part.kind != "choice")]
    kept = plan.keeping({run for entry in shown for run in rivals[entry]})
    estimate = kept.seconds(workers) + _seconds(needed, amount, workers) + _DRAWING * len(wanted) / workers
    console.print(
        f"{plan.name}: {', '.join(wanted)}; {len(kept.runs)} of {len(plan.runs)} runs in {len(kept.groups)} groups, "
        f"about {display.duration(estimate)} on {workers} processes",
        highlight=False,
        soft_wrap=True,
    )
    with session(out, outputs=wanted, workers=workers), compiling(hasty=budget == "smoke"):
        with display.study(console, plan.name) as report:
            failed = run_study(kept, out, engine, resume=resume, report=report)
        if failed:
            return failed
        measured = out / "measured"
        measured.mkdir(exist_ok=True)
        remove_leftovers(measured)
        left = [part for part in needed if part.missing(measured)]
        stages = {"measure": _seconds(left, amount, workers), "draw": _DRAWING * len(wanted) / workers}
        with display.stages(console, stages) as progress, processes(workers) as pool:
            _measure(pool, left, amount, budget, rivals, out, progress)
            _draw(pool, wanted, parts, out, plan, budget, progress)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
    return []


def _seconds(parts: Sequence[Part], budget: Budget, workers: int) -> float:
    return sum(part.seconds(budget) for part in parts) / max(1, min(workers, len(parts)))


def _measure(
    pool: Pool,
    parts: list[Part],
    amount: Budget,
    budget: str,
    rivals: dict[Entry, tuple[str, ...]],
    out: Path,
    progress: display.Stages,
) -> None:
    """Measure what is missing, choices first and the longest next; a part that is done is on disk."""
    runs, measured = out / "runs", out / "measured"
    left = {part.name: part.seconds(amount) for part in parts}
    whole = sum(left.values())

    def carry_out(calls: dict[str, tuple]) -> None:
        for name, _ in pool.outcomes(calls):
            del left[name]
            progress.update("measure", 1 - sum(left.values()) / whole, name)

    choices = [part for part in parts if part.kind == "choice"]
    carry_out(
        {
            part.name: (choose, part, [runs / run for run in rivals[part.entries[0]]], measured)
            for part in choices
        }
    )
    entries = {entry for part in parts for entry in part.entries}
    own = {entry: runs / run for entry, run in chosen(rivals, entries, measured).items()}
    others = sorted((part for part in parts if part.kind != "choice"), key=lambda part: -left[part.name])
    carry_out(
        {
            part.name: (measure, part, budget, {entry: own[entry] for entry in part.entries}, measured)
            for part in others
        }
    )
    progress.finish("measure")


def _draw(
    pool: Pool,
    wanted: list[str],
    parts: tuple[Part, ...],
    out: Path,
    plan: Plan,
    budget: str,
    progress: display.Stages,
) -> None:
    """The outputs, and the page with them and those that were made before."""
    measured = out / "measured"
    shown = [name for name in OUTPUTS if name in wanted or any(out.glob(f"{name}*"))]
    sections = {}
    for name, section in pool.outcomes({name: (make, name, parts, measured, out) for name in shown}):
        sections[name] = section
        progress.update("draw", len(sections) / len(shown), name)
    runs = load_study(out).runs
    facts = {
        "command": f"innerloop reproduce vladymyrov2024 --budget {budget} --out {out} --resume",
        "trained": f"{len(runs)} of the {len(plan.runs)} runs of study.yaml, "
        f"{display.duration(float(runs['seconds'].sum()))} in all",
        **environment(),
    }
    write_document(
        out / "report.html",
        title="Linear Transformers are Versatile In-Context Learners, reproduced",
        introduction=_INTRODUCTION,
        sections=tuple(sections[name] for name in shown),
        facts=facts,
        style=TABLE1_STYLE,
    )
    progress.finish("draw")
    if "table1" in wanted:
        losses = read(measured, [part for part in parts if part.kind == "losses"], "losses")
        counts = Table1.of(results(losses)).counts()
        print("Table 1: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
