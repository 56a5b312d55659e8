"""Makes docs/results/vladymyrov2024-BUDGET.parquet and its page of a folder that the command has filled. Trains nothing.

innerloop reproduce vladymyrov2024 --budget quick --out runs/paper
python benchmarks/vladymyrov2024.py --out runs/paper
"""

import argparse
from pathlib import Path

import polars as pl
from results import RESULTS, page, row

from innerloop.papers.sessions import sessions
from innerloop.papers.vladymyrov2024.findings import findings
from innerloop.papers.vladymyrov2024.measured import parts_of, read
from innerloop.papers.vladymyrov2024.study import BUDGETS, entries, plan_of
from innerloop.study import load_study

_WALL = {"smoke": "<= 60 s", "quick": "<= 15 min", "full": "<= 150 min"}


def store(folder: Path) -> None:
    """The page of what the folder says."""
    study = load_study(folder)
    budget = _budget(folder)
    parts = parts_of(entries(plan_of(budget).runs), BUDGETS[budget])
    found = findings(lambda frame: read(folder / "measured", [p for p in parts if frame in p.frames], frame))
    ran = sessions(folder)
    cost = pl.DataFrame(_cost(budget, study.runs, ran), infer_schema_length=None).with_columns(
        answer=pl.lit("What the command took, all of its sessions together.")
    )
    last = ran.row(-1, named=True)
    stamp = {
        "page": f"Vladymyrov et al. (2024), reproduced: budget {budget}",
        "command": f"innerloop reproduce vladymyrov2024 --budget {budget}, then python benchmarks/vladymyrov2024.py",
        "seed": 0,
        "git_revision": last["git_revision"],
        "machine": f"{last['platform']}, {last['backend']}, {last['device']}",
        "jax": last["jax"],
        "wall_seconds": float(ran["seconds"].sum()),
    }
    frame = pl.concat([found, cost.select(found.columns)]).with_columns(
        **{name: pl.lit(value) for name, value in stamp.items()}
    )
    name = f"vladymyrov2024-{budget}"
    frame.write_parquet(RESULTS / f"{name}.parquet", compression_level=19)
    (RESULTS / f"{name}.md").write_text(page(frame))


def _budget(folder: Path) -> str:
    source = (folder / "study.yaml").read_text()
    return next(name for name in BUDGETS if plan_of(name).source == source)


def _cost(budget: str, runs: pl.DataFrame, ran: pl.DataFrame) -> list[dict]:
    minutes = {name: float(ran[name].sum()) / 60 for name in ("seconds", "cpu_seconds")}
    note = f"{len(ran)} sessions, {ran['workers'].max()} processes"
    return [
        row("Time", "wall minutes", _WALL[budget], minutes["seconds"], note=note),
        row("Time", "CPU minutes", "", minutes["cpu_seconds"], note="training, measuring and drawing"),
        row(
            "Time",
            "minutes of training, all runs",
            "",
            float(runs["seconds"].sum()) / 60,
            note=f"{len(runs)} runs",
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/vladymyrov2024-quick"))
    store(parser.parse_args().out)
