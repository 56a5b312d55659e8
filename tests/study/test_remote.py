"""Studies on object storage, against fsspec's in-memory one: all of it but the network, which test_s3.py adds."""

import re
import sys
import warnings
from pathlib import Path

import polars as pl
import pytest
from test_faults import Here, rows

from innerloop import cli
from innerloop.commands import judging
from innerloop.study import (
    SpecError,
    load_run,
    load_study,
    load_study_spec,
    make_plan,
    remote,
    run_study,
    train_run,
)
from innerloop.study.plan import Plan
from innerloop.study.remote import mirrored
from innerloop.study.runner import Task, do_task
from innerloop.study.store import Store
from innerloop.study.study import find_runs

fsspec = pytest.importorskip("fsspec")

ADDRESS = "memory://bucket/study"
STUDY = """\
name: faults
base:
  task: {dim: 3, context: 6, noise: "uniform(0,2)"}
  model: {kind: diag, layers: 1}
  train: {optimizer: adam, batch: 64, steps: 500, precision: float32}
  evaluate: {sequences: 1000}
axes:
  train.seed: [0, 1]
"""


@pytest.fixture(autouse=True)
def bucket():
    """The memory of all in-memory file systems, empty."""
    system = fsspec.filesystem("memory")
    for kept in (system.store, system.pseudo_dirs):
        kept.clear()
    return system


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    file = tmp_path_factory.mktemp("spec") / "study.yaml"
    file.write_text(STUDY)
    return make_plan(*load_study_spec(file))


@pytest.fixture(scope="module")
def unbroken(plan, tmp_path_factory) -> Path:
    """The same study in a folder."""
    folder = tmp_path_factory.mktemp("study") / "unbroken"
    assert run_study(plan, folder, Here()) == []
    return folder


@pytest.fixture
def stored(unbroken, bucket) -> str:
    """The address of the finished study."""
    files = [path for path in unbroken.rglob("*") if path.is_file()]
    bucket.put(list(map(str, files)), [f"/bucket/study/{path.relative_to(unbroken)}" for path in files])
    return ADDRESS


def objects(bucket, suffix: str = "") -> list[str]:
    return sorted(name for name in bucket.find("/bucket") if name.endswith(suffix))


def same(bucket, plan: Plan, unbroken: Path) -> bool:
    """Whether the bucket holds what the folder does: parameters bit for bit, rows but for times."""
    models = [
        (load_run(f"{ADDRESS}/runs/{run.name}"), load_run(unbroken / "runs" / run.name)) for run in plan.runs
    ]
    equal = all(
        (there.model.matrices()[k] == here.model.matrices()[k]).all()
        for there, here in models
        for k in (0, 1)
    )
    histories = all(
        there.history.drop("seconds").equals(here.history.drop("seconds")) for there, here in models
    )
    return equal and histories and rows(ADDRESS) == rows(unbroken) and bucket.exists("/bucket/study/done")


def cut(bucket, name: str) -> None:
    bucket.pipe_file(name, bucket.cat_file(name)[:-10])


# --- a study there is the study here


def test_a_study_on_object_storage_equals_the_one_in_a_folder(plan, bucket, unbroken):
    assert run_study(plan, ADDRESS, Here()) == []
    assert same(bucket, plan, unbroken)
    expected = {path.relative_to(unbroken).as_posix() for path in unbroken.rglob("*") if path.is_file()}
    plain = {name for name in expected if not re.match("tables/|locks/|.*/checkpoints/", name)}
    assert plain <= {name.removeprefix("/bucket/study/") for name in objects(bucket)}
    assert not objects(bucket, "group-0000")  # locks stay where they hold


def test_a_finished_study_is_left_as_it_is(plan, bucket, stored, unbroken):
    with pytest.raises(SpecError, match=f"{ADDRESS} already holds a study; go on with it by --resume"):
        run_study(plan, stored, Here())
    before = {name: bucket.cat_file(name) for name in objects(bucket)}
    assert run_study(plan, stored, Here(), resume=True) == []
    assert {name: bucket.cat_file(name) for name in objects(bucket)} == before


def test_what_lists_and_loads_takes_addresses(stored, unbroken):
    assert find_runs(stored).drop("seconds").equals(find_runs(unbroken).drop("seconds"))
    assert find_runs("memory://bucket").height == 2
    study = load_study(stored)
    assert (study.folder, study.query("train.seed = 1").height) == (stored, 1)
    name = study.runs["run"][0]
    run = load_run(f"{stored}/runs/{name}")
    assert run.folder == f"{stored}/runs/{name}"
    for nothing in (lambda: find_runs("memory://bucket/gone"), lambda: load_study("memory://bucket/gone")):
        with pytest.raises(FileNotFoundError, match="memory://bucket/gone"):
            nothing()
    with pytest.raises(SpecError, match="memory://bucket/gone is not a run: it has no spec.yaml"):
        load_run("memory://bucket/gone")


