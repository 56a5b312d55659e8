"""A report as one self-contained HTML file: sections of tables and pictures, and how they came about."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from innerloop.files import write_atomically


@dataclass(frozen=True)
class Picture:
    """A figure as an `<svg>` element, its name and what it shows."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Grid:
    """A plain table: what it shows, its columns' names and its rows as text."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: to link to it.
        title: above it.
        html: a table that is made already, or "".
        grids: more tables.
        pictures: figures.
    """

    name: str
    title: str
    html: str = ""
    grids: tuple[Grid, ...] = ()
    pictures: tuple[Picture, ...] = field(default=(), repr=False)


def write_document(
    path: Path,
    *,
    title: str,
    introduction: str,
    sections: tuple[Section, ...],
    facts: dict[str, str],
    style: str = "",
) -> Path:
    """Write the page of these sections, `facts` about their making at the end; returns its path."""
    parts = {
        "title": title,
        "introduction": introduction,
        "sections": sections,
        "facts": facts,
        "style": style,
    }
    return render(path, "document.html.jinja", **parts)


def render(path: Path, template: str, **parts: Any) -> Path:
    """Write the page that one of this package's templates makes of its parts; returns its path."""
    loader = jinja2.PackageLoader("innerloop", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.get_template(template).render(**parts)
    write_atomically(path, lambda file: file.write(page.encode()))
    return path


def number(value: float | None) -> str:
    """Four significant digits without an exponent where that reads well."""
    if value is None:
        return "–"
    if value != value:
        return "not finite"
    if value != 0 and abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:.5f}" if abs(value) < 1 else f"{value:.4f}"
