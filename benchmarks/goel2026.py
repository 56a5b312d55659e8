"""Trains Goel et al.'s (2026) grid as published, all seeds of a program at once, and writes a Parquet file for each.

    python benchmarks/goel2026.py --out runs/goel2026                       # the whole grid; meant for a GPU
    python benchmarks/goel2026.py --only linear-6,quadratic-3 --out DIR     # two of the six programs
    python benchmarks/goel2026.py --steps-scale 0.01 --seeds 42,7 --out DIR # a try
    python benchmarks/goel2026.py --store --out DIR                         # trains nothing: what DIR has becomes
                                                                            # docs/results/goel2026.{parquet,md}
    python benchmarks/goel2026.py --draw                                    # the figure anew, from the stored curves

The programs that say most come first, so that a run that is cut short leaves the most.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
import polars as pl
from results import RESULTS, page, row

from innerloop import figures
from innerloop.evaluation.convergence import ratio_of_means, samples_to
from innerloop.papers.goel2026 import Program, Trained, grid, train
from innerloop.study.run import git_revision

# The paper, or, for three layers, its public notebooks; the tolerance is about two standard deviations of a seed there.
_PRINTED = {"quadratic-3": (0.089, 0.02), "quadratic-6": (0.0365, 0.012), "linear-6": (0.0302, 0.012)}


def main() -> None:
    options = _parse()
    if options.store:
        store(options.out)
    if options.store or options.draw:
        draw(pl.read_parquet(RESULTS / "goel2026-curves.parquet"))
        return
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
        "git_revision": git_revision(),
        "precision": options.precision,
        "jax": jax.__version__,
        "steps": int(trained.losses["step"].max()),  # pyright: ignore[reportArgumentType]
        "parameters": trained.parameters,
        "compile_seconds": round(trained.compile_seconds, 2),
        "run_seconds": round(trained.run_seconds, 2),
    }
    (options.out / f"{program.name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def store(folder: Path) -> None:
    """The curves of all programs as one table, and the page of what they say."""
    facts = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    curves = pl.concat([pl.read_parquet(folder / f"{name}.parquet") for name in facts])
    curves.write_parquet(RESULTS / "goel2026-curves.parquet", compression_level=19)
    rows = [
        *(_last_point_row(name, _curves(curves, name), fact) for name, fact in facts.items()),
        *(_degradation_row(name, _curves(curves, name)) for name in facts),
        *(_samples_row(name, _curves(curves, name)) for name in facts),
        *(_ratio_row(layers, curves) for layers in (1, 3, 6)),
        _time_row(facts),
    ]
    any_fact = next(iter(facts.values()))
    stamp = {
        "page": "Linear against softmax attention, as published",
        "command": "python benchmarks/goel2026.py",
        "seed": "42, 100, 7, 10, 2025",
        "git_revision": any_fact["git_revision"],
        "machine": f"{any_fact['device']}",
        "jax": any_fact["jax"],
        "wall_seconds": sum(fact["compile_seconds"] + fact["run_seconds"] for fact in facts.values()),
    }
    frame = pl.DataFrame([entry | stamp for entry in rows], infer_schema_length=None)
    frame.write_parquet(RESULTS / "goel2026.parquet")
    (RESULTS / "goel2026.md").write_text(page(frame))


def draw(curves: pl.DataFrame) -> None:
    """The test loss of all programs as a picture."""
    last = curves.filter(
        (pl.col("set") == "isotropic")
        & (pl.col("position") == curves["position"].max())
        & (pl.col("sequences_seen") > 0)
    ).sort("layers", "architecture", "seed", "step")
    method = pl.col("architecture").replace({"quadratic": "softmax"})
    table = last.select(
        pl.format("{} layers", "layers").replace({"1 layers": "1 layer"}).alias("panel"),
        method.alias("method"),
        "seed",
        pl.col("sequences_seen").alias("sequences"),
        pl.col("loss").alias("value"),
    )
    printed = {
        (f"{name[-1]} layers", "softmax" if name.startswith("quadratic") else "linear"): value
        for name, (value, _) in _PRINTED.items()
    }
    figure = figures.losses_while_training(
        table, loss="test loss at the last point (squared error / 5)", published=printed
    )
    figure.savefig(RESULTS.parent / "figures" / "goel2026_as_published.png", dpi=200)


def _curves(curves: pl.DataFrame, name: str) -> dict[str, pl.DataFrame]:
    """The last point's loss of one program on each set, a column a seed."""
    architecture, layers = name.split("-")
    last = curves.filter(
        (pl.col("architecture") == architecture)
        & (pl.col("layers") == int(layers))
        & (pl.col("position") == curves["position"].max())
    )
    return {
        name: last.filter(pl.col("set") == name).pivot(on="seed", index="sequences_seen", values="loss")
        for name in ("isotropic", "anisotropic")
    }


