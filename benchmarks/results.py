"""How measured results are stored, `docs/results/NAME.parquet`, and the page that is made of them."""

import argparse
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import polars as pl

from innerloop.study.run import git_revision

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def row(
    group: str, what: str, bar: str, measured: float, *, error: float | None = None, note: str = ""
) -> dict:
    """One measured number beside the bar that it should meet."""
    return {
        "group": group,
        "what": what,
        "bar": bar,
        "measured": measured,
        "standard_error": error,
        "note": note,
    }


def record(
    name: str, title: str, groups: Mapping[str, Callable[[], list[dict]]], about: str | None, seed: int = 0
) -> None:
    """Measure the groups that the command line asks for, and store them beside the others.

    What an accelerator measures is stored beside what CPUs did, as groups that name it.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=groups, action="append")
    chosen = parser.parse_args().only or list(groups)
    path = RESULTS / f"{name}.parquet"
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = pl.read_parquet(path) if path.exists() else None
    device = jax.devices()[0]
    for group in chosen:
        began = time.perf_counter()
        rows = groups[group]()
        if device.platform != "cpu":
            rows = [entry | {"group": f"{entry['group']}, {device.device_kind}"} for entry in rows]
        stamp = {
            "page": title,
            "command": f"python benchmarks/{name}.py",
            "seed": seed,
            "git_revision": git_revision(),
            "machine": f"{platform.machine()}, {device.platform}, {device.device_kind}",
            "jax": jax.__version__,
            "wall_seconds": time.perf_counter() - began,
        }
        frame = pl.DataFrame([entry | stamp for entry in rows], infer_schema_length=None).with_columns(
            pl.col("standard_error").cast(pl.Float64)
        )
        measured = frame["group"].unique().to_list()
        others = [] if kept is None else [kept.filter(~pl.col("group").is_in(measured))]
        kept = pl.concat([*others, frame], how="diagonal")
        kept.write_parquet(path)
        (RESULTS / f"{name}.md").write_text(page(kept))
        print(frame.select("what", "bar", "measured", "standard_error"))


def stamp_of(ran: pl.DataFrame) -> dict:
    """What measured it, of the sessions of a command (`innerloop.papers.sessions`)."""

    def distinct(values: pl.Series) -> str:
        return "; ".join(values.unique(maintain_order=True))

    return {
        "git_revision": distinct(ran["git_revision"]),
        "machine": distinct(ran.select(pl.format("{}, {}, {}", "platform", "backend", "device")).to_series()),
        "jax": distinct(ran["jax"]),
        "wall_seconds": float(ran["seconds"].sum()),
    }


def page(frame: pl.DataFrame) -> str:
    """The results as a page of the documentation."""
    last = frame.row(-1, named=True)
    lines = [f"# {last['page']}", "", f"Written by `{last['command']}`; do not edit.", ""]
    for (group,), own in frame.group_by("group", maintain_order=True):
        answer = [own["answer"][0], ""] if own.get_column("answer", default=None) is not None else []
        lines += [
            f"## {str(group)[0].upper()}{str(group)[1:]}",
            "",
            *answer,
            "| what | bar | measured | s.e. | note |",
            "| --- | --- | --- | --- | --- |",
        ]
        for entry in own.iter_rows(named=True):
            error = "" if entry["standard_error"] is None else f"{entry['standard_error']:.2g}"
            lines.append(
                f"| {entry['what']} | {entry['bar']} | {entry['measured']:.5g} | {error} | {entry['note']} |"
            )
        lines.append("")
    lines += [
        "## What measured it",
        "",
        "| group | revision | seed | machine | JAX | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in frame.unique("group", keep="first", maintain_order=True).iter_rows(named=True):
        lines.append(
            f"| {entry['group']} | {entry['git_revision']} | {entry['seed']} | {entry['machine']} | {entry['jax']} | "
            f"{entry['wall_seconds']:.0f} |"
        )
    lines += ["", "A revision that ends in -dirty had changes that were not yet committed.", ""]
    return "\n".join(lines)
