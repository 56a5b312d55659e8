"""Trains Goel et al.'s (2026) grid as published, all seeds of a program at once, and writes a Parquet file for each.

    python benchmarks/goel2026.py --out runs/goel2026                       # the whole grid; meant for a GPU
    python benchmarks/goel2026.py --only linear-6,quadratic-3 --out DIR     # two of the six programs
    python benchmarks/goel2026.py --steps-scale 0.01 --seeds 42,7 --out DIR # a try

The programs that say most come first, so that a run that is cut short leaves the most.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
import polars as pl

from innerloop.papers.goel2026 import Program, Trained, grid, train


def main() -> None:
    options = _parse()
    options.out.mkdir(parents=True, exist_ok=True)
    cache = options.cache and str(options.cache)
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
    print(f"{jax.devices()[0].device_kind}, {jax.device_count()} device(s), {options.precision}", flush=True)
    began = time.perf_counter()
    for program in options.only:
        steps = max(1, round(program.steps * options.steps_scale))
        changes = {} if options.width is None else {"width": options.width}
        trained = train(
            program,
            seeds=options.seeds,
            steps=steps,
            precision=options.precision,
            progress=_report(program),
            **changes,
        )
        _write(options, program, trained)
        _summarise(program, trained, time.perf_counter() - began)


def _write(options: argparse.Namespace, program: Program, trained: Trained) -> None:
    """The losses, and beside them what the numbers were made with."""
    part = options.out / f"{program.name}.parquet.part"
    trained.losses.write_parquet(part)
    part.rename(options.out / f"{program.name}.parquet")
    facts = {
        "device": jax.devices()[0].device_kind,
        "precision": options.precision,
        "jax": jax.__version__,
        "steps": int(trained.losses["step"].max()),  # pyright: ignore[reportArgumentType]
        "parameters": trained.parameters,
        "compile_seconds": round(trained.compile_seconds, 2),
        "run_seconds": round(trained.run_seconds, 2),
    }
    (options.out / f"{program.name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def _report(program: Program):
    def report(step: int, losses: np.ndarray) -> None:
        if step % 5000 == 0 or step < 1000:
            print(f"  {program.name} step {step}: {losses.mean():.4f}", flush=True)

    return report


def _summarise(program: Program, trained: Trained, elapsed: float) -> None:
    last = {name: _last(trained, name) for name in ("isotropic", "anisotropic")}
    text = ", ".join(
        f"{name} {found.mean():.4f} sd {found.std(ddof=min(1, len(found) - 1)):.4f}"
        for name, found in last.items()
    )
    needed = trained.samples_to(0.9)["sequences"].to_list()
    print(
        f"{program.name}: compile {trained.compile_seconds:.1f} s, run {trained.run_seconds:.1f} s"
        f" ({elapsed:.0f} s since the start); last point: {text}; sequences to 90 %: {needed}",
        flush=True,
    )


def _last(trained: Trained, name: str) -> np.ndarray:
    curve = trained.last_point(name)
    return curve.filter(pl.col("step") == pl.col("step").max())["loss"].to_numpy()


def _parse() -> argparse.Namespace:
    programs = {program.name: program for program in grid()}

    def chosen(text: str) -> list[Program]:
        unknown = [name for name in text.split(",") if name not in programs]
        if unknown:
            raise argparse.ArgumentTypeError(f"must be among {', '.join(programs)}, got {', '.join(unknown)}")
        return [programs[name] for name in text.split(",")]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", type=chosen, default=list(programs.values()), help="programs, in this order"
    )
    parser.add_argument("--steps-scale", type=float, default=1.0, help="share of the published steps")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=None)
    parser.add_argument("--precision", choices=("float32", "tensorfloat32"), default="float32")
    parser.add_argument("--width", type=int, default=None, help="other than the published 256, for a try")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=None, help="where compiled programs are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
