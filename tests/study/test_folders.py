"""Run folders by name: new ones, and the one that was meant."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from innerloop.study import SpecError
from innerloop.study.folders import found, meant, new_folder, places, why_no_run

NOON = datetime(2026, 3, 1, 12, 0, 0)


def run_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "spec.yaml").touch()
    return folder


def test_new_folders_are_never_the_same_and_in_the_order_of_their_times(tmp_path):
    times = [NOON, NOON, NOON, NOON.replace(second=1), NOON.replace(hour=13), NOON.replace(year=2027)]
    made = [new_folder(tmp_path / "runs", "diag-2l", time) for time in times]
    assert [path.name for path in made[:2]] == ["diag-2l-20260301-120000", "diag-2l-20260301-120000-2"]
    assert len(set(made)) == len(made) and made == sorted(made)


def test_a_new_folder_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(SpecError, match="cannot make the run folder .*diag-2l.*: Not a directory"):
        new_folder(tmp_path / "runs", "diag-2l", NOON)


def test_runs_are_found_inside_studies_but_not_inside_runs_or_what_is_hidden(tmp_path):
    runs = [run_in(tmp_path / name) for name in ("a", "deep/er/b", "study/runs/c", "a/inner", ".git/d", "_e")]
    assert sorted(found(tmp_path)) == runs[:3]
    assert list(found(tmp_path, starts="de")) == [runs[1]]
    assert list(found(tmp_path, deep=1)) == [runs[0]]
    assert list(found(tmp_path / "none")) == []


def test_places_are_studies_and_folders_of_runs(tmp_path):
    for name in ("one", "runs/two", "runs/study/runs/three"):
        run_in(tmp_path / name)
    (tmp_path / "runs" / "study" / "study.yaml").touch()
    assert places(tmp_path) == [tmp_path / "runs", tmp_path / "runs" / "study"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("runs/diga-2l", "did you mean runs/diag-2l-seed0-20260301-120000?"),
        ("diag-2l", "did you mean runs/diag-2l-seed0-20260301-120000?"),
        ("runs/gdpp", "did you mean runs/gdpp-1l-seed0?"),
        ("elsewhere/gdpp-1l-seed1", "did you mean runs/gdpp-1l-seed0?"),
        ("zzz", "the newest run here is runs/gdpp-1l-seed0"),
    ],
)
def test_the_run_that_was_meant(tmp_path, monkeypatch, asked, expected):
    monkeypatch.chdir(tmp_path)
    for day, name in enumerate(
        ("diag-2l-seed0-20260228-120000", "diag-2l-seed0-20260301-120000", "gdpp-1l-seed0")
    ):
        os.utime(run_in(Path("runs") / name) / "spec.yaml", (day, day))
    assert meant(Path(asked)) == f"; {expected}"


def test_what_is_said_of_folders_that_hold_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert why_no_run(Path("runs")) == (
        "runs is not a run: there is no such folder; there is no run here yet, innerloop train makes one"
    )
    run_in(Path("runs/one"))
    assert (
        why_no_run(Path("runs")) == "runs is not a run: it has no spec.yaml; it holds 1 run, such as runs/one"
    )
    Path("empty").mkdir()
    assert (
        why_no_run(Path("empty"))
        == "empty is not a run: it has no spec.yaml; the newest run here is runs/one"
    )
    assert meant(Path("nowhere"), "study") == "; there is no study here yet, innerloop sweep makes one"