def test_runs_that_are_in_no_table_yet_are_listed(stored, bucket):
    for name in ("tables", "done"):
        bucket.rm(f"/bucket/study/{name}", recursive=True)
    assert find_runs(stored).select("study", "status").rows() == [("study", "done")] * 2


def test_commands_take_addresses_of_runs(stored, bucket, capsys, monkeypatch):
    names = load_study(stored).runs["run"].to_list()
    monkeypatch.setattr(
        judging, "_baselines", lambda *_: {"noise": "none", "dim": 3}
    )  # they take long, and have no address
    monkeypatch.setattr(
        sys, "argv", ["innerloop", "compare", *(f"{stored}/runs/{name}" for name in names), "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert f"{stored}/runs/{names[0]}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["innerloop", "evaluate", f"{stored}/runs/{names[0]}", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "adjusted_loss" in capsys.readouterr().out
    assert len(objects(bucket, f"{names[0]}/evaluation.json")) == 1


def test_one_run_may_be_trained_there_and_gone_on_with(plan, bucket, unbroken):
    planned, address, asked = plan.runs[0], "memory://bucket/alone", []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(Exception, match="^$"):  # Preempted
        train_run(planned.spec, address, stop=stop)
    assert objects(bucket, "alone/checkpoints/00000003.npz")
    run = train_run(planned.spec, address, resume=True)
    expected = load_run(unbroken / "runs" / planned.name)
    assert (run.model.matrices()[0] == expected.model.matrices()[0]).all()
    assert run.history["step"].to_list() == expected.history["step"].to_list()


def test_a_plain_folder_needs_no_fsspec(unbroken, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert load_study(str(unbroken)).runs.height == 2
    assert load_study(f"file://{unbroken}").folder == unbroken


# --- what is sent, and when


def tree(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        remote_file = path.with_suffix(".new")
        remote_file.write_text(text)
        remote_file.replace(path)  # as everything is written: a new file


def test_only_what_changed_is_sent_and_what_is_gone_is_deleted(bucket):
    with mirrored(ADDRESS) as mirror:
        tree(mirror.folder, a="1", b__c="2", b__d="3")
        (mirror.folder / ".a.12345678").write_text("half")
        assert [mirror.push(), mirror.push()] == [3, 0]
        tree(mirror.folder, a="4")
        (mirror.folder / "b" / "d").unlink()
        assert mirror.push() == 1
    assert objects(bucket) == ["/bucket/study/a", "/bucket/study/b/c"]
    with mirrored(ADDRESS) as mirror:
        mirror.pull("b")
        assert [path.name for path in mirror.folder.rglob("*")] == ["b", "c"]
        mirror.pull()
        assert (mirror.folder / "a").read_text() == "4"
        assert mirror.push() == 0
        folder = mirror.folder
    assert not folder.exists()


def test_a_mirror_deletes_nothing_that_it_does_not_know(bucket):
    with mirrored(ADDRESS) as one, mirrored(ADDRESS) as other:
        tree(one.folder, a="1")
        tree(other.folder, b="2")
        for each in (one, other):
            each.push()
        (one.folder / "a").unlink()
        one.push()
    assert objects(bucket) == ["/bucket/study/b"]


class Recorded:
    """The in-memory file system, with all that is done to it; `refuse` fails for the names that it says."""

    def __init__(self, system, refuse=lambda act, name: False):
        self._system, self._refuse, self.done = system, refuse, []

    def __getattr__(self, name):
        return getattr(self._system, name)

    def _note(self, act: str, paths: list[str]) -> None:
        for path in paths:
            if self._refuse(act, path):
                raise PermissionError(f"denied: {path}")
            self.done.append((act, path.removeprefix("/bucket/study/")))

    def put(self, here, there):
        self._note("put", there)
        self._system.put(here, there)

    def rm_file(self, path):
        self._note("rm", [path])
        self._system.rm_file(path)


def test_what_others_rely_on_is_sent_first(plan, bucket, monkeypatch):
    recorded = Recorded(bucket)
    monkeypatch.setattr(remote, "_file_system", lambda address: (recorded, "/bucket/study"))
    monkeypatch.setattr(remote, "_PUSH_EVERY", 0.0)
    assert run_study(plan, ADDRESS, Here()) == []
    done = [name for act, name in recorded.done if act == "put"]
    first = {name: done.index(name) for name in done}
    order = ["study.yaml", "/spec.yaml", "/metrics.parquet", ".npz", "/model.npz", "tables/history/"]
    order += ["tables/evaluations/", "tables/runs/", "done"]
    at = [min(place for name, place in first.items() if part in name) for part in order]
    assert at == sorted(at)
    last = {name: len(done) - done[::-1].index(name) for name in done}
    status = max(place for name, place in last.items() if name.endswith("status.json"))
    assert max(place for name, place in last.items() if name.endswith("model.npz")) < status < at[5] + 1


def test_a_push_after_a_checkpoint_waits_and_may_fail(bucket, monkeypatch):
    with mirrored(ADDRESS) as mirror:
        tree(mirror.folder, a="1")
        mirror.saved()
        tree(mirror.folder, a="2")
        mirror.saved()  # too soon
        assert bucket.cat_file("/bucket/study/a") == b"1"
        monkeypatch.setattr(remote, "_PUSH_EVERY", 0.0)
        mirror._system = Recorded(bucket, lambda act, name: True)
        with pytest.warns(
            UserWarning, match=f"cannot write {ADDRESS}: no permission .denied: .*; training goes on"
        ):
            mirror.saved()
        mirror._system = bucket
        mirror.saved()
        assert bucket.cat_file("/bucket/study/a") == b"2"


def test_what_is_replaced_between_listing_and_reading_is_listed_again(bucket):
    bucket.pipe_file("/bucket/study/old", b"1")
    bucket.pipe_file("/bucket/study/stays", b"2")

    class Slow(Recorded):
        def get(self, there, here):
            if bucket.exists("/bucket/study/old"):
                bucket.mv("/bucket/study/old", "/bucket/study/new")
            bucket.get(there, here)

    with mirrored(ADDRESS) as mirror:
        mirror._system = Slow(bucket)
        mirror.pull()
        found = {path.name: path.read_text() for path in mirror.folder.iterdir()}
    assert found == {"new": "1", "stays": "2"}


# --- compaction


@pytest.mark.parametrize("act", ["put", "rm"])
def test_a_compaction_that_fails_anywhere_loses_and_doubles_no_row(bucket, monkeypatch, act):
    monkeypatch.setattr("innerloop.study.store._COMPACT", 3)
    for number in range(5):
        with mirrored(ADDRESS) as mirror:
            above = mirror.names("tables/evaluations")
            row = {"run": f"run{number}", "name": "loss", "value": float(number), "standard_error": 0.1}
            Store(mirror.folder).add("evaluations", [row], above=above)
            mirror.push()

    def values() -> list[float]:
        with mirrored(ADDRESS) as mirror:
            mirror.pull("tables")
            return sorted(Store(mirror.folder).read("evaluations")["value"])

    assert values() == [0, 1, 2, 3, 4]
    refused = iter([False, False, True] if act == "rm" else [True])
    with mirrored(ADDRESS) as mirror:
        mirror.pull("tables")
        Store(mirror.folder).compact_if_many("evaluations")
        mirror._system = Recorded(bucket, lambda doing, name: doing == act and next(refused))
        with pytest.raises(SpecError, match=f"cannot write {ADDRESS}: no permission"):
            mirror.push()
        assert len(objects(bucket, ".parquet")) == (4 if act == "rm" else 5)
        assert values() == [0, 1, 2, 3, 4]
        mirror._system = bucket
        mirror.push()
    assert len(objects(bucket, ".parquet")) == 1
    assert values() == [0, 1, 2, 3, 4]


def test_rows_are_numbered_above_those_that_others_have_pushed(bucket):
    for value in (1.0, 2.0, 3.0):
        with mirrored(ADDRESS) as mirror:
            row = {"run": "a", "name": "loss", "value": value, "standard_error": 0.1}
            Store(mirror.folder).add("evaluations", [row], above=mirror.names("tables/evaluations"))
            mirror.push()
    with mirrored(ADDRESS) as mirror:
        mirror.pull("tables")
        assert Store(mirror.folder).read("evaluations")["value"].to_list() == [3.0]


# --- what befalls it


@pytest.mark.parametrize("table", ["runs", "history", "evaluations"])
def test_a_cut_table_file_comes_back(plan, bucket, stored, unbroken, table):
    (name,) = [name for name in objects(bucket, ".parquet") if f"tables/{table}/" in name]
    cut(bucket, name)
    with pytest.warns(UserWarning, match="is damaged; its rows come back when the study goes on by --resume"):
        assert len(getattr(load_study(stored), table)) == 0
    with pytest.warns(UserWarning, match="is damaged; its rows are made anew"):
        assert run_study(plan, stored, Here(), resume=True) == []
    assert same(bucket, plan, unbroken)


def test_a_study_cut_off_after_a_checkpoint_goes_on_from_it(plan, bucket, stored, unbroken):
    """One of the checkpoints is cut short, and the other run's is newer than what its metrics say."""
    bucket.rm("/bucket/study/tables", recursive=True)
    for name in (*objects(bucket, "model.npz"), *objects(bucket, "status.json")):
        bucket.rm_file(name)
    first, second = (f"/bucket/study/runs/{run.name}" for run in plan.runs)
    cut(bucket, sorted(bucket.find(f"{first}/checkpoints"))[-1])
    with mirrored(ADDRESS) as mirror:
        mirror.pull()
        metrics = mirror.folder / "runs" / plan.runs[1].name / "metrics.parquet"
        pl.read_parquet(metrics).head(3).write_parquet(mirror.folder / "cut")
        bucket.put_file(str(mirror.folder / "cut"), f"{second}/metrics.parquet")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*going back to the checkpoint before it")
        assert run_study(plan, stored, Here(), resume=True) == []
    assert same(bucket, plan, unbroken)


def test_a_damaged_model_is_named_by_its_address(plan, bucket, stored):
    name = plan.runs[0].name
    cut(bucket, f"/bucket/study/runs/{name}/model.npz")
    with pytest.raises(SpecError, match=f"^{ADDRESS}/runs/{name}/model.npz is damaged"):
        load_run(f"{stored}/runs/{name}")


def test_two_workers_at_one_group_end_as_one_does(plan, bucket, unbroken, monkeypatch):
    """The second begins when the first is in the middle, and is done before the first goes on."""
    monkeypatch.setattr(remote, "_PUSH_EVERY", 0.0)
    second = []

    def twice(message):
        if not second and message[1] > 0.5:
            second.append(True)
            do_task(Task(ADDRESS, plan.name, plan.groups[0]))

    assert run_study(plan, ADDRESS, Here(twice)) == []
    assert second and same(bucket, plan, unbroken)
    assert (
        len(objects(bucket, ".parquet")) - len(objects(bucket, "metrics.parquet")) == 6
    )  # each has added its rows


def test_what_cannot_be_pushed_at_the_end_is_a_failure_that_resume_mends(plan, bucket, unbroken, monkeypatch):
    monkeypatch.setattr(remote, "_file_system", lambda address: (recorded, "/bucket/study"))
    recorded = Recorded(bucket, lambda act, name: "tables" in name)
    (failed,) = run_study(plan, ADDRESS, Here())
    assert failed.error.startswith(f"cannot write {ADDRESS}: no permission (denied: ")
    monkeypatch.undo()
    assert run_study(plan, ADDRESS, Here(), resume=True) == []
    assert same(bucket, plan, unbroken)


# --- mistakes


@pytest.mark.parametrize(
    "address, said",
    [
        ("ftp://host/study", "results go to a folder, s3://, gs:// or file://, got ftp://"),
        ("s3://", "must name a bucket and a folder in it, such as s3://bucket/study"),
        ("s3://bucket/run*", "must name a bucket"),
        ("s3://bucket/../other", "must name a bucket"),
        ("file://study", "file:// takes an absolute path"),
        ("memory://study", "is memory of one process, for tests"),
    ],
)
def test_a_wrong_address_is_one_message_and_exit_code_2(address, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["innerloop", "sweep", "study.yaml", "--out", address])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2 and f"error: {address}" in error and said in error
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize("package", ["fsspec", "s3fs"])
def test_a_missing_package_is_one_message(package, monkeypatch):
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})  # of those that were imported before
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SpecError, match=r's3://b/study needs more packages: pip install "innerloop\[remote\]"'
    ):
        load_study("s3://b/study")


def test_an_address_that_cannot_be_written_is_said_before_anything_is_trained(plan, bucket, monkeypatch):
    recorded = Recorded(bucket, lambda act, name: True)
    monkeypatch.setattr(remote, "_file_system", lambda address: (recorded, "/bucket/study"))
    heard = []
    with pytest.raises(
        SpecError, match=f"cannot write {ADDRESS}: no permission .denied: /bucket/study/study.yaml"
    ):
        run_study(plan, ADDRESS, Here(heard.append))
    assert heard == []


def test_mlflow_needs_a_server_that_workers_share(plan, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(
        ValueError, match="--track mlflow with results at memory://.* set MLFLOW_TRACKING_URI"
    ):
        run_study(plan, ADDRESS, Here(), track=["mlflow"])
