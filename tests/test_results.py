"""The pages of results say what the stored results say."""

import importlib.util
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[1]


def test_the_page_of_the_first_path_is_made_from_its_stored_results():
    spec = importlib.util.spec_from_file_location("foundation", ROOT / "benchmarks" / "foundation.py")
    assert spec is not None and spec.loader is not None
    foundation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(foundation)
    stored = pl.read_parquet(ROOT / "docs" / "results" / "foundation.parquet")
    assert (ROOT / "docs" / "results" / "foundation.md").read_text() == foundation.page(stored)
    assert "training" in set(stored["group"])
