"""Makes docs/results/PAPER-BUDGET.parquet and its page of a folder that `innerloop reproduce` has filled. Trains nothing.

Where not all is trained yet the page says what is missing.

innerloop reproduce vladymyrov2024 --budget quick --out runs/paper
python benchmarks/reproduced.py vladymyrov2024 --out runs/paper
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import polars as pl
from matplotlib.figure import Figure
from results import RESULTS, page, row, stamp_of

from innerloop.papers.findings import SCHEMA
from innerloop.papers.goel2026 import findings as goel2026
from innerloop.papers.goel2026.outputs import OUTPUTS as OUTPUTS_2026
from innerloop.papers.goel2026.reproduce import missing
from innerloop.papers.goel2026.study import BUDGETS as GOEL2026
from innerloop.papers.goel2026.study import jobs
from innerloop.papers.sessions import sessions
from innerloop.papers.vladymyrov2024 import findings as vladymyrov2024
from innerloop.papers.vladymyrov2024.measured import parts_of, read
from innerloop.papers.vladymyrov2024.outputs import OUTPUTS as OUTPUTS_2024
from innerloop.papers.vladymyrov2024.study import BUDGETS as VLADYMYROV2024
from innerloop.papers.vladymyrov2024.study import candidates, plan_of

_COST = "What does it take?"


class Reproduced(NamedTuple):
    """What a folder holds: its budget's name, what it says, rows on what of the budget it lacks, pictures for the docs."""

    budget: str
    findings: pl.DataFrame
    lacks: Sequence[dict] = ()
    pictures: Mapping[str, Figure] = MappingProxyType({})


class Paper(NamedTuple):
    """How a paper is called, its folders are read, and what its budgets may take."""

    title: str
    seed: str
    read: Callable[[Path], Reproduced]
    bars: dict[str, str]


def _vladymyrov2024(folder: Path) -> Reproduced:
    source = (folder / "study.yaml").read_text()
    budget = next(name for name in VLADYMYROV2024 if plan_of(name).source == source)
    amount = VLADYMYROV2024[budget]
    parts = parts_of(candidates(plan_of(budget).runs, amount), amount)

    def frame(name: str) -> pl.DataFrame:
        return read(folder / "measured", [part for part in parts if name in part.frames], name)

    pictures = {}
    for output in ("figure1", "regret", "curves") if budget == "full" else ():
        drawn = OUTPUTS_2024[output].draw(frame, folder).pictures
        pictures |= {name: figure for name, (figure, _) in drawn.items()}
    return Reproduced(budget, vladymyrov2024.findings(frame), pictures=pictures)


def _goel2026(folder: Path) -> Reproduced:
    name = json.loads((folder / "budget.json").read_text())["name"]
    budget, measured = GOEL2026[name], folder / "measured"
    programs, arms = ([job for job in jobs(budget) if job.kind == kind] for kind in ("published", "matched"))
    done = [job for job in arms if not missing([job], ["matched"], measured)]
    if not done:
        raise SystemExit(f"{measured} has no arm on equal terms; innerloop reproduce goel2026 trains them")
    lacks = []
    if left := [job.name.removeprefix("matched-") for job in arms if job not in done]:
        note = f"not trained: {', '.join(left)}"
        lacks.append(row(_COST, "arms on equal terms", str(len(arms)), len(done), note=note))
    if not missing(programs, ["curves"], measured):
        published = pl.concat([pl.read_parquet(measured / job.files["published"]) for job in programs])
    elif budget.share == 1:  # the same grid, which is measured by a benchmark of its own
        published = pl.read_parquet(RESULTS / "goel2026-curves.parquet")
        published = published.with_columns(parameters=pl.lit(None, pl.Int64))
        note = "trained by benchmarks/goel2026.py: its own page says when, where and in which precision"
        lacks.append(row(_COST, "programs of the paper's grid", str(len(programs)), len(programs), note=note))
    else:
        raise SystemExit(f"{measured} lacks programs of the paper's grid; go on by --resume")
    frames = {
        "published": published,
        "matched": pl.concat([pl.read_parquet(measured / job.files["matched"]) for job in done]),
    }
    pictures = {}
    for output in ("matched", "depth"):
        made = OUTPUTS_2026[output]
        drawn = made.draw(*(frames[kind] for kind in made.kinds), budget.share == 1)
        assert drawn.picture is not None
        pictures[output] = drawn.picture[0]
    found = goel2026.findings(*frames.values())
    if missing(programs, ["curves"], measured):  # what that page says already
        found = found.filter(pl.col("group") != goel2026.AS_PUBLISHED)
    return Reproduced(name, found, lacks, pictures)


PAPERS = {
    "vladymyrov2024": Paper(
        "Vladymyrov et al. (2024), reproduced",
        "0",
        _vladymyrov2024,
        {"smoke": "<= 1", "quick": "<= 15", "full": "<= 150"},
    ),
    "goel2026": Paper(
        "Goel et al. (2026), reproduced",
        "42 and the paper's next ones",
        _goel2026,
        {"smoke": "<= 1", "quick": "<= 20", "full": ""},
    ),
}


def store(name: str, folder: Path) -> None:
    """The page of what the folder says."""
    paper = PAPERS[name]
    budget, found, lacks, pictures = paper.read(folder)
    ran = sessions(folder)
    stamp = {
        "page": f"{paper.title}: budget {budget}",
        "command": f"innerloop reproduce {name} --budget {budget}` and `python benchmarks/reproduced.py {name}",
        "seed": paper.seed,
        **stamp_of(ran),
    }
    frame = pl.concat([found, _cost(paper.bars[budget], ran, lacks)]).with_columns(
        **{key: pl.lit(value) for key, value in stamp.items()}
    )
    frame.write_parquet(RESULTS / f"{name}-{budget}.parquet", compression_level=19)
    (RESULTS / f"{name}-{budget}.md").write_text(page(frame))
    for output, figure in pictures.items():
        figure.savefig(RESULTS.parent / "figures" / f"{name}_{budget}_{output}.png", dpi=200)


def _cost(bar: str, ran: pl.DataFrame, lacks: Sequence[dict]) -> pl.DataFrame:
    note = f"{len(ran)} session{'s' * (len(ran) > 1)}, {ran['workers'].max()} processes"
    rows = [row(_COST, "wall minutes", bar, float(ran["seconds"].sum()) / 60, note=note)]
    if not ran["cpu_seconds"].null_count():  # null: a line written from the log of a session that could not
        cpu, note = float(ran["cpu_seconds"].sum()) / 60, "training, measuring and drawing"
        rows.append(row(_COST, "CPU minutes", "", cpu, note=note))
    rows += lacks
    answer = "All sessions of the command together."
    return pl.DataFrame([entry | {"answer": answer} for entry in rows], schema=SCHEMA, orient="row")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--out", type=Path, required=True, help="the folder that the command has filled")
    options = parser.parse_args()
    store(options.paper, options.out)
