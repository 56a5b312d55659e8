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

_ADAM = {"optimizer": "adam", "batch": 256, "steps": 8000, "precision": "float32"}
_SECOND_ORDER = {"optimizer": "levenberg-marquardt", "sample": 2048, "steps": 40}
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
    process = subprocess.Popen(command(spec, out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and set((out / "checkpoints").glob("*.npz")) <= before:
            time.sleep(0.02)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL
