"""A run that is killed and resumed ends with the parameters of one that was not, bit for bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

_ADAM = {"optimizer": "adam", "batch": 256, "steps": 2000, "precision": "float32"}
_SECOND_ORDER = {"optimizer": "levenberg-marquardt", "sample": 256, "steps": 20, "starts": 1}
_RUNS = {"adam": ("diag", 2, _ADAM), "levenberg-marquardt": ("gd++", 3, _SECOND_ORDER)}


def command(spec: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "innerloop.cli", "train", str(spec), "--out", str(out), *more]


def finish(spec: Path, out: Path, *more: str) -> dict[str, np.ndarray]:
    """Train to the end; the parameters of every depth."""
    done = subprocess.run(command(spec, out, *more), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(out / "model.npz") as archive:
        return dict(archive)


def kill_after_a_checkpoint(spec: Path, out: Path, delay: float, *more: str) -> bool:
    """Start or go on with a run, kill it `delay` seconds after its next checkpoint; whether it was still running."""
    before = set((out / "checkpoints").glob("*.npz"))
    process = subprocess.Popen(
        command(spec, out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None and set((out / "checkpoints").glob("*.npz")) <= before:
            time.sleep(0.02)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", list(_RUNS))
def test_killed_and_resumed(tmp_path, seed, name):
    """SIGKILL at moments drawn from `--seed`, after a checkpoint of the first start and one of the going on."""
    kind, layers, training = _RUNS[name]
    spec = tmp_path / "spec.yaml"
    task = {"dim": 3, "context": 6, "noise": "uniform(0,2)"}
    spec.write_text(
        yaml.safe_dump({"task": task, "model": {"kind": kind, "layers": layers}, "train": training})
    )
    expected = finish(spec, tmp_path / "unbroken")
    steps = pl.read_parquet(tmp_path / "unbroken" / "metrics.parquet")["step"].to_list()
    killed = [
        kill_after_a_checkpoint(spec, tmp_path / "broken", delay, *more)
        for delay, more in zip(
            np.random.default_rng(seed).uniform(0, 0.5, 2), ([], ["--resume"]), strict=True
        )
    ]
    assert killed[0], "the run ended before it could be killed: give it more steps"
    found = finish(spec, tmp_path / "broken", "--resume")
    assert found.keys() == expected.keys()
    for array, theirs in expected.items():
        np.testing.assert_array_equal(found[array], theirs)
    assert pl.read_parquet(tmp_path / "broken" / "metrics.parquet")["step"].to_list() == steps
