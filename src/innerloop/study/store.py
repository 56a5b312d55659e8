"""The tables of a study: Parquet files that are only ever added, and questions to them in SQL.

    tables/runs/000000-xxxxxxxx.parquet          one row a run: status, spec, losses, seconds
    tables/history/..                            one row a run and reporting interval
    tables/evaluations/..                        one row a run and quantity: name, value, standard_error

A file is written whole or not at all, under a name that no other process takes, so any number of processes may add to a
study. A row that is added again replaces the one before it (by the number in the file's name, never by a clock), so
work that is repeated after a crash doubles nothing. What cannot be read is passed over with a warning, and comes back
from the run folders when the study goes on.

Only Polars and DuckDB are imported here: questions are answered without waiting for JAX.
"""

import secrets
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from innerloop.files import write_atomically
from innerloop.study.sql import KEYS, VERSION, ask, files_of, literal, newest_rows, number_of, version_of

_COMPACT = 64  # files of a table, beyond which they become one

_MATRIX = pl.List(pl.List(pl.Float64))
_TASK = {
    "kind": pl.String,
    "dim": pl.Int64,
    "context": pl.Int64,
    "noise": pl.String,
    "input_covariance": _MATRIX,
    "weight_covariance": _MATRIX,
}
_MODEL = {"kind": pl.String, "layers": pl.Int64, "heads": pl.Int64, "init_scale": pl.Float64}
_TRAIN = {
    "objective": pl.String,
    "optimizer": pl.String,
    "steps": pl.Int64,
    "batch": pl.Int64,
    "learning_rate": pl.Float64,
    "temper": pl.Float64,
    "guard": pl.Float64,
    "warm": pl.Boolean,
    "start": pl.String,
    "starts": pl.Int64,
    "sample": pl.Int64,
    "tail": pl.Float64,
    "seed": pl.Int64,
    "data_seed": pl.Int64,
    "devices": pl.Int64,
    "precision": pl.String,
}
_EVALUATE = {"sequences": pl.Int64, "seed": pl.Int64}

SCHEMAS: dict[str, dict[str, Any]] = {
    "runs": {
        "run": pl.String,
        "study": pl.String,
        "group": pl.String,
        "status": pl.String,
        "task": pl.Struct(_TASK),
        "model": pl.Struct(_MODEL),
        "train": pl.Struct(_TRAIN),
        "evaluate": pl.Struct(_EVALUATE),
        "adjusted_loss": pl.Float64,
        "adjusted_loss_se": pl.Float64,
        "regret": pl.Float64,
        "regret_se": pl.Float64,
        "floor": pl.Float64,
        "worst_share": pl.Float64,
        "not_finite": pl.Int64,
        "skipped": pl.Int64,
        "seconds": pl.Float64,
        "revision": pl.String,
    },
    "history": {
        "run": pl.String,
        "step": pl.Int64,
        "phase": pl.String,
        "layers": pl.Int64,
        "loss": pl.Float64,
        "regret": pl.Float64,
        "seconds": pl.Float64,
        "skipped": pl.Int64,
        "damping": pl.Float64,
    },
    "evaluations": {"run": pl.String, "name": pl.String, "value": pl.Float64, "standard_error": pl.Float64},
}


