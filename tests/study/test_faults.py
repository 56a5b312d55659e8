"""A study survives what befalls it: nothing reported is lost or doubled, and parameters are those of an unbroken study.

One small study serves all tests, two runs that train together, so that its program is compiled once in this process.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from innerloop.study import load_study, load_study_spec, make_plan, run_study
from innerloop.study.engines import Local
from innerloop.study.runner import Outcome, do_task
from innerloop.train import Checkpoints

STUDY = """\
name: faults
base:
  task: {dim: 3, context: 6, noise: "uniform(0,2)"}
  model: {kind: diag, layers: 1}
  train: {optimizer: adam, batch: 64, steps: 4000, precision: float32}
  evaluate: {sequences: 1000}
axes:
  train.seed, train.learning_rate, model.init_scale: AXIS
"""
AXIS = "[[0, 0.01, 1], [1, 0.01, 1]]"


class Here:
    """An engine that does everything in this process; `heard` is called with every message."""

    workers = 1

    def __init__(self, heard=lambda message: None):
        self._heard = heard

    def outcomes(self, tasks, tell):
        for task in tasks:
            try:
                do_task(task, self._heard)
                yield Outcome(task)
            except Exception as error:
                yield Outcome(task, str(error))


def planned(folder: Path, axis: str = AXIS):
    """The study's file, written to `folder`, and its plan."""
    file = folder / "study.yaml"
    file.write_text(STUDY.replace("AXIS", axis))
    return file, make_plan(*load_study_spec(file))


def parameters(folder: Path) -> dict[str, bytes]:
    """Every run's parameters, bit for bit."""
    found = {}
    for file in sorted(folder.glob("runs/*/model.npz")):
        with np.load(file) as arrays:
            found |= {f"{file.parent.name}/{name}": arrays[name].tobytes() for name in arrays.files}
    return found


def rows(folder: Path) -> dict[str, list[tuple]]:
    """What the tables say, but for times."""
    study = load_study(folder)
    kept = {
        "runs": study.runs.select("run", "group", "status", "adjusted_loss", "regret"),
        "history": study.history.select("run", "step", "loss", "regret", "skipped"),
        "evaluations": study.evaluations,
    }
    return {table: sorted(frame.rows()) for table, frame in kept.items()}


def command(file: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "innerloop.cli", "sweep", str(file)),
        *("--out", str(out), "--workers", "1", "--resume"),
    ]


