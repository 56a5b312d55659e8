"""The pages of results say what the stored results say."""

import importlib
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.stem for path in (ROOT / "docs" / "results").glob("*.md"))


def benchmark(name: str, monkeypatch) -> ModuleType:
    """A script of `benchmarks`, as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_made_from_its_stored_results(name, monkeypatch):
    stored = pl.read_parquet(ROOT / "docs" / "results" / f"{name}.parquet")
    assert (ROOT / "docs" / "results" / f"{name}.md").read_text() == benchmark("results", monkeypatch).page(
        stored
    )
    assert stored["git_revision"].null_count() == 0 and (stored["wall_seconds"] > 0).all()


def test_there_are_pages():
    assert "foundation" in PAGES


def test_a_page_of_what_is_not_all_trained_says_what_its_folder_holds(monkeypatch, tmp_path):
    """Of 18 arms 16 are stored beside the page; without another, whose rows then go, 3 are missing; without any no page."""
    reproduced = benchmark("reproduced", monkeypatch)
    folder = tmp_path / "goel2026-full"
    shutil.copytree(ROOT / "docs" / "results" / "goel2026-full", folder)
    stored = pl.read_parquet(ROOT / "docs" / "results" / "goel2026-full.parquet")
    budget, found, lacks, _ = reproduced._goel2026(folder)
    shown = stored.filter(pl.col("group").is_in(found["group"].to_list()))
    assert budget == "full"
    assert shown.select("group", "answer", "what", "note").equals(
        found.select("group", "answer", "what", "note")
    )
    np.testing.assert_allclose(shown["measured"], found["measured"], rtol=1e-6)  # over platforms
    assert [row["measured"] for row in lacks] == [16, 6] and lacks[0]["bar"] == "18"
    (folder / "measured" / "matched-linear-relu2-adam-fresh.parquet").unlink()
    _, fewer, lacks, _ = reproduced._goel2026(folder)
    gone = set(found["what"]) - set(fewer["what"])
    assert gone == {"3 layers, Adam, fresh sequences", "3 layers, Adam, linear", "3 layers, linear"} | {
        what for what in gone if what.startswith("3 layers, Adam: ")
    }
    assert lacks[0]["measured"] == 15 and "linear-relu2-adam-fresh" in lacks[0]["note"]
    shutil.rmtree(folder / "measured")
    with pytest.raises(SystemExit, match="no arm on equal terms"):
        reproduced._goel2026(folder)
