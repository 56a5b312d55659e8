"""The outputs of `innerloop reproduce goel2026`: pictures, and a table in CSV, of the frames that the jobs left."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from innerloop import figures
from innerloop.files import write_atomically
from innerloop.papers.findings import grids
from innerloop.papers.goel2026.drawn import Drawn
from innerloop.papers.goel2026.drawn_inside import attention, probes
from innerloop.papers.goel2026.drawn_matched import depth, matched, positions, shifts
from innerloop.papers.goel2026.drawn_published import curves, speed
from innerloop.papers.goel2026.findings import findings
from innerloop.report import Grid, Picture, Section, number


@dataclass(frozen=True)
class Output:
    """What can be asked for.

    Attributes:
        title: in the report.
        kinds: of the frames that it needs.
        draw: makes it of these, in order; told whether the published sizes were trained.
    """

    title: str
    kinds: tuple[str, ...]
    draw: Callable[..., Drawn]


def make(name: str, frames: dict[str, pl.DataFrame], published_sizes: bool, folder: Path) -> Section:
    """Draw the output `name`, write its files into `folder`, and give its part of the report."""
    output = OUTPUTS[name]
    drawn = output.draw(*(frames[kind] for kind in output.kinds), published_sizes)
    write_atomically(folder / f"{name}.csv", drawn.table.write_csv)
    if drawn.grids:
        return Section(name, output.title, grids=drawn.grids)
    table = drawn.table if drawn.shown is None else drawn.shown
    rows = tuple(tuple(_text(value) for value in row) for row in table.iter_rows())
    grid = Grid(drawn.caption, tuple(column.replace("_", " ") for column in table.columns), rows)
    if drawn.picture is None:
        return Section(name, output.title, grids=(grid,))
    figure, caption = drawn.picture
    picture = Picture(name, figures.save_and_show(figure, folder, name), caption)
    return Section(name, output.title, grids=(grid,), pictures=(picture,))


def _text(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _findings(as_published: pl.DataFrame, matched: pl.DataFrame, _: bool) -> Drawn:
    found = findings(as_published, matched)
    return Drawn(found, "", grids=grids(found))


OUTPUTS = {
    "curves": Output("As published", ("published",), curves),
    "speed": Output("How fast training is, as published", ("published",), speed),
    "matched": Output("On equal terms", ("matched",), matched),
    "depth": Output("Loss against depth", ("published", "matched"), depth),
    "shifts": Output("Test sets that differ from training", ("matched",), shifts),
    "positions": Output("Loss after every example", ("matched",), positions),
    "attention": Output("What heads attend to", ("attention",), attention),
    "probes": Output("How far each layer is from classical predictions", ("probes",), probes),
    "findings": Output("What it says", ("published", "matched"), _findings),
}
