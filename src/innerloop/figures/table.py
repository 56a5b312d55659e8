"""What a figure accepts as data: a Polars frame, or a mapping of column names to arrays; checked here."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import ArrayLike

Table = pl.DataFrame | Mapping[str, ArrayLike | Sequence]

SOURCES = ("ours", "published")


def checked(
    table: Table,
    *,
    x: str,
    whole: bool = False,
    positive: bool = False,
    texts: Sequence[str] = ("method",),
    error: bool = True,
    keys: Sequence[str] = (),
) -> pl.DataFrame:
    """The table as a frame with columns `texts`, `keys`, `x`, value, standard_error, each of its type.

    Args:
        table: one row a point. `standard_error` may be null where it is not known, as for published numbers.
        x: the column of the horizontal axis, >= 0.
        whole: `x` must hold whole numbers.
        positive: `value` must be positive, since its axis is logarithmic.
        texts: columns of names; one called source holds "ours" or "published".
        error: there is a column standard_error.
        keys: more columns of numbers that tell points apart, such as seed.

    Raises:
        ValueError: a column is missing, unexpected, of the wrong type, or has a null, NaN, infinite or
            forbidden entry; there are no rows; or two rows are the same point.
    """
    errors = ["standard_error"] if error else []
    frame = as_frame(table, [*texts, *keys, x, "value", *errors])
    for name in texts:
        frame = frame.with_columns(names(frame[name]))
    for name in [*keys, x, "value", *errors]:
        frame = frame.with_columns(numbers(frame[name], nullable=name == "standard_error"))
    refuse(frame, x, frame[x] < 0, "must be >= 0")
    if whole:
        refuse(frame, x, frame[x] != frame[x].round(), "must hold whole numbers")
    if positive:
        refuse(frame, "value", frame["value"] <= 0, "must be positive (its axis is logarithmic)")
    if error:
        refuse(frame, "standard_error", frame["standard_error"] < 0, "must be >= 0")
    if "source" in texts:
        refuse(frame, "source", ~frame["source"].is_in(SOURCES), f"must be one of {', '.join(SOURCES)}")
    one = " and ".join([name for name in texts if name != "source"] + list(keys))
    same = frame.select([*texts, *keys, x]).is_duplicated()
    refuse(frame, x, same, f"must differ between the rows of one {one}")
    return frame


def checked_level(name: str, value: float) -> float:
    """A horizontal line's height.

    Raises:
        ValueError: it is not finite, or negative.
    """
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
    return float(value)


def as_frame(table: Table, columns: Sequence[str]) -> pl.DataFrame:
    """The table as a frame with exactly these columns, in this order, and at least one row."""
    if not isinstance(table, pl.DataFrame):
        try:
            # Not strict: [1, 0.5] is a column of numbers.
            table = pl.DataFrame({name: _column(v) for name, v in table.items()}, strict=False)
        except (pl.exceptions.PolarsError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the data must be a Polars frame or columns of one length, got: {error}"
            ) from error
    for name in columns:
        if name not in table.columns:
            raise ValueError(
                f"column '{name}' is missing; needed: {', '.join(columns)}; got: {', '.join(table.columns)}"
            )
    for name in table.columns:
        if name not in columns:
            raise ValueError(f"column '{name}' is not expected; needed are exactly {', '.join(columns)}")
    if table.is_empty():
        raise ValueError("the data must have at least one row, got none")
    return table.select(columns)


def _column(values):
    # A JAX array is not known to Polars; NumPy reads it.
    return (
        np.asarray(values) if hasattr(values, "__array__") and not isinstance(values, pl.Series) else values
    )


def names(column: pl.Series) -> pl.Series:
    """The column as text, none of it null."""
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise ValueError(f"column '{column.name}' must hold text, got {column.dtype}")
    found = column.cast(pl.String)
    refuse(found.to_frame(), column.name, found.is_null(), "must not be null")
    return found


def numbers(column: pl.Series, *, nullable: bool = False, infinite: bool = False) -> pl.Series:
    """The column as floats, finite but where `nullable` (null) or `infinite` (plus infinity) allow."""
    if not (column.dtype.is_numeric() or (nullable and column.dtype == pl.Null)):
        raise ValueError(f"column '{column.name}' must hold numbers, got {column.dtype}")
    found = column.cast(pl.Float64)
    good = (found.is_finite() | (found == np.inf)) if infinite else found.is_finite()
    refuse(found.to_frame(), column.name, ~good.fill_null(nullable), "must be finite")
    return found


def refuse(frame: pl.DataFrame, name: str, bad: pl.Series, rule: str) -> None:
    """Raise a `ValueError` that names the column and the first of its `bad` rows, if there is one."""
    rows = bad.fill_null(False).arg_true()
    if len(rows):
        raise ValueError(
            f"column '{name}' {rule}, got {frame[name][rows[0]]!r} in row {rows[0]} (counted from 0)"
        )
