"""Measures studies of many runs, and writes docs/results/studies.parquet and docs/results/studies.md.

    python benchmarks/studies.py                 # everything, about ten minutes on two cores
    python benchmarks/studies.py --only query

Wall times are of a machine that did nothing else. Whole commands are timed, Python's start included.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import yaml
from results import record, row

from innerloop.study import load_study, parse_spec, train_run
from innerloop.study.engines import default_workers
from innerloop.study.run import Job, train_runs
from innerloop.study.store import Store

_COMMANDS = 3  # of the 32 that are compared with one study; the others take as long
_RUN = {
    "model": {"kind": "diag", "layers": 4},
    "train": {"optimizer": "adam", "steps": 1000, "batch": 256},
}


def command(*words: str) -> float:
    """Seconds that `innerloop WORDS` takes."""
    began = time.perf_counter()
    subprocess.run(["innerloop", *words], check=True, capture_output=True)
    return time.perf_counter() - began


def seeds() -> list[dict]:
    """32 seeds as one study, against as many commands one after another."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.yaml").write_text(yaml.safe_dump(_RUN))
        study = {"base": "run.yaml", "axes": {"train.seed": {"range": [0, 32]}}}
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        together = command("sweep", str(folder / "study.yaml"), "--out", str(folder / "study"))
        alone = [
            command(
                "train", str(folder / "run.yaml"), "--set", f"train.seed={k}", "--out", str(folder / str(k))
            )
            for k in range(_COMMANDS)
        ]
    note = (
        f"one study {together:.0f} s, in {default_workers()} processes, every run judged too; "
        f"one command {np.mean(alone):.1f} s (mean of {_COMMANDS})"
    )
    return [
        row(
            "seeds",
            "32 seeds of 4-layer DIAG, Adam, 1000 steps, batch 256: 32 commands / one study",
            ">= 5",
            32 * float(np.mean(alone)) / together,
            note=note,
        )
    ]


def warm() -> list[dict]:
    """Runs in one program against one run, both compiled already: all 32 on a GPU, on a CPU as many as a study groups."""
    count = 8 if jax.default_backend() == "cpu" else 32

    def job(seed: int, folder: Path) -> Job:
        return Job(parse_spec({**_RUN, "train": {**_RUN["train"], "seed": seed}}), folder / str(seed))

    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    for repeat in range(4):  # the first of each compiles
        with tempfile.TemporaryDirectory() as name:
            first = job(100 * repeat, Path(name))
            began = time.perf_counter()
            train_run(first.spec, first.folder)
            seconds["alone"].append(time.perf_counter() - began)
            jobs = [job(100 * repeat + k, Path(name)) for k in range(1, count + 1)]
            began = time.perf_counter()
            train_runs(jobs)
            seconds["together"].append((time.perf_counter() - began) / len(jobs))
    ratio = np.median([a / b for a, b in zip(seconds["alone"][1:], seconds["together"][1:], strict=True)])
    alone, together = (float(np.median(seconds[how][1:])) for how in ("alone", "together"))
    note = f"{alone:.3g} s alone, {together:.3g} s a run together"
    return [
        row(
            "warm process",
            f"a run of those, alone in a warm process / one of {count} together",
            ">= 1" if jax.default_backend() == "cpu" else ">= 15",
            float(ratio),
            note=note,
        )
    ]


def short() -> list[dict]:
    """What a study of 500 short runs takes beyond their training."""
    base = {
        "task": {"dim": 5, "context": 10, "noise": "uniform(0,2)"},
        "model": {"kind": "diag", "layers": 2},
        "train": {"optimizer": "adam", "steps": 600, "batch": 256},
        "evaluate": {"sequences": 16384},
    }
    axes = {"train.seed": {"range": [0, 125]}, "train.learning_rate": {"geometric": [0.003, 0.1, 4]}}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "study.yaml"
        path.write_text(yaml.safe_dump({"base": base, "axes": axes}))
        wall = command("sweep", str(path), "--out", str(Path(name) / "study"))
        study = load_study(Path(name) / "study")
    training = float(study.runs["seconds"].sum()) / default_workers()
    assert len(study.runs) == 500
    note = f"{wall:.0f} s in all, {training:.0f} s of training in each of {default_workers()} processes"
    return [
        row("short runs", "500 short runs: share beyond training", "<= 0.10", wall / training - 1, note=note)
    ]


def query() -> list[dict]:
    """`innerloop runs --where` over 100 000 rows, as a whole command."""
    spec = parse_spec(_RUN).model_dump(mode="json")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.yaml").write_text("name: large")
        store = Store(folder)
        for part in range(200):
            rows = [
                {
                    "run": f"run-{part:03d}-{k:03d}",
                    "study": "large",
                    "status": "done",
                    **spec,
                    "model": spec["model"] | {"layers": int(rng.integers(1, 8))},
                    "adjusted_loss": float(rng.gamma(2.0)),
                    "seconds": 1.0,
                }
                for k in range(500)
            ]
            store.add("runs", rows)
        (folder / "done").touch()
        assert len(store.read("runs")) == 100_000
        where = "model.kind = 'diag' and model.layers = 4 and adjusted_loss < 0.05"
        seconds = [command("runs", str(folder), "--where", where, "--json") for _ in range(5)]
        files = len(list((folder / "tables" / "runs").iterdir()))
    note = f"median of 5 whole commands, {files} files"
    return [
        row("query", "runs --where over 100 000 runs, seconds", "<= 1", float(np.median(seconds)), note=note)
    ]


GROUPS: dict[str, Callable[[], list[dict]]] = {
    "seeds": seeds,
    "warm": warm,
    "short-runs": short,
    "query": query,
}

if __name__ == "__main__":
    record("studies", "What studies of many runs measure", GROUPS, __doc__)
