"""Questions in SQL to the Parquet files of a study's tables.

Only DuckDB is imported here: `innerloop runs` has its answer in the time that the import of a data frame library takes.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import duckdb

VERSION = 2  # of the schema of the tables
KEYS = {"runs": ("run",), "history": ("run", "step"), "evaluations": ("run", "name")}

Answer = TypeVar("Answer")

_NOT_A_CONDITION = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
)


class QueryError(ValueError):
    """A condition is not SQL, or names a column that is not there."""


def ask(relation: str, where: str | None, answer: Callable[[duckdb.DuckDBPyRelation], Answer]) -> Answer:
    """What `answer` makes of the rows of a SQL relation for which a condition holds.

    Raises:
        QueryError: it is not a condition on the columns; with DuckDB's own words.
    """
    with duckdb.connect() as connection:
        query = f"select * from {relation}" + (f" where ({where}\n)" if where else "")
        try:
            return answer(connection.sql(query))
        except _NOT_A_CONDITION as error:
            reason = str(error).splitlines()[0]
            raise QueryError(f"where: {where!r} is not a condition on the runs: {reason}") from None


def newest_rows(files: Iterable[Path], table: str) -> str:
    """A relation of the newest row of each key of `table`, which is in the file whose number is highest."""
    files = list(files)
    source = f"read_parquet([{', '.join(map(literal, files))}], filename = true, union_by_name = true)"
    if len(files) == 1:
        return f"(select * exclude (filename) from {source})"
    # Only keys are compared, not whole rows: that takes a third of the time. A file has a key at most once.
    key = ", ".join(KEYS[table])
    newest = f"(select {key}, max(filename) as filename from {source} group by {key})"
    return f"(select * exclude (filename) from {source} semi join {newest} using ({key}, filename))"


def literal(file: Path) -> str:
    """A path in SQL, of this file alone whatever its name: DuckDB takes *, ? and [ for patterns."""
    return "'" + re.sub(r"[*?[]", r"[\g<0>]", str(file)).replace("'", "''") + "'"


def files_of(study: Path, table: str) -> list[Path]:
    """The files of a table, oldest first."""
    return sorted((study / "tables" / table).glob("[0-9]*.parquet"))


def number_of(file: Path) -> int:
    """Of a table's file: of two rows with one key, that of the higher number counts."""
    return int(file.name[:6])


def version_of(file: Path) -> int:
    """Of the schema that a file was written in; the first had none in its name."""
    parts = file.stem.split("-")
    return int(parts[1][1:]) if len(parts) == 3 else 1
