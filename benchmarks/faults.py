"""Kills a study again and again, and writes docs/results/faults.parquet: one row a kill, and what was found after it.

    python benchmarks/faults.py --kills 200 --out /tmp/faults                # about half an hour on two cores
    python benchmarks/faults.py --kills 200 --minutes 15 --out /tmp/faults   # as many of them as time allows

The study trains unbroken once, as the reference. Then the driver or one of its workers, drawn from `--seed`, is killed by
SIGKILL at a moment drawn from it too, the driver is started again with --resume, and so on until the study is done; its
parameters must be the reference's bit for bit. A fresh study follows. Rows of other seeds stay in the file.
"""

import argparse
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import polars as pl

from innerloop.study.run import git_revision
from innerloop.study.store import Store
from innerloop.train import Checkpoints

RESULTS = Path(__file__).parents[1] / "docs" / "results"
LONGEST = 0.25  # from one kill to the next, of the unbroken study's time: the start of processes and some checkpoints
GAVE_UP = (
    "its process died again and again"  # what the driver says of a group after four kills without progress
)
KEYS = {"runs": ["run"], "history": ["run", "step"], "evaluations": ["run", "name"]}
STUDY = """\
base:
  task: {dim: 3, context: 6, noise: "uniform(0,2)"}
  model: {kind: diag}
  train: {batch: 64}
  evaluate: {sequences: 4096}
axes:
  model.layers, train.optimizer, train.steps: [[1, adam, 10000], [2, adam, 5000], [2, levenberg-marquardt, 8]]
  train.seed: {range: [0, 3]}
when:
  - {if: {train.optimizer: levenberg-marquardt}, set: {train.sample: 512}}
skip:
  - {train.optimizer: levenberg-marquardt, train.seed: [1, 2]}
"""


def start(out: Path, folder: Path) -> subprocess.Popen:
    """Begin or go on with the study in `folder`."""
    command = [sys.executable, "-m", "innerloop.cli", "sweep", str(out / "study.yaml"), "--out", str(folder)]
    with (out / "log.txt").open("ab") as log:
        return subprocess.Popen([*command, "--workers", "2", "--resume"], stdout=log, stderr=log)


