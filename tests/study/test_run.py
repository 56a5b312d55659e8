"""Run folders: what is in them, that they load as they were trained, and that nothing overwrites them."""

import json
import re
import shutil
import zipfile

import numpy as np
import polars as pl
import pytest

from innerloop import train
from innerloop.evaluation import evaluate
from innerloop.study import SpecError, load_run, load_spec, parse_spec, train_run
from innerloop.study import run as run_module

MAPPING = {
    "task": {"dim": 2, "context": 6, "noise": "uniform(0,2)"},
    "model": {"kind": "gd++", "layers": 2},
    "train": {"optimizer": "levenberg-marquardt", "steps": 2, "sample": 32},
    "evaluate": {"sequences": 500},
}
SPEC = parse_spec(MAPPING)
OTHER = parse_spec(MAPPING | {"model": {"kind": "gd++", "layers": 1}})


def contents(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and the reports that it gave."""
    reports = []
    run = train_run(SPEC, tmp_path_factory.mktemp("runs") / "deep" / "run", report=reports.append)
    return run, reports


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run's folder, to spoil."""
    return shutil.copytree(finished[0].folder, tmp_path / "copy")


def test_the_folder_has_all_that_is_needed_to_repeat_the_run(finished):
    run, _ = finished
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "spec.yaml",
        "environment.json",
        "status.json",
        "metrics.parquet",
        "checkpoints",
        "model.npz",
    }
    assert load_spec(run.folder / "spec.yaml") == SPEC
    status = json.loads((run.folder / "status.json").read_text())
    assert status["status"] == "done" and 0 < status["seconds"] == run.seconds
    found = json.loads((run.folder / "environment.json").read_text())
    assert {"python", "jax", "jaxlib", "equinox", "optax", "numpy", "innerloop", "device"} <= found.keys()
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?|unknown", found["git_revision"])
    assert found["numpy"] == np.__version__
    assert list((run.folder / "checkpoints").glob("*.npz"))


def test_metrics_have_one_row_an_interval(finished):
    run, reports = finished
    rows = pl.read_parquet(run.folder / "metrics.parquet")
    assert rows["step"].to_list() == list(range(1, len(reports) + 1))
    assert rows.to_dicts() == [report.row for report in reports]
    assert run.history.equals(rows)
    assert {"step", "phase", "layers", "loss", "regret", "seconds"} <= set(rows.columns)
    assert reports[-1].progress == 1


def test_a_loaded_run_is_the_trained_one_to_the_bit(finished):
    run, _ = finished
    again = load_run(str(run.folder))
    assert again.spec == SPEC
    assert set(again.by_depth) == {1, 2}
    assert again.exact_model.layers == again.model.layers == 2
    for name in ("float32", "float64"):
        ours, theirs = (
            evaluate(r.exact_model, SPEC.task.build(), sequences=500, precision=name) for r in (run, again)
        )
        assert ours == theirs
        assert 0 < ours.regret.value < 0.5, "training did better than predicting zero, which loses about 0.7"
    with zipfile.ZipFile(run.folder / "model.npz") as archive:
        assert archive.testzip() is None
    with np.load(run.folder / "model.npz") as arrays:
        assert arrays["2/0"].dtype == np.float64, "in the precision of training"


def test_the_same_spec_gives_the_same_model_and_another_seed_another(finished, tmp_path):
    run, _ = finished
    again = train_run(SPEC, tmp_path / "again")
    np.testing.assert_array_equal(again.exact_model.w, run.exact_model.w)  # type: ignore[attr-defined]


def test_an_existing_run_is_left_alone(copied):
    before = contents(copied)
    with pytest.raises(
        SpecError, match="already holds a run; go on with it by --resume, or choose another --out"
    ):
        train_run(SPEC, copied)
    with pytest.raises(SpecError, match="already holds a run"):
        train_run(OTHER, copied)
    with pytest.raises(SpecError, match=r"holds a run of another spec \(gdpp-2l-d2-n6-uniform-0-2-seed0\)"):
        train_run(OTHER, copied, resume=True)
    assert contents(copied) == before


def test_resuming_a_finished_run_returns_it(copied, monkeypatch):
    before = contents(copied)
    monkeypatch.setattr(run_module, "fit_together", None)  # it must not train
    run = train_run(SPEC, copied, resume=True)
    assert run.model.layers == 2
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "stopped"), (RuntimeError("out of memory"), "failed")]
)
def test_a_run_that_ends_early_says_so_and_goes_on_to_the_same_end(finished, tmp_path, error, status):
    """Stopped after its second interval: the resumed run has the model of one that was never stopped."""
    folder = tmp_path / "run"

    def stop(report):
        if report.row["step"] == 2:
            raise error

    with pytest.raises(type(error)):
        train_run(SPEC, folder, report=stop)
    assert json.loads((folder / "status.json").read_text())["status"] == status
    assert pl.read_parquet(folder / "metrics.parquet")["step"].to_list() == [1, 2]
    with pytest.raises(
        SpecError, match=rf"no trained model yet \(status {status}\); go on with it by .*--resume"
    ):
        load_run(folder)
    run = train_run(SPEC, folder, resume=True)
    assert json.loads((folder / "status.json").read_text())["status"] == "done"
    np.testing.assert_array_equal(run.exact_model.w, finished[0].exact_model.w)
    steps = pl.read_parquet(folder / "metrics.parquet")["step"].to_list()
    assert steps == finished[0].history["step"].to_list(), "no interval twice, none missing"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            SpecError, match="cannot write to the run folder .*file.*(exists|Not a directory)"
        ):
            train_run(SPEC, folder)
    assert (tmp_path / "file").read_text() == "in the way"


def test_what_is_not_a_run(tmp_path):
    (tmp_path / "file").touch()
    for name, why in (
        ("", "it has no spec.yaml"),
        ("no", "there is no such folder"),
        ("file", "it is a file"),
    ):
        with pytest.raises(SpecError, match=f"is not a run: {why}"):
            load_run(tmp_path / name)


@pytest.mark.parametrize("spoil", ["cut", "noise", "empty", "bit", "member"])
def test_a_damaged_model_is_named(copied, spoil):
    path = copied / "model.npz"
    content = path.read_bytes()
    if spoil == "member":
        np.savez(path, **{"2/0": np.zeros((2, 2))[:0]})
    else:
        middle = content.index(b"NUMPY") + 130  # inside the first array's numbers
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-40], "noise": b"noise" * 99, "empty": b"", "bit": flipped}[spoil])
    with pytest.raises(SpecError, match="model.npz is damaged.*train again by --resume"):
        load_run(copied)


def test_a_damaged_spec_is_named(copied):
    (copied / "spec.yaml").write_text("task: {dim: [")
    with pytest.raises(SpecError, match="spec.yaml cannot be read"):
        load_run(copied)
    (copied / "spec.yaml").write_text("task: {dmi: 3}")
    with pytest.raises(SpecError, match="task.dmi: unknown key; did you mean dim"):
        load_run(copied)


def test_the_revision_outside_a_checkout_is_the_environments_or_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("INNERLOOP_REVISION", raising=False)
    assert run_module.git_revision.__wrapped__() == "unknown"  # what is known already is not asked again
    monkeypatch.setenv("INNERLOOP_REVISION", "0123456789ab")
    assert run_module.git_revision.__wrapped__() == "0123456789ab"


def test_the_options_of_a_spec_are_those_of_fit():
    assert set(SPEC.train.model_dump()) == set(train.Training.model_fields)
