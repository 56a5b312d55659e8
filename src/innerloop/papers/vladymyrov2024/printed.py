"""Table 1 of the paper, as data: adjusted evaluation losses (half squared error) for d = 10, n = 20."""

from functools import cache
from importlib.resources import files

import polars as pl

from innerloop.tasks import Categorical, Fixed, NoiseLaw, Uniform

DIM, CONTEXT = 10, 20


@cache
def table_1() -> pl.DataFrame:
    """Columns method, layers (null for baselines), noise (the law as text), value."""
    return printed_table_1().select(
        "method", "layers", noise="problem", value=pl.col("published").cast(pl.Float64)
    )


@cache
def printed_table_1() -> pl.DataFrame:
    """Columns problem (the law as text), method, layers (null for baselines), published (the number as it is printed)."""
    path = files("innerloop.papers") / "published" / "vladymyrov2024_table1.csv"
    wide = pl.read_csv(path.read_bytes(), infer_schema=False)
    columns = [name for name in wide.columns if name not in ("method", "layers")]
    long = wide.unpivot(columns, index=["method", "layers"], variable_name="column", value_name="published")
    names = pl.DataFrame({"column": columns, "problem": [str(_law(column)) for column in columns]})
    layers = pl.col("layers").cast(pl.Int64)
    return long.join(names, on="column").select("problem", "method", layers, "published")


def published(method: str, noise: NoiseLaw | str, layers: int | None = None) -> float | None:
    """One entry of Table 1, or None where the paper has none."""
    table = table_1()
    depth = pl.col("layers").is_null() if layers is None else pl.col("layers") == layers
    found = table.filter((pl.col("method") == method) & (pl.col("noise") == str(noise)) & depth)
    return found["value"][0] if len(found) else None


def _law(column: str) -> NoiseLaw:
    """`uniform_5` -> Uniform(0, 5), `uniform_0` -> Fixed(0), `categorical_1_3` -> Categorical(1, 3)."""
    name, *numbers = column.split("_")
    values = [float(number) for number in numbers]
    if name == "categorical":
        return Categorical(*values)
    return Uniform(0.0, values[0]) if values[0] > 0 else Fixed(0.0)
