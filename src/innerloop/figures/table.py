"""What a figure accepts as data: a Polars frame, or a mapping of column names to arrays; checked here."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import ArrayLike

Table = pl.DataFrame | Mapping[str, ArrayLike | Sequence]

SOURCES = ("ours", "published")


def checked(table: Table, *, x: str, whole: bool, positive: bool, sourced: bool = False) -> pl.DataFrame:
    """The table as a frame with columns method, `x`, value, standard_error (and source), each of its type.

    Args:
        table: one row a point. `standard_error` may be null where it is not known, as for published numbers.
        x: the column of the horizontal axis, >= 0.
        whole: `x` must hold whole numbers.
        positive: `value` must be positive, since its axis is logarithmic.
        sourced: there is a column source, "ours" or "published".

    Raises:
        ValueError: a column is missing, unexpected, of the wrong type, or has a null, NaN, infinite or
            forbidden entry; there are no rows; or two rows are the same point.
    """
    names = ["method", x, "value", "standard_error", *(["source"] if sourced else [])]
    frame = _frame(table, names)
    for name in ["method", "source"][: 1 + sourced]:
        if frame[name].dtype not in (pl.String, pl.Categorical, pl.Enum):
            raise ValueError(f"column '{name}' must hold text, got {frame[name].dtype}")
        frame = frame.with_columns(pl.col(name).cast(pl.String))
        _refuse(frame, name, frame[name].is_null(), "must not be null")
    for name in [x, "value", "standard_error"]:
        frame = frame.with_columns(_numbers(frame[name], nullable=name == "standard_error"))
    _refuse(frame, x, frame[x] < 0, "must be >= 0")
    if whole:
        _refuse(frame, x, frame[x] != frame[x].round(), "must hold whole numbers")
    if positive:
        _refuse(frame, "value", frame["value"] <= 0, "must be positive (its axis is logarithmic)")
    _refuse(frame, "standard_error", frame["standard_error"] < 0, "must be >= 0")
    if sourced:
        _refuse(frame, "source", ~frame["source"].is_in(SOURCES), f"must be one of {', '.join(SOURCES)}")
    point = ["method", x, "source"] if sourced else ["method", x]
    _refuse(frame, x, frame.select(point).is_duplicated(), "must differ between the rows of one method")
    return frame


def checked_level(name: str, value: float) -> float:
    """A horizontal line's height.

    Raises:
        ValueError: it is not finite, or negative.
    """
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
    return float(value)


def _frame(table: Table, names: list[str]) -> pl.DataFrame:
    if not isinstance(table, pl.DataFrame):
        try:
            # Not strict: [1, 0.5] is a column of numbers.
            table = pl.DataFrame({name: _column(v) for name, v in table.items()}, strict=False)
        except (pl.exceptions.PolarsError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the data must be a Polars frame or columns of one length, got: {error}"
            ) from error
    for name in names:
        if name not in table.columns:
            raise ValueError(
                f"column '{name}' is missing; needed: {', '.join(names)}; got: {', '.join(table.columns)}"
            )
    for name in table.columns:
        if name not in names:
            raise ValueError(f"column '{name}' is not expected; the figure takes exactly {', '.join(names)}")
    if table.is_empty():
        raise ValueError("the data must have at least one row, got none")
    return table.select(names)


def _column(values):
    # A JAX array is not known to Polars; NumPy reads it.
    return (
        np.asarray(values) if hasattr(values, "__array__") and not isinstance(values, pl.Series) else values
    )


def _numbers(column: pl.Series, *, nullable: bool) -> pl.Series:
    if not (column.dtype.is_numeric() or (nullable and column.dtype == pl.Null)):
        raise ValueError(f"column '{column.name}' must hold numbers, got {column.dtype}")
    numbers = column.cast(pl.Float64)
    bad = ~numbers.is_finite() if nullable else ~numbers.is_finite().fill_null(False)
    _refuse(numbers.to_frame(), column.name, bad, "must be finite")
    return numbers


def _refuse(frame: pl.DataFrame, name: str, bad: pl.Series, rule: str) -> None:
    rows = bad.fill_null(False).arg_true()
    if len(rows):
        raise ValueError(
            f"column '{name}' {rule}, got {frame[name][rows[0]]!r} in row {rows[0]} (counted from 0)"
        )
