"""The pages of results say what the stored results say."""

import importlib.util
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.stem for path in (ROOT / "docs" / "results").glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_made_from_its_stored_results(name):
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    assert spec is not None and spec.loader is not None
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    stored = pl.read_parquet(ROOT / "docs" / "results" / f"{name}.parquet")
    assert (ROOT / "docs" / "results" / f"{name}.md").read_text() == results.page(stored)
    assert stored["git_revision"].null_count() == 0 and (stored["wall_seconds"] > 0).all()


def test_there_are_pages():
    assert "foundation" in PAGES
