"""Studies and loose runs on disk: where they are found, what is read from where, and what that imports."""

import json
import subprocess
import sys

import polars as pl
import pytest

from innerloop.study import load_study, parse_spec
from innerloop.study.listing import list_runs
from innerloop.study.sql import QueryError
from innerloop.study.store import SCHEMAS, Store
from innerloop.study.study import find_runs

SPECS = {
    "diag": parse_spec({"model": {"kind": "diag", "layers": 2}}),
    "full": parse_spec({"model": {"kind": "full"}, "train": {"seed": 3, "learning_rate": 0.5}}),
    "gd": parse_spec({"task": {"dim": 2, "input_covariance": [[2, 0], [0, 1]]}, "model": {"kind": "gd++"}}),
}
EVALUATION = {"adjusted_loss": 0.125, "adjusted_loss_se": 0.5, "worst_share": None, "not_finite": 0}


def make_run(folder, spec, status="done", evaluation=None, revision=None):
    """A run folder as training and `innerloop evaluate` leave it, as far as a listing looks."""
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec.to_yaml())
    if status is not None:
        (folder / "status.json").write_text(json.dumps({"status": status, "seconds": 2.5}))
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    if revision is not None:
        (folder / "environment.json").write_text(json.dumps({"git_revision": revision}))
    return folder


def recorded(name, spec, **more):
    return {"run": name, "study": "sweep", "status": "done", **spec.model_dump(mode="json"), **more}


def make_study(folder, *names):
    """A study whose tables have the runs of these names."""
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("name: sweep\n")
    store = Store(folder)
    store.add("history", [{"run": name, "step": step, "loss": 1 / step} for name in names for step in (1, 2)])
    store.add(
        "evaluations",
        [{"run": name, "name": "regret", "value": 0.5, "standard_error": 0.1} for name in names],
    )
    store.add("runs", [recorded(name, SPECS[name], adjusted_loss=0.1 * n) for n, name in enumerate(names, 1)])
    return folder


def listed(frame: pl.DataFrame, *columns: str) -> list[tuple]:
    return sorted(frame.select("run", *columns).rows())


@pytest.fixture
def folder(tmp_path):
    """A study of two runs, two loose runs, and what is neither."""
    make_study(tmp_path / "sweep", "diag", "full")
    make_run(tmp_path / "alone", SPECS["gd"], evaluation=EVALUATION, revision="abc123")
    make_run(tmp_path / "fresh", SPECS["diag"], status="running")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").write_text("neither")
    return tmp_path


# --- load_study


def test_a_study_has_the_rows_of_its_three_tables(folder):
    study = load_study(folder / "sweep")
    assert study.folder == folder / "sweep"
    assert listed(study.runs, "adjusted_loss") == [("diag", 0.1), ("full", 0.2)]
    assert listed(study.history, "step", "loss") == [
        (run, step, 1 / step) for run in ("diag", "full") for step in (1, 2)
    ]
    assert listed(study.evaluations, "name", "value") == [("diag", "regret", 0.5), ("full", "regret", 0.5)]
    assert study.runs.filter(run="full")["train"].to_list() == [SPECS["full"].model_dump()["train"]]


def test_a_study_is_loaded_from_a_path_in_text(folder):
    assert load_study(str(folder / "sweep")).runs.height == 2


def test_a_study_that_has_just_begun_has_empty_tables(tmp_path):
    (tmp_path / "study.yaml").write_text("name: new\n")
    study = load_study(tmp_path)
    for table in SCHEMAS:
        frame = getattr(study, table)
        assert (frame.height, frame.schema) == (0, pl.Schema(SCHEMAS[table]))


def test_a_study_s_runs_are_asked_in_sql(folder):
    study = load_study(folder / "sweep")
    assert listed(study.query("model.kind = 'diag' and adjusted_loss < 0.15")) == [("diag",)]
    assert listed(study.query("train.learning_rate = 0.5")) == [("full",)]
    with pytest.raises(QueryError, match="losss"):
        study.query("losss < 1")


