"""Makes docs/results/PAPER-BUDGET.parquet and its page of a folder that `innerloop reproduce` has filled. Trains nothing.

Where not all is trained yet the page says what is missing.

innerloop reproduce vladymyrov2024 --budget quick --out runs/paper
python benchmarks/reproduced.py vladymyrov2024 --out runs/paper
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
from matplotlib.figure import Figure
from results import RESULTS, page, row

from innerloop.papers.findings import SCHEMA
from innerloop.papers.goel2026 import findings as goel2026
from innerloop.papers.goel2026.outputs import OUTPUTS
from innerloop.papers.goel2026.reproduce import missing
from innerloop.papers.goel2026.study import BUDGETS as GOEL2026
from innerloop.papers.goel2026.study import jobs
from innerloop.papers.sessions import sessions
from innerloop.papers.vladymyrov2024 import findings as vladymyrov2024
from innerloop.papers.vladymyrov2024.measured import parts_of, read
from innerloop.papers.vladymyrov2024.study import BUDGETS as VLADYMYROV2024
from innerloop.papers.vladymyrov2024.study import entries, plan_of


class Reproduced(NamedTuple):
    """What a folder holds: its budget's name, what it says, rows on what of the budget it lacks, pictures for the docs."""

    budget: str
    findings: pl.DataFrame
    lacks: tuple[dict, ...] = ()
    pictures: tuple[tuple[str, Figure], ...] = ()


class Paper(NamedTuple):
    """How a paper is called, its folders are read, and what its budgets may take."""

    title: str
    seed: str
    read: Callable[[Path], Reproduced]
    bars: dict[str, str]


def _vladymyrov2024(folder: Path) -> Reproduced:
    source = (folder / "study.yaml").read_text()
    budget = next(name for name in VLADYMYROV2024 if plan_of(name).source == source)
    parts = parts_of(entries(plan_of(budget).runs), VLADYMYROV2024[budget])

    def frame(name: str) -> pl.DataFrame:
        return read(folder / "measured", [part for part in parts if name in part.frames], name)

    return Reproduced(budget, vladymyrov2024.findings(frame))


def _goel2026(folder: Path) -> Reproduced:
    budget = json.loads((folder / "budget.json").read_text())
    all_jobs = jobs(GOEL2026[budget])
    done = [job for job in all_jobs if not missing([job], ["findings"], folder / "measured")]
    frames = {
        kind: pl.concat(
            [pl.read_parquet(folder / "measured" / job.files[kind]) for job in done if kind in job.files]
        )
        for kind in ("published", "matched")
    }
    left = [job.name for job in all_jobs if job not in done]
    note = f"not trained: {', '.join(left)}"
    what = "programs and arms that were trained"
    lacks = (row("What does it take?", what, str(len(all_jobs)), len(done), note=note),) if left else ()
    pictures = []
    for name in ("matched", "depth") if budget == "full" else ():
        drawn = OUTPUTS[name].draw(*(frames[kind] for kind in OUTPUTS[name].kinds), True)
        pictures.append((name, drawn.picture[0]))
    return Reproduced(budget, goel2026.findings(*frames.values()), lacks, tuple(pictures))


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
        "git_revision": _distinct(ran["git_revision"]),
        "machine": _distinct(
            ran.select(pl.format("{}, {}, {}", "platform", "backend", "device")).to_series()
        ),
        "jax": _distinct(ran["jax"]),
        "wall_seconds": float(ran["seconds"].sum()),
    }
    frame = pl.concat([found, _cost(paper.bars[budget], ran, lacks)]).with_columns(
        **{key: pl.lit(value) for key, value in stamp.items()}
    )
    frame.write_parquet(RESULTS / f"{name}-{budget}.parquet", compression_level=19)
    (RESULTS / f"{name}-{budget}.md").write_text(page(frame))
    for output, figure in pictures:
        figure.savefig(RESULTS.parent / "figures" / f"{name}_{budget}_{output}.png", dpi=200)


def _distinct(values: pl.Series) -> str:
    return "; ".join(values.unique(maintain_order=True))


def _cost(bar: str, ran: pl.DataFrame, lacks: tuple[dict, ...]) -> pl.DataFrame:
    note = f"{len(ran)} session{'s' * (len(ran) > 1)}, {ran['workers'].max()} processes"
    rows = [row("What does it take?", "wall minutes", bar, float(ran["seconds"].sum()) / 60, note=note)]
    if not ran["cpu_seconds"].null_count():
        cpu, note = float(ran["cpu_seconds"].sum()) / 60, "training, measuring and drawing"
        rows.append(row("What does it take?", "CPU minutes", "", cpu, note=note))
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