def driver_with(file: Path, out: Path, pattern: str) -> subprocess.Popen:
    """A driver at work whose two runs have files like `pattern`."""
    driver = subprocess.Popen(command(file, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while driver.poll() is None and len(list(out.glob(f"runs/*/{pattern}"))) < 2:
        time.sleep(0.02)
    assert driver.poll() is None, "the study ended before it could be broken: give it more steps"
    return driver


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder of the study as it is when nothing befalls it."""
    folder = tmp_path_factory.mktemp("study")
    assert run_study(planned(folder)[1], folder / "unbroken", Here()) == []
    return folder / "unbroken"


@pytest.fixture
def broken(unbroken, tmp_path):
    """A copy of the finished study, to be damaged."""
    return Path(shutil.copytree(unbroken, tmp_path / "broken"))


def same(folder: Path, unbroken: Path) -> bool:
    return (
        parameters(folder) == parameters(unbroken)
        and rows(folder) == rows(unbroken)
        and (folder / "done").exists()
    )


def test_the_driver_is_killed(tmp_path, unbroken):
    file, _ = planned(tmp_path)
    driver = driver_with(file, tmp_path / "out", "checkpoints/*.npz")
    driver.kill()
    driver.wait()
    resumed = subprocess.run(command(file, tmp_path / "out"), capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert same(tmp_path / "out", unbroken)


def test_the_driver_is_asked_to_stop(tmp_path, unbroken):
    file, plan = planned(tmp_path)
    driver = driver_with(file, tmp_path / "out", "metrics.parquet")
    driver.terminate()
    assert driver.wait(timeout=60) == 75
    saved = {int(path.stem) for path in (tmp_path / "out").glob("runs/*/checkpoints/*.npz")}
    reported = pl.concat(
        pl.read_parquet(path)["step"] for path in (tmp_path / "out").glob("runs/*/metrics.parquet")
    )
    assert max(saved) == reported.max()
    assert run_study(plan, tmp_path / "out", Here(), resume=True) == []
    assert same(tmp_path / "out", unbroken)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_dies_while_the_driver_lives(tmp_path, unbroken, number):
    _, plan = planned(tmp_path)
    out, ended = tmp_path / "out", []

    def kill(progress):
        if progress.row and not ended and len(list(out.glob("runs/*/checkpoints/*.npz"))) >= 2:
            (pid,) = children()
            os.kill(pid, number)
            ended.append(progress.share)

    assert run_study(plan, out, Local(1), report=kill) == []
    assert ended and ended[0] < 1
    assert same(out, unbroken)


def children() -> list[int]:
    """Processes of this one that work on a study."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.parametrize("table", ["runs", "history", "evaluations"])
def test_a_cut_table_file_comes_back(tmp_path, broken, unbroken, table):
    (file,) = (broken / "tables" / table).glob("*.parquet")
    os.truncate(file, file.stat().st_size - 10)
    with pytest.warns(UserWarning, match="is damaged; its rows come back when the study goes on by --resume"):
        assert len(getattr(load_study(broken), table)) == 0
    with pytest.warns(UserWarning, match="is damaged; its rows are made anew"):
        assert run_study(planned(tmp_path)[1], broken, Here(), resume=True) == []
    assert same(broken, unbroken)


def test_history_that_an_older_file_has_in_part_comes_back_whole(tmp_path, broken, unbroken):
    (file,) = (broken / "tables" / "history").glob("*.parquet")
    older = file.with_name(file.name.replace("000000", "000001"))
    file.rename(older)
    pl.read_parquet(older).filter(pl.col("step") < 3).write_parquet(file)  # as a failed attempt leaves it
    os.truncate(older, 100)
    with pytest.warns(UserWarning, match="is damaged; its rows are made anew"):
        assert run_study(planned(tmp_path)[1], broken, Here(), resume=True) == []
    assert same(broken, unbroken)


def test_a_member_with_a_cut_checkpoint_goes_on_from_the_one_before(tmp_path, broken, unbroken):
    """The two then stand at different steps, and the one behind catches up alone."""
    shutil.rmtree(broken / "tables")
    for name in ("model.npz", "status.json"):
        for file in broken.glob(f"runs/*/{name}"):
            file.unlink()
    *_, newest = sorted(broken.glob("runs/*seed1*/checkpoints/*.npz"))
    os.truncate(newest, newest.stat().st_size // 2)
    with pytest.warns(UserWarning, match="going back to the checkpoint before it"):
        assert run_study(planned(tmp_path)[1], broken, Here(), resume=True) == []
    assert same(broken, unbroken)


def test_a_checkpoint_outlives_damaged_ones_of_later_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (7, 8, 9):
        (tmp_path / f"{step:08d}.npz").write_bytes(b"cut")
    checkpoints.save(3, {"state": np.arange(3)})
    found = checkpoints.latest()
    assert found is not None and found[0] == 3
    np.testing.assert_array_equal(found[1]["state"], np.arange(3))


def test_the_disk_is_full(tmp_path, unbroken, monkeypatch):
    _, plan = planned(tmp_path)
    out, flush, heard = tmp_path / "out", os.fsync, []

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(message):
        heard.append(message)
        if len(heard) == 20:
            monkeypatch.setattr(os, "fsync", full)

    (failed,) = run_study(plan, out, Here(fill))
    assert "No space left" in failed.error
    assert not [path for path in out.rglob(".*") if path.is_file()]  # what was half written is removed
    monkeypatch.setattr(os, "fsync", flush)
    assert run_study(plan, out, Here(), resume=True) == []
    assert same(out, unbroken)


def test_a_member_that_diverges_leaves_the_others_alone(tmp_path, unbroken):
    _, plan = planned(tmp_path, "[[0, 0.01, 1], [1, 1.0e+30, 100]]")
    assert [len(group.runs) for group in plan.groups] == [2]
    assert run_study(plan, tmp_path / "out", Here()) == []
    found, expected = parameters(tmp_path / "out"), parameters(unbroken)
    alone = {name: value for name, value in expected.items() if "seed0" in name}
    assert alone and {value for name, value in found.items() if "seed0" in name} == set(alone.values())
    study = load_study(tmp_path / "out")
    assert study.runs["status"].to_list() == ["done", "done"]
    assert study.runs.sort("run")["not_finite"].to_list()[1] > 0 or study.runs["skipped"].max() > 0


def test_what_killed_writers_left_goes_when_the_study_goes_on(tmp_path, broken, unbroken):
    shutil.rmtree(broken / "tables" / "runs")
    for status in broken.glob("runs/*/status.json"):
        status.unlink()
    (run, _) = sorted((broken / "runs").iterdir())
    left = [run / ".metrics.parquet.a1b2c3d4", run / "checkpoints" / ".00000009.npz.a1b2c3d4"]
    left += [
        broken / ".study.yaml.a1b2c3d4",
        broken / "tables" / "history" / ".000000-v2-ab.parquet.a1b2c3d4",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert run_study(planned(tmp_path)[1], broken, Here(), resume=True) == []
    assert not [path for path in left if path.exists()]
    assert same(broken, unbroken)