@dataclass(frozen=True)
class Store:
    """The tables in a study's folder."""

    folder: Path

    def add(self, table: str, rows: Iterable[dict], *, above: Iterable[str] = ()) -> None:
        """Add rows to `table`, all of them or none; a row of the same key that is there already is replaced.

        Args:
            above: names of files of the table that are elsewhere; the rows replace theirs too.
        """
        frame = _typed(pl.DataFrame(list(rows), schema=SCHEMAS[table], strict=False), table)
        frame = frame.unique(KEYS[table], keep="last", maintain_order=True)
        if len(frame):
            there = [number_of(Path(name)) for name in above]
            number = 1 + max(
                [*there, *(number_of(file) for file in files_of(self.folder, table))], default=-1
            )
            self._write(table, frame, number)
            self.compact_if_many(table)

    def compact_if_many(self, table: str) -> None:
        """Make one file of all that are there if they are so many that reading them takes long."""
        if len(files_of(self.folder, table)) > _COMPACT:
            self.compact(table)

    def read(self, table: str) -> pl.DataFrame:
        """All rows of `table`, the newest of each key."""
        return self.query(table)

    def query(self, table: str, where: str | None = None) -> pl.DataFrame:
        """The rows of `table` for which the SQL condition `where` holds.

        Raises:
            QueryError: `where` is not a condition on the table's columns.
        """
        return self._selected(table, where)[1]

    def compact(self, table: str) -> None:
        """Make one file of all that are there now; a crash in between leaves rows twice on disk, and once to readers."""
        files, frame = self._selected(table, None)
        if files:  # as old as the newest of them: a row that is added in the meantime is newer
            self._write(table, frame, number_of(files[-1]))
        for file in files:
            file.unlink(missing_ok=True)

    def set_aside(self, table: str) -> list[Path]:
        """Rename the files that do not read, so that readers see them no more; where they are now.

        Warns:
            UserWarning: for each of them.
        """
        aside = []
        for file in files_of(self.folder, table):
            if not _whole(file) and file.exists():
                aside.append(file.rename(file.with_name(f"{file.name}.damaged")))
                warnings.warn(f"{file} is damaged; its rows are made anew", stacklevel=2)
        return aside

    def _selected(self, table: str, where: str | None) -> tuple[list[Path], pl.DataFrame]:
        for _ in range(5):  # another process may compact the table between the listing and the reading
            try:
                if files := self._readable(table):
                    return files, select(newest_rows(files, table), where)
            except (duckdb.IOException, FileNotFoundError):
                continue
            return [], select(pl.DataFrame(schema=SCHEMAS[table]), where)
        raise OSError(f"{self.folder}: the files of table {table} keep changing")

    def _write(self, table: str, frame: pl.DataFrame, number: int) -> None:
        folder = self.folder / "tables" / table
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number:06d}-v{VERSION}-{secrets.token_hex(4)}.parquet"
        write_atomically(path, lambda file: frame.write_parquet(file))

    def _readable(self, table: str) -> list[Path]:
        """The files that are whole and of today's schema; older ones are rewritten first."""
        found = []
        for file in files_of(self.folder, table):
            if version_of(file) > VERSION:
                raise ValueError(
                    f"{file} was written by a newer innerloop (schema {version_of(file)}, here {VERSION}); update this one"
                )
            if _whole(file):
                found.append(file if version_of(file) == VERSION else self._migrated(file, table))
            elif not file.exists():
                raise FileNotFoundError(file)  # its rows are in a file that this listing has not
            else:
                warnings.warn(
                    f"{file} is damaged; its rows come back when the study goes on by --resume", stacklevel=3
                )
        return list(
            dict.fromkeys(found)
        )  # after a crash, an old file and what it was migrated to are both there

    def _migrated(self, file: Path, table: str) -> Path:
        """The file rewritten in today's schema, under the same number, so that it stays as old as it was."""
        path = file.with_name(f"{file.name[:6]}-v{VERSION}-{file.stem.split('-')[-1]}.parquet")
        frame = _typed(pl.read_parquet(file, glob=False), table)
        write_atomically(path, lambda out: frame.write_parquet(out))
        file.unlink(missing_ok=True)
        return path


def select(relation: str | pl.DataFrame, where: str | None) -> pl.DataFrame:
    """The rows of a frame or SQL relation for which a condition holds.

    Raises:
        QueryError: it is not a condition on the columns; with DuckDB's own words.
    """
    if isinstance(relation, str):
        return ask(relation, where, pl.DataFrame)
    with tempfile.TemporaryDirectory() as folder:  # DuckDB would need PyArrow to read the frame itself
        relation.write_parquet(Path(folder) / "given.parquet")
        return ask(f"read_parquet({literal(Path(folder) / 'given.parquet')})", where, pl.DataFrame)


def _typed(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """The frame with today's columns: those it lacks are null, those that are gone are left out."""
    return frame.select(
        _column(frame.schema.get(name), pl.col(name) if name in frame.columns else pl.lit(None), dtype).alias(
            name
        )
        for name, dtype in SCHEMAS[table].items()
    )


def _column(now: Any, column: pl.Expr, dtype: Any) -> pl.Expr:
    if not isinstance(dtype, pl.Struct) or not isinstance(now, pl.Struct):
        return column.cast(dtype)
    have = {field.name for field in now.fields}
    return pl.struct(
        (column.struct.field(field.name) if field.name in have else pl.lit(None))
        .cast(field.dtype)
        .alias(field.name)
        for field in dtype.fields
    )


def _whole(file: Path) -> bool:
    """Whether a Parquet file has both its ends, which one that was cut short has not, and a footer that reads."""
    try:
        with file.open("rb") as opened:
            head = opened.read(4)
            opened.seek(-4, 2)
            if head != b"PAR1" or opened.read(4) != b"PAR1":
                return False
            opened.seek(0)
            pl.read_parquet_schema(opened)
        return True
    except (OSError, pl.exceptions.PolarsError):
        return False