def workers_of(driver: int) -> list[int]:
    """Its processes that train, or are about to."""
    listed = subprocess.run(["ps", "--ppid", str(driver), "-o", "pid=,args="], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


class Watched:
    """A study, and all that it has said so far, which must stay."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._rows: dict[str, dict[tuple, dict]] = {table: {} for table in KEYS}
        self._losses: dict[tuple[str, int], float] = {}

    def problems(self) -> list[str]:
        """What is wrong now: the study may be running."""
        if not self.folder.exists():
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a damaged file is a warning to users
            found: list[str] = []
            for what in (self._tables, self._checkpoints, self._metrics):
                try:
                    found += what()
                except Exception as error:
                    found.append(f"{what.__name__.strip('_')}: {error}")
        return found

    def done(self) -> int:
        """Runs that the tables say are done."""
        return sum(row["status"] == "done" for row in self._rows["runs"].values())

    def parameters(self) -> dict[str, np.ndarray]:
        """All parameters of all finished runs."""
        found = {}
        for file in sorted(self.folder.glob("runs/*/model.npz")):
            with np.load(file) as arrays:
                found |= {f"{file.parent.name}/{name}": arrays[name] for name in arrays.files}
        return found

    def lost(self) -> list[str]:
        """Losses that training once reported and that the finished study's history does not have, or has otherwise."""
        history = {(row["run"], row["step"]): row["loss"] for row in self._rows["history"].values()}
        return [f"{key} was {loss!r}" for key, loss in self._losses.items() if history.get(key) != loss]

    def _tables(self) -> list[str]:
        found = []
        for table, key in KEYS.items():
            for file in (self.folder / "tables" / table).glob("*.parquet"):
                pl.read_parquet(file)
            frame = Store(self.folder).read(table)
            if frame.select(key).is_duplicated().any():
                found.append(f"{table}: a row is doubled")
            rows = {tuple(row[name] for name in key): row for row in frame.to_dicts()}
            before = self._rows[table]
            found += [f"{table}: the row {name} is gone" for name in before.keys() - rows.keys()]
            if table == "runs":
                found += [
                    f"runs: {name} is no longer done"
                    for name, row in before.items()
                    if row["status"] == "done" and rows.get(name, row)["status"] != "done"
                ]
            self._rows[table] = before | rows
        return found

    def _checkpoints(self) -> list[str]:
        folders = [folder for folder in self.folder.glob("runs/*/checkpoints") if any(folder.glob("*.npz"))]
        unreadable = [folder for folder in folders if Checkpoints(folder).latest() is None]
        return [f"{folder.parent.name}: no readable checkpoint" for folder in unreadable]

    def _metrics(self) -> list[str]:
        for file in self.folder.glob("runs/*/metrics.parquet"):
            for row in pl.read_parquet(file).to_dicts():
                self._losses[file.parent.name, row["step"]] = row["loss"]
        return []


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    if found.keys() != expected.keys():
        return [f"arrays {sorted(found.keys() ^ expected.keys())} are in one study only"]
    return [f"{name} differs" for name, array in expected.items() if not np.array_equal(found[name], array)]


def carry_out(out: Path, kills: int, until: float, draw: random.Random) -> list[dict]:
    """Kill until there are enough kills or no time, the last study being left to finish; one row a kill."""
    expected, seconds = reference(out)
    rows: list[dict] = []
    studies = 0
    while len(rows) < kills and time.monotonic() < until:
        watched = Watched(out / f"study-{studies:03d}")
        own: list[dict] = []
        broken = finish(
            out, watched, own, kills - len(rows), until, lambda: draw.uniform(0, LONGEST) * seconds, draw
        )
        broken += watched.problems() + watched.lost() + differences(watched.parameters(), expected)
        for row in own:
            row |= {"study": studies, "finished": "as the unbroken one" if not broken else "; ".join(broken)}
        rows += own
        print(f"study {studies}: {len(own)} kills, {own[-1]['finished'] if own else 'none'}", flush=True)
        studies += 1
        if not broken:
            shutil.rmtree(watched.folder)
    return rows


def finish(
    out: Path,
    watched: Watched,
    own: list[dict],
    kills: int,
    until: float,
    pause: Callable[[], float],
    draw: random.Random,
) -> list[str]:
    """One study, killed on its way until `kills` or `until`; what went wrong with its exit code."""
    process, began = start(out, watched.folder), time.monotonic()
    while True:
        enough = len(own) >= kills or time.monotonic() > until
        try:
            code = process.wait(timeout=600 if enough else pause())
        except subprocess.TimeoutExpired:
            if enough:
                process.kill()
                process.wait()
                return ["it did not end"]
        else:
            if code == 1 and own and GAVE_UP in (out / "log.txt").read_text().splitlines()[-2]:
                own[-1]["gave_up"] = True  # as it says it does; --resume goes on
                process, began = start(out, watched.folder), time.monotonic()
                continue
            return [f"it ended with exit code {code}"] if code else []
        victim, workers = draw.choice(("driver", "worker")), workers_of(process.pid)
        number = process.pid if victim == "driver" or not workers else draw.choice(workers)
        seconds = time.monotonic() - began
        os.kill(number, signal.SIGKILL)
        if number == process.pid:
            victim = "driver"
            process.wait()
        found = watched.problems()
        own.append(
            {
                "victim": victim,
                "seconds_after_start": seconds,
                "runs_done": watched.done(),
                "found": "; ".join(found) or "all well",
                "gave_up": False,
            }
        )
        if number == process.pid:
            process, began = start(out, watched.folder), time.monotonic()


def reference(out: Path) -> tuple[dict[str, np.ndarray], float]:
    """The parameters of the unbroken study, and the seconds it took."""
    folder, began = out / "unbroken", time.monotonic()
    if start(out, folder).wait():
        raise SystemExit(f"the unbroken study failed; see {out / 'log.txt'}")
    return Watched(folder).parameters(), time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no kill after these")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for the studies")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if any(given.out.iterdir()):
        raise SystemExit(f"{given.out} is not empty")
    (given.out / "study.yaml").write_text(STUDY)
    began = time.monotonic()
    rows = carry_out(given.out, given.kills, began + 60 * given.minutes, random.Random(given.seed))
    stamp = {
        "spec": STUDY,
        "seed": given.seed,
        "git_revision": git_revision(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "jax": jax.__version__,
        "wall_seconds": time.monotonic() - began,
    }
    frame = pl.DataFrame([{"kill": index, **row, **stamp} for index, row in enumerate(rows)])
    RESULTS.mkdir(parents=True, exist_ok=True)
    stored = RESULTS / "faults.parquet"
    if stored.exists():  # kills of other seeds stay
        frame = pl.concat([pl.read_parquet(stored).filter(pl.col("seed") != given.seed), frame])
    frame.write_parquet(stored)
    bad = frame.filter((pl.col("found") != "all well") | (pl.col("finished") != "as the unbroken one"))
    drivers = (frame["victim"] == "driver").sum()
    print(
        f"{len(frame)} kills ({drivers} of the driver, {len(frame) - drivers} of a worker) in "
        f"{frame['study'].n_unique()} studies, seed {given.seed}: {len(bad)} with something amiss, "
        f"{stamp['wall_seconds']:.0f} s"
    )
    if len(bad):
        print(bad.select("kill", "victim", "found", "finished"))
        raise SystemExit(1)


if __name__ == "__main__":
    main()
