"""Every arm of three layers that Muon trains in `innerloop reproduce goel2026 --budget full`, but 64 wide.

At the published width they need a GPU; this answers the same questions on a laptop: hybrids by layer and by head, other
features of linear attention, no final LayerNorm, and the published pool. What is done is kept in the folder, so that the
same command goes on.

python benchmarks/goel2026_arms.py --out runs/goel2026-arms
python benchmarks/goel2026_arms.py --out runs/goel2026-arms --store
"""

import argparse
from dataclasses import replace
from pathlib import Path

import polars as pl
from results import RESULTS, page, stamp_of
from rich.console import Console

from innerloop import display
from innerloop.papers.findings import answered, finding
from innerloop.papers.goel2026 import findings as said
from innerloop.papers.goel2026.measured import carry_out
from innerloop.papers.goel2026.study import BUDGETS, Job
from innerloop.papers.processes import compiling, processes
from innerloop.papers.sessions import session, sessions

SETTING = replace(BUDGETS["quick"].setting, steps=2500, judged=4096)
ARMS = tuple(arm for arm in BUDGETS["full"].arms if arm.optimizer == "muon" and arm.layers is None)
BUDGET = replace(BUDGETS["quick"], setting=SETTING, arms=ARMS)


def train(folder: Path, workers: int) -> None:
    """All arms that have left no losses in the folder."""
    measured = folder / "measured"
    measured.mkdir(parents=True, exist_ok=True)
    left = [job for job in map(Job, BUDGET.arms) if not (measured / job.files["matched"]).exists()]
    with (
        session(folder, outputs=["arms"], workers=workers),
        compiling(hasty=False),
        display.stages(Console(), {"train": 300.0 * len(left) / workers}) as progress,
        processes(workers) as pool,
    ):
        calls = {job.name: (carry_out, job, BUDGET, measured) for job in left}
        for done, (name, _) in enumerate(pool.outcomes(calls), 1):
            progress.update("train", done / len(left), name)


def store(folder: Path) -> None:
    """The page of what the folder says of arms against each other."""
    files = [folder / "measured" / job.files["matched"] for job in map(Job, BUDGET.arms)]
    files = [file for file in files if file.exists()]
    ran = sessions(folder)
    found = said.on_equal_terms(pl.concat([pl.read_parquet(file) for file in files]))
    note = f"{len(ran)} session{'s' * (len(ran) > 1)}, {ran['workers'].max()} processes"
    sizes = (
        f"Width {SETTING.width}, {SETTING.layers} layers, {SETTING.heads} heads, {SETTING.steps} steps of {SETTING.batch} "
        f"sequences, {BUDGET.seeds} seeds."
    )
    rows = [
        finding("wall minutes", ran["seconds"].sum() / 60, note=note),
        finding("arms", len(files), bar=str(len(BUDGET.arms)), note="trained so far"),
    ]
    cost = answered("What does it take?", sizes, rows)
    stamp = {
        "page": "Goel et al. (2026): arms on equal terms, 64 wide",
        "command": "python benchmarks/goel2026_arms.py",
        "seed": "42 and the paper's next ones",
        **stamp_of(ran),
    }
    frame = pl.concat([found, cost])
    frame = frame.with_columns(**{key: pl.lit(value) for key, value in stamp.items()})
    frame.write_parquet(RESULTS / "goel2026_arms.parquet", compression_level=19)
    (RESULTS / "goel2026_arms.md").write_text(page(frame))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of what is trained")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--store", action="store_true", help="train nothing: the page of what is there")
    options = parser.parse_args()
    if not options.store:
        train(options.out, options.workers)
    store(options.out)
