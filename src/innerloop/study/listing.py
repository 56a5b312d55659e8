"""What `innerloop runs` prints, without a data frame library where DuckDB can say it all."""

from pathlib import Path

import duckdb

from innerloop.study.sql import VERSION, QueryError, ask, files_of, newest_rows, version_of

_SECTIONS = ("task", "model", "train", "evaluate")


def list_runs(folder: str, where: str | None = None) -> list[dict]:
    """The rows of `innerloop.study.study.find_runs`, best first, each with the sections of its spec under `spec`.

    Raises:
        As `find_runs`.
    """
    rows = _of_a_finished_study(Path(folder), where)
    if rows is None:
        from innerloop.study.study import find_runs

        rows = find_runs(folder, where).to_dicts()
    rows.sort(key=_loss_and_name)
    return [
        {name: value for name, value in row.items() if name not in _SECTIONS}
        | {"spec": {name: row[name] for name in _SECTIONS}}
        for row in rows
    ]


def _of_a_finished_study(folder: Path, where: str | None) -> list[dict] | None:
    """The rows, if all there are stand in files of today's schema that read."""
    if not ((folder / "study.yaml").exists() and (folder / "done").exists()):
        return None
    files = files_of(folder, "runs")
    if not files or any(version_of(file) != VERSION for file in files):
        return None
    try:
        return ask(newest_rows(files, "runs"), where, _dicts)
    except (
        duckdb.Error,
        QueryError,
    ):  # a file is damaged or gone, or the condition is wrong: to be said at leisure
        return None


def _dicts(relation: duckdb.DuckDBPyRelation) -> list[dict]:
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def _loss_and_name(row: dict) -> tuple[float, str]:
    """NaN and null come last."""
    loss = row["adjusted_loss"]
    return (loss if loss is not None and loss == loss else float("inf")), row["run"]
