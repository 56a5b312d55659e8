"""What a reproduction says: questions, each with an answer in words and rows of numbers, as one tidy table.

Sentences and rows are made of measured frames; no number is typed.
"""

from collections.abc import Iterable
from typing import TypedDict

import polars as pl

from innerloop.report import Grid, number

SCHEMA = {
    "group": pl.String,
    "answer": pl.String,
    "what": pl.String,
    "bar": pl.String,
    "measured": pl.Float64,
    "standard_error": pl.Float64,
    "note": pl.String,
}


class Finding(TypedDict):
    """A number: what it is, what it is held against, its standard error (None: not known), and what to say of it."""

    what: str
    bar: str
    measured: float
    standard_error: float | None
    note: str


def finding(
    what: str, measured: float, error: float | None = None, *, bar: str = "", note: str = ""
) -> Finding:
    return {"what": what, "bar": bar, "measured": measured, "standard_error": error, "note": note}


def answered(question: str, answer: str, rows: Iterable[Finding]) -> pl.DataFrame:
    """The rows under their question; no rows if there is nothing to say."""
    stamped = [{"group": question, "answer": answer, **row} for row in rows]
    return pl.DataFrame(stamped, schema=SCHEMA, orient="row")


def grids(findings: pl.DataFrame) -> tuple[Grid, ...]:
    """A table of the report for each question."""
    return tuple(
        Grid(
            f"{question} {answer}",
            ("", "bar", "measured", "s.e.", ""),
            tuple(
                (row["what"], row["bar"], number(row["measured"]), _error(row["standard_error"]), row["note"])
                for row in own.iter_rows(named=True)
            ),
        )
        for (question, answer), own in findings.group_by("group", "answer", maintain_order=True)
    )


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
