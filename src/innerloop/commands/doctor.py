"""`innerloop doctor`: what somebody needs to know of a machine before the first run, and what is wrong with it."""

import json
import os
import platform
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from innerloop.commands.options import AsJson, escaped

# What may be installed besides -> what it is for, and the packages that it brings.
EXTRAS = {
    "estimator": ("InContextRegressor", ("sklearn",)),
    "explore": ("innerloop explore", ("starlette", "uvicorn")),
    "onnx": ("innerloop export --to FILE.onnx", ("onnx", "onnxruntime")),
    "ray": ("--engine ray", ("ray",)),
    "remote": ("results on s3://, gs://", ("fsspec", "s3fs", "gcsfs")),
    "tracking": ("--track", ("tensorboardX", "wandb", "mlflow")),
}
_GIB = 2**30
_LEAST = {"memory": 0.5, "disk": 1.0}  # GiB that a run of the first path may take


def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, which devices are found, the precision, and where results go; 1 if something is wrong.

    Examples:
        innerloop doctor
        innerloop doctor --json > machine.json
    """
    from innerloop import display

    facts, wrong = _computing()
    facts |= {
        "cores": _cores(),
        "threads": int(os.environ.get("NPROC", _cores())),
        "memory": _memory(),
        "results": str(Path("runs").resolve()),
        "disk": _disk(Path("runs").resolve()),
        "object storage": _object_storage(),
        "extras": {name: _extra(name) for name in EXTRAS},
    }
    wrong += _wrong(facts)
    if as_json:
        print(json.dumps(facts | {"problems": wrong}))
    else:
        display.facts(_readable(facts))
        for problem in wrong:
            display.console().print(f"[bold red]problem:[/] {escaped(problem)}", soft_wrap=True)
    if wrong:
        raise typer.Exit(1)


def _computing() -> tuple[dict[str, Any], list[str]]:
    """What computes, and what is wrong with it."""
    import jax

    from innerloop.study import environment

    cache = getattr(jax.config, "jax_compilation_cache_dir", None)
    double = jax.config.read("jax_enable_x64")
    facts = {
        "precision": "float64" if double else "float32 (float64 inside runs that ask for it)",
        "compilation cache": cache or "none: set JAX_COMPILATION_CACHE_DIR to keep compiled programs",
    }
    try:
        about = environment() | {"devices": [str(device) for device in jax.devices()]}
        assert float(jax.numpy.ones(2).sum()) == 2
    except RuntimeError as error:  # no such device, or one that does not work
        names = ("innerloop", "jax", "jaxlib")
        about = {"python": platform.python_version(), **{name: version(name) for name in names}}
        return about | {"devices": []} | facts, [f"JAX does not compute: {' '.join(str(error).split())}"]
    wrong = []
    if about["backend"] == "cpu" and Path("/dev/nvidia0").exists() and not os.environ.get("JAX_PLATFORMS"):
        wrong = ['there is an NVIDIA GPU, but JAX computes on the CPU: pip install "jax[cuda12]"']
    return about | facts, wrong


def _wrong(facts: dict[str, Any]) -> list[str]:
    """What of a machine keeps runs from being trained."""
    found = []
    folder = Path(facts["results"])
    there = _existing(folder)
    if folder.exists() and not folder.is_dir():
        found.append(f"results go to {folder}, which is a file: rename it, or say --out")
    elif not os.access(there, os.W_OK | os.X_OK):
        found.append(
            f"results go to {folder}, but {there} cannot be written: go to another folder, or say --out"
        )
    for name, least in _LEAST.items():
        if (amount := facts[name]) and amount["free_gib"] < least:
            found.append(f"{amount['free_gib']:.2f} GiB of {name} are free, a run may need {least:g}")
    return found


def _readable(facts: dict[str, Any]) -> dict[str, Any]:
    """The same with a line of text for each."""
    amounts = {
        name: f"{amount['free_gib']:.1f} of {amount['total_gib']:.1f} GiB free" if amount else "unknown"
        for name, amount in ((name, facts[name]) for name in ("memory", "disk"))
    }
    extras = {
        EXTRAS[name][0]: f'pip install "innerloop[{name}]"' if missing else "installed"
        for name, missing in facts["extras"].items()
    }
    return {name: value for name, value in facts.items() if name != "extras"} | amounts | extras


def _extra(name: str) -> list[str]:
    """The packages of an extra that are missing."""
    return [package for package in EXTRAS[name][1] if find_spec(package) is None]


def _cores() -> int:
    from innerloop.threads import cores

    return cores()


def _memory() -> dict[str, float] | None:
    """Of this machine; what a container may use of it can be less. None where nobody says."""
    try:
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        sizes = {words[0].rstrip(":"): int(words[1]) * 1024 / _GIB for words in lines}
        return {"free_gib": sizes["MemAvailable"], "total_gib": sizes["MemTotal"]}
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _disk(folder: Path) -> dict[str, float] | None:
    try:
        usage = shutil.disk_usage(_existing(folder))
    except OSError:
        return None
    return {"free_gib": usage.free / _GIB, "total_gib": usage.total / _GIB}


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _object_storage() -> str:
    """Which kinds of it the installed packages reach."""
    kinds = [kind for kind, package in {"s3": "s3fs", "gs": "gcsfs"}.items() if find_spec(package)]
    return ", ".join(kinds) or 'no: pip install "innerloop[remote]"'
