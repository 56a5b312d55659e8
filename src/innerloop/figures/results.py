"""Results of many predictors on many problems: the one table that Figure 1, Table 1 and the regrets are made of."""

import polars as pl

from innerloop.figures.style import is_floor
from innerloop.figures.table import Table, as_frame, names, numbers, refuse

COLUMNS = ("problem", "method", "layers", "value", "standard_error", "published")


def checked_results(table: Table, *, infinite: bool = False) -> pl.DataFrame:
    """The results as a frame with columns `COLUMNS`, each of its type; rows as given.

    Args:
        table: problem (the noise law as text, "uniform(0,5)"), method (on every problem one is "floor"),
            layers (null: a predictor without), value (adjusted loss, >= 0), standard_error (null: not known)
            and published (the paper's number as it is printed, since its digits say how it was rounded; null:
            none).
        infinite: an infinite `value`, of a model that blows up, is allowed; its standard error becomes null.

    Raises:
        ValueError: a column is missing, unexpected, of the wrong type, or has a forbidden entry; there are no
            rows; two rows are of the same problem, method and layers; or a problem has no floor.
    """
    frame = as_frame(table, COLUMNS)
    frame = frame.with_columns(names(frame["problem"]), names(frame["method"]), _printed(frame["published"]))
    frame = frame.with_columns(numbers(frame["value"], infinite=infinite))
    known = pl.when(pl.col("value").is_finite()).then("standard_error").alias("standard_error")
    frame = frame.with_columns(known)
    for name, least in [("layers", 1), ("value", 0), ("standard_error", 0)]:
        frame = frame.with_columns(numbers(frame[name], nullable=name != "value", infinite=infinite))
        refuse(frame, name, frame[name] < least, f"must be >= {least}")
    refuse(frame, "layers", frame["layers"] != frame["layers"].round(), "must hold whole numbers")
    same = frame.select("problem", "method", "layers").is_duplicated()
    refuse(frame, "layers", same, "must differ between the rows of one problem and method")
    floors = frame["problem"].filter(floor_rows(frame))
    for problem in frame["problem"].unique(maintain_order=True):
        if (count := floors.eq(problem).sum()) != 1:
            raise ValueError(
                f"every problem needs one row whose method is 'floor', got {count} for {problem!r}"
            )
    return frame.with_columns(pl.col("layers").cast(pl.Int64))


def floor_rows(frame: pl.DataFrame) -> pl.Series:
    """Which rows are the Bayes floor."""
    return frame["method"].map_elements(is_floor, return_dtype=pl.Boolean)


def _printed(column: pl.Series) -> pl.Series:
    """Numbers as text, or null."""
    if column.dtype not in (pl.String, pl.Null):
        raise ValueError(
            f"column '{column.name}' must hold numbers as they are printed, such as '0.040', got {column.dtype}"
        )
    text = column.cast(pl.String)
    number = text.cast(pl.Float64, strict=False)
    good = number.is_finite() & (number >= 0)
    refuse(
        text.to_frame(), column.name, text.is_not_null() & ~good.fill_null(False), "must hold numbers >= 0"
    )
    return text