@pytest.mark.parametrize("name", ["gone", "alone", "notes"])
def test_a_folder_without_study_yaml_is_no_study(folder, name):
    with pytest.raises(FileNotFoundError, match=f"{name} is not a study: it has no study.yaml"):
        load_study(folder / name)


# --- find_runs


def test_the_runs_of_a_study_and_loose_ones_are_found_together(folder):
    frame = find_runs(folder)
    assert frame.schema == pl.Schema(SCHEMAS["runs"])
    assert listed(frame, "study", "status", "adjusted_loss") == [
        ("alone", None, "done", 0.125),
        ("diag", "sweep", "done", 0.1),
        ("fresh", None, "running", None),
        ("full", "sweep", "done", 0.2),
    ]


def test_a_loose_run_says_what_is_in_its_folder(folder):
    (found,) = find_runs(folder, "run = 'alone'").to_dicts()
    spec = SPECS["gd"].model_dump(mode="json")
    assert {section: found[section] for section in spec} == spec
    assert {name: found[name] for name in EVALUATION} == EVALUATION
    assert (found["seconds"], found["revision"], found["group"]) == (2.5, "abc123", None)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("model.kind = 'diag'", ["diag", "fresh"]),
        ("model.kind = 'diag' and status = 'done'", ["diag"]),
        ("study is null", ["alone", "fresh"]),
        ("adjusted_loss < 0.15", ["alone", "diag"]),
        ("task.dim = 2", ["alone"]),
        ("false", []),
    ],
)
def test_a_condition_holds_for_runs_of_both_kinds(folder, where, expected):
    assert [run for (run,) in listed(find_runs(folder, where))] == expected


@pytest.mark.parametrize("where", ["losss < 1", "model.kind ="])
def test_a_wrong_condition_is_refused_wherever_the_runs_are(folder, where):
    for place in (folder, folder / "sweep", folder / "notes"):
        with pytest.raises(QueryError, match="is not a condition on the runs"):
            find_runs(place, where)


def test_a_study_s_own_folder_lists_its_runs_only(folder):
    assert listed(find_runs(folder / "sweep")) == [("diag",), ("full",)]
    assert listed(find_runs(folder / "sweep", "model.kind = 'full'")) == [("full",)]


def test_runs_that_are_not_in_the_tables_yet_are_read_from_their_folders(folder):
    sweep = folder / "sweep"
    make_run(sweep / "runs" / "gd", SPECS["gd"], status="running")
    make_run(sweep / "runs" / "diag", SPECS["diag"], status="running")  # the tables know better
    expected = [("diag", "sweep", "done"), ("full", "sweep", "done"), ("gd", "sweep", "running")]
    assert listed(find_runs(sweep), "study", "status") == expected
    loose = [("alone", None, "done"), ("fresh", None, "running")]
    assert listed(find_runs(folder), "study", "status") == sorted(expected + loose, key=lambda row: row[0])


def test_a_study_of_which_no_run_is_recorded_yet_is_read_from_its_folders(tmp_path):
    (tmp_path / "study.yaml").write_text("name: new\n")
    make_run(tmp_path / "runs" / "gd", SPECS["gd"], status="running")
    assert listed(find_runs(tmp_path), "status") == [("gd", "running")]


def test_several_studies_are_listed_each_with_its_name(tmp_path):
    make_study(tmp_path / "sweep", "diag")
    other = make_study(tmp_path / "other")
    make_run(other / "runs" / "diag", SPECS["diag"])
    frame = find_runs(tmp_path)
    assert sorted(frame.select("study", "run").rows()) == [("other", "diag"), ("sweep", "diag")]