def _finals(table: pl.DataFrame) -> np.ndarray:
    return table.drop("sequences_seen").tail(1).to_numpy()[0].astype(float)


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _spelt(name: str) -> str:
    architecture, layers = name.split("-")
    return (
        f"{'softmax' if architecture == 'quadratic' else architecture}, {layers} layer{'s' * (layers != '1')}"
    )


def _last_point_row(name: str, tables: dict[str, pl.DataFrame], facts: dict) -> dict:
    final = _finals(tables["isotropic"])
    bar = "{} +- {}".format(*_PRINTED[name]) if name in _PRINTED else ""
    note = (
        f"s.d. over {len(final)} seeds {final.std(ddof=1):.2g}; {facts['parameters']} parameters, "
        f"{facts['steps']} steps, {facts['precision']}; {facts['compile_seconds']:.0f} s of compilation, "
        f"{facts['run_seconds']:.0f} s of training"
    )
    what = f"{_spelt(name)}: mean over seeds"
    return row(_LAST_POINT, what, bar, float(final.mean()), error=_spread(final), note=note)


def _degradation_row(name: str, tables: dict[str, pl.DataFrame]) -> dict:
    ratio = _finals(tables["anisotropic"]) / _finals(tables["isotropic"]) - 1
    return row(
        "Loss with the weights of the anisotropic set / with those of training, minus one (published: below 0.1)",
        _spelt(name),
        "",
        float(ratio.mean()),
        error=_spread(ratio),
        note="by seed " + ", ".join(f"{each:.3f}" for each in ratio),
    )


def _samples(tables: dict[str, pl.DataFrame]) -> np.ndarray:
    table = tables["isotropic"].sort("sequences_seen")
    losses = table.drop("sequences_seen").to_numpy().T
    return samples_to(table["sequences_seen"].to_numpy(), losses, 0.9) / 1000


def _samples_row(name: str, tables: dict[str, pl.DataFrame]) -> dict:
    found = _samples(tables)
    note = "by seed " + ", ".join(f"{each:.0f}" for each in found)
    what = f"{_spelt(name)}: thousands of sequences, mean over seeds"
    return row(_SAMPLES, what, "", float(found.mean()), error=_spread(found), note=note)


def _ratio_row(layers: int, curves: pl.DataFrame) -> dict:
    softmax, linear = (_samples(_curves(curves, f"{name}-{layers}")) for name in ("quadratic", "linear"))
    ratio, low, high = ratio_of_means(softmax, linear)
    return row(
        _SAMPLES,
        f"softmax / linear, {layers} layer{'s' * (layers > 1)} (published: 1.6)",
        "",
        ratio,
        note=f"95 % bootstrap interval over seeds {low:.2f} to {high:.2f}; learning rates, batches and steps differ as in "
        "the public code",
    )


def _time_row(facts: dict[str, dict]) -> dict:
    compiled, run = (
        sum(fact[name] for fact in facts.values()) for name in ("compile_seconds", "run_seconds")
    )
    note = (
        f"{compiled:.0f} s of compilation, {run:.0f} s of training, the five seeds of a program side by side"
    )
    return row("Time", "the whole grid, 30 runs, seconds", "<= 600", compiled + run, note=note)


_LAST_POINT = "Loss at the last of 10 points, squared error / 5"
_SAMPLES = "Training sequences until the test loss has covered 90 % of its way from first to best"


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
    parser.add_argument("--store", action="store_true", help="make the page of what --out has; train nothing")
    parser.add_argument("--draw", action="store_true", help="draw what is stored; train nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/goel2026"))
    parser.add_argument("--cache", type=Path, default=None, help="where compiled programs are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