@pytest.mark.parametrize("broken", ["status.json", "evaluation.json"])
def test_a_run_with_a_broken_file_is_listed_without_what_it_would_say(tmp_path, broken):
    run = make_run(tmp_path / "alone", SPECS["gd"], evaluation=EVALUATION)
    (run / broken).write_text('{"status": "do')
    lost = {"status.json": (None, 0.125), "evaluation.json": ("done", None)}[broken]
    assert listed(find_runs(tmp_path), "status", "adjusted_loss") == [("alone", *lost)]


def test_a_run_that_has_not_begun_is_listed_without_a_status(tmp_path):
    make_run(tmp_path / "alone", SPECS["gd"], status=None)
    assert listed(find_runs(tmp_path), "status", "seconds") == [("alone", None, None)]


def test_a_folder_without_runs_gives_an_empty_table(folder):
    frame = find_runs(folder / "notes")
    assert (frame.height, frame.schema) == (0, pl.Schema(SCHEMAS["runs"]))


@pytest.mark.parametrize("name", ["gone", "notes.txt"])
def test_a_folder_that_is_not_there_is_an_error(folder, name):
    with pytest.raises(FileNotFoundError, match=f"there is no folder .*{name}"):
        find_runs(folder / name)


# --- what a question imports


@pytest.mark.parametrize("module", ["innerloop.study.store", "innerloop.study.study"])
def test_tables_are_read_without_jax(module):
    script = (
        f"import sys, {module}; print([name for name in ('jax', 'innerloop.models') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_runs_are_found_and_a_study_loaded_without_jax(folder):
    script = (
        "import sys; from pathlib import Path; from innerloop import load_study;"
        "from innerloop.study.study import find_runs; folder = Path(sys.argv[1]);"
        "print(find_runs(folder, \"model.kind = 'diag'\").height, load_study(folder / 'sweep').runs.height);"
        "print('jax' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.split()) == (0, ["2", "2", "False"]), done.stderr


# --- what `innerloop runs` prints


@pytest.fixture
def finished(tmp_path):
    """A study that says it is done, of four runs in three files, one of them recorded twice."""
    folder = tmp_path / "finished"
    folder.mkdir()
    (folder / "study.yaml").write_text("name: finished")
    store = Store(folder)
    for losses in ({"a": 9.0, "b": 0.5}, {"a": 0.25, "c": None}, {"d": float("nan")}):
        spec = parse_spec({"model": {"layers": 4}}).model_dump(mode="json")
        store.add(
            "runs",
            [
                {"run": run, "study": "finished", **spec, "adjusted_loss": loss}
                for run, loss in losses.items()
            ],
        )
    (folder / "done").touch()
    return folder


def test_a_finished_study_is_listed_best_first_with_the_newest_row_of_each_run(finished):
    rows = list_runs(str(finished))
    assert [row["run"] for row in rows] == ["a", "b", "c", "d"]
    assert rows[0]["adjusted_loss"] == 0.25
    assert rows[0]["spec"] == parse_spec({"model": {"layers": 4}}).model_dump(mode="json")
    assert "model" not in rows[0]


@pytest.mark.parametrize("where", [None, "model.layers = 4 and adjusted_loss < 1"])
def test_both_ways_to_list_a_study_agree(finished, where):
    quick = list_runs(str(finished), where)
    (finished / "done").unlink()  # now run folders are looked for as well
    assert repr(list_runs(str(finished), where)) == repr(quick)  # repr: NaN is not itself


def test_a_finished_study_with_a_damaged_file_is_listed_with_a_warning(finished):
    last = sorted((finished / "tables" / "runs").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged"):
        rows = list_runs(str(finished))
    assert [row["run"] for row in rows] == ["a", "b", "c"]


def test_a_finished_study_is_listed_without_a_data_frame_library(finished):
    script = (
        "import sys; from innerloop.study.listing import list_runs; print(len(list_runs(sys.argv[1])));"
        "print([name for name in ('jax', 'polars', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(finished)], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["4", "[]"]), done.stderr
