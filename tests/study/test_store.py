"""Tables on disk: what is added comes back once, whatever happens in between, and conditions in SQL select from it."""

import errno
import multiprocessing
import os
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop import files as files_module
from innerloop import study
from innerloop.study import store as store_module
from innerloop.study.sql import VERSION, QueryError
from innerloop.study.store import SCHEMAS, Store, select

FULL = {"optimizer": "adam"}


def row(run: str, loss: float | None = None, **sections) -> dict:
    """A row of the table of runs."""
    spec = study.parse_spec(sections).model_dump(mode="json")
    return {"run": run, "study": "mine", "status": "done", **spec, "adjusted_loss": loss}


def value(run: str, value: float, name: str = "loss") -> dict:
    """A row of the table of evaluations."""
    return {"run": run, "name": name, "value": value, "standard_error": 0.5}


def losses(store: Store) -> dict[str, float]:
    """Of each run in the evaluations its value; no run is there twice."""
    frame = store.read("evaluations")
    assert frame["run"].is_unique().all()
    return dict(zip(frame["run"], frame["value"], strict=True))


def parquet(store: Store, table: str = "evaluations") -> list[Path]:
    return sorted((store.folder / "tables" / table).glob("*.parquet"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


# --- what is added comes back


def test_a_run_comes_back_as_it_was_added(store):
    covariance = [[2.0, 0.5], [0.5, 1.0]]
    added = row("a", 0.25, task={"dim": 2, "input_covariance": covariance}, train={"seed": 3})
    store.add("runs", [added])
    (back,) = store.read("runs").to_dicts()
    assert {name: back[name] for name in added} == added
    assert {name for name in back if back[name] is None} == SCHEMAS["runs"].keys() - added.keys()


@pytest.mark.parametrize("table", SCHEMAS)
def test_a_table_has_its_columns_before_and_after_the_first_row(store, table):
    assert store.read(table).schema == pl.Schema(SCHEMAS[table])
    assert len(store.read(table)) == 0
    store.add(table, [{"run": "a", "step": 1, "name": "loss"}])
    assert store.read(table).schema == pl.Schema(SCHEMAS[table])
    assert len(store.read(table)) == 1


def test_rows_of_several_additions_are_all_there(store):
    for start in (0, 3, 6):
        store.add("evaluations", [value(str(index), index) for index in range(start, start + 3)])
    assert losses(store) == {str(index): index for index in range(9)}


def test_tables_do_not_mix(store):
    store.add("evaluations", [value("a", 1)])
    store.add("runs", [row("b")])
    assert [store.read(table)["run"].to_list() for table in SCHEMAS] == [["b"], [], ["a"]]


def test_adding_nothing_writes_nothing(store):
    store.add("evaluations", [])
    assert contents(store.folder) == {}


@pytest.mark.parametrize(
    ("table", "key"),
    [("runs", ("run",)), ("history", ("run", "step")), ("evaluations", ("run", "name"))],
)
def test_a_row_added_again_replaces_the_one_of_its_key_only(store, table, key):
    number = {"runs": "seconds", "history": "seconds", "evaluations": "value"}[table]
    first = {"run": "a", "step": 1, "name": "loss"}
    second = first | {"run": "b", "step": 2, "name": "regret"}
    known = [{name: first[name] for name in key}, {name: second[name] for name in key}]
    store.add(table, [known[0] | {number: 1.0}, known[1] | {number: 2.0}])
    store.add(table, [known[0] | {number: 3.0}])
    rows = store.read(table).sort(*key).select(*key, number).to_dicts()
    assert rows == [known[0] | {number: 3.0}, known[1] | {number: 2.0}]


def test_a_new_row_that_lacks_a_value_does_not_keep_the_old_one(store):
    store.add("runs", [row("a", 0.5)])
    store.add("runs", [row("a", None) | {"status": "failed"}])
    assert store.read("runs").select("status", "adjusted_loss").rows() == [("failed", None)]


def test_the_highest_number_wins_whatever_the_clock_says(store):
    for number in range(3):
        store.add("evaluations", [value("a", number)])
    for age, file in enumerate(parquet(store)):
        os.utime(file, (2e9 - 1e6 * age,) * 2)
    times = [file.stat().st_mtime for file in parquet(store)]
    assert times == sorted(times, reverse=True)
    assert losses(store) == {"a": 2}
    store.compact("evaluations")
    assert losses(store) == {"a": 2}


@pytest.mark.parametrize("name", ["it's", "a[1]", "a*", "a?b", "[!a]", "two words", "{a,b}", "Größe"])
def test_a_folder_may_have_any_name(tmp_path, name):
    store, other = Store(tmp_path / name), Store(tmp_path / "a1")
    other.add("evaluations", [value("x", 9)])
    store.add("evaluations", [value("a", 1), value("b", 2)])
    store.add("evaluations", [value("a", 3)])
    assert losses(store) == {"a": 3, "b": 2}
    store.compact("evaluations")
    assert losses(store) == {"a": 3, "b": 2}


# --- conditions


@pytest.fixture
def three(store) -> Store:
    store.add("runs", [row("diag", 0.1, model={"kind": "diag", "layers": 2})])
    store.add("runs", [row("full", 0.2, model={"kind": "full"}, train={"seed": 5, "learning_rate": 0.1})])
    store.add("runs", [row("gd", None, model={"kind": "gd++", "layers": 2}) | {"status": "failed"}])
    return store


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, {"diag", "full", "gd"}),
        ("true", {"diag", "full", "gd"}),
        ("false", set()),
        ("model.kind = 'diag'", {"diag"}),
        ("model.layers = 2 and status = 'done'", {"diag"}),
        ("model.layers = 2 or train.seed = 5", {"diag", "full", "gd"}),
        ("train.learning_rate is not null", {"full"}),
        ("adjusted_loss < 0.15", {"diag"}),
        ("not adjusted_loss < 0.15", {"full"}),
        ("adjusted_loss is null", {"gd"}),
        ("run like '%g%'", {"diag", "gd"}),
        ("model.kind in ('gd++', 'full')  -- a remark", {"full", "gd"}),
        ("adjusted_loss = (select 0.1)", {"diag"}),
    ],
)
def test_a_condition_selects_its_rows(three, where, expected):
    assert set(three.query("runs", where)["run"]) == expected


def test_a_condition_sees_a_run_s_newest_row_only(three):
    three.add("runs", [row("diag", 0.3, model={"kind": "diag", "layers": 7})])
    assert len(three.query("runs", "model.layers = 2 and model.kind = 'diag'")) == 0
    assert three.query("runs", "model.layers = 7")["adjusted_loss"].to_list() == [0.3]


WRONG = {
    "unknown column": ("losss = 1", '"losss" not found'),
    "unknown field": ("model.layres = 1", "layres"),
    "half a condition": ("adjusted_loss <", "syntax error"),
    "blank": ("  ", "syntax error"),
    "a remark": ("-- nothing", "syntax error"),
    "text for a number": ("adjusted_loss = 'low'", "Could not convert string 'low'"),
    "no truth": ("run", "BOOL"),
    "an aggregate": ("count(*) > 1", "cannot contain aggregates"),
    "unknown table": ("adjusted_loss < (select max(x) from y)", "Table with name y does not exist"),
    "unknown function": ("best(adjusted_loss)", "Function with name best does not exist"),
    "a second statement": ("true; drop table x", 'at or near ";"'),
    "a closed bracket": ("run = 'a') union (select 1", "same number of result columns"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_condition_is_refused_in_one_line_with_the_reason(three, name):
    where, reason = WRONG[name]
    with pytest.raises(QueryError) as caught:
        three.query("runs", where)
    message = str(caught.value)
    assert message.startswith(f"where: {where!r} is not a condition on the runs: ")
    assert reason in message
    assert "\n" not in message


def test_a_wrong_condition_is_refused_when_there_are_no_rows_too(store):
    assert len(store.query("runs", "model.kind = 'diag'")) == 0
    with pytest.raises(QueryError, match="losss"):
        store.query("runs", "losss = 1")


def test_a_frame_is_asked_as_a_table_is(three):
    frame = three.read("runs")
    assert select(frame, "model.kind = 'diag'")["run"].to_list() == ["diag"]
    assert select(frame, None).sort("run").equals(frame.sort("run"))
    with pytest.raises(QueryError, match="losss"):
        select(frame, "losss = 1")


# --- several processes


def _add_many(folder: Path, mine: str, count: int, barrier) -> None:
    store_module._COMPACT = 5
    store = Store(folder)
    barrier.wait(60)
    for index in range(count):
        store.add("evaluations", [value(f"{mine}{index}", index), value("shared", index, mine)])
        assert len(store.query("evaluations", f"run like '{mine}%'")) == index + 1


def test_two_processes_that_add_and_compact_at_once_lose_and_double_nothing(store):
    context = multiprocessing.get_context("spawn")
    barrier, count = context.Barrier(2), 10
    arguments = [(store.folder, mine, count, barrier) for mine in "ab"]
    processes = [context.Process(target=_add_many, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0, 0]
    rows = store.read("evaluations").select("run", "name", "value").rows()
    own = [(f"{mine}{index}", "loss", index) for mine in "ab" for index in range(count)]
    assert sorted(rows) == sorted([*own, ("shared", "a", count - 1), ("shared", "b", count - 1)])


def test_a_row_added_while_the_table_is_compacted_is_newer_than_the_compacted_one(store, monkeypatch):
    for number in range(3):
        store.add("evaluations", [value("a", number), value(f"b{number}", number)])

    def slow(relation, where):
        frame = select(relation, where)
        store.add("evaluations", [value("a", 99)])  # what another process does meanwhile
        return frame

    monkeypatch.setattr(store_module, "select", slow)
    store.compact("evaluations")
    monkeypatch.undo()
    assert len(parquet(store)) == 2
    assert losses(store) == {"a": 99, "b0": 0, "b1": 1, "b2": 2}


@pytest.mark.parametrize("moment", ["_whole", "newest_rows"])
@pytest.mark.parametrize("doing", ["read", "compact"])
def test_a_table_that_is_compacted_under_a_reader_is_read_again(store, monkeypatch, moment, doing):
    for number in range(4):
        store.add("evaluations", [value(str(number), number)])
    original, calls = getattr(store_module, moment), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            Store(store.folder).compact("evaluations")
        return original(*arguments)

    monkeypatch.setattr(store_module, moment, interrupted)
    if doing == "compact":
        store.compact("evaluations")
    assert losses(store) == {str(number): number for number in range(4)}
    assert len(calls) > 2


def test_a_reader_interrupted_by_a_compaction_misses_no_row(store, monkeypatch):
    for number in range(4):
        store.add("evaluations", [value(str(number), number)])
    whole, calls = store_module._whole, []

    def interrupted(file):
        calls.append(file)
        if len(calls) == 3:  # two files are found whole, two are gone
            Store(store.folder).compact("evaluations")
        return whole(file)

    monkeypatch.setattr(store_module, "_whole", interrupted)
    assert losses(store) == {str(number): number for number in range(4)}


def test_a_table_that_never_holds_still_is_an_error(store, monkeypatch):
    store.add("evaluations", [value("a", 1)])
    monkeypatch.setattr(
        store_module, "newest_rows", lambda files, table: "read_parquet('/nowhere/gone.parquet')"
    )
    with pytest.raises(OSError, match="the files of table evaluations keep changing"):
        store.read("evaluations")


# --- compaction


def test_many_files_become_few_and_keep_all_rows(store):
    count = store_module._COMPACT + 3
    for number in range(count):
        store.add("evaluations", [value("a", number), value(f"b{number}", number)])
    assert len(parquet(store)) == 3
    assert losses(store) == {"a": count - 1} | {f"b{number}": number for number in range(count)}


def test_what_is_added_after_a_compaction_wins(store):
    for number in range(3):
        store.add("evaluations", [value("a", number), value("b", number)])
    store.compact("evaluations")
    assert len(parquet(store)) == 1
    store.add("evaluations", [value("a", 7)])
    assert losses(store) == {"a": 7, "b": 2}


def test_an_empty_table_may_be_compacted(store):
    store.compact("evaluations")
    assert contents(store.folder) == {}


@pytest.mark.parametrize("deleted", [0, 1, 2, 3])
def test_a_crash_before_the_merged_files_are_gone_doubles_nothing(store, monkeypatch, deleted):
    for number in range(4):
        store.add("evaluations", [value("a", number), value(f"b{number}", number)])
    before, unlink, calls = losses(store), Path.unlink, []

    def crashing(path, missing_ok=False):
        calls.append(path)
        if len(calls) > deleted:
            raise RuntimeError("power cut")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crashing)
        with pytest.raises(RuntimeError, match="power cut"):
            store.compact("evaluations")
    assert len(parquet(store)) == 5 - deleted
    assert losses(store) == before == {"a": 3, "b0": 0, "b1": 1, "b2": 2, "b3": 3}
    store.add("evaluations", [value("a", 9)])
    store.compact("evaluations")
    assert len(parquet(store)) == 1
    assert losses(store) == before | {"a": 9}


@settings(max_examples=20)
@given(
    st.lists(
        st.one_of(
            st.dictionaries(st.sampled_from("abcd"), st.integers(0, 99), min_size=1), st.just("compact")
        ),
        max_size=8,
    )
)
def test_a_table_is_a_dictionary_that_is_updated(actions):
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for action in actions:
            if isinstance(action, str):
                store.compact("evaluations")
            else:
                store.add("evaluations", [value(run, number) for run, number in action.items()])
                expected |= action
        assert losses(store) == expected


# --- damage


@pytest.mark.parametrize("left", ["nothing", "3 bytes", "half", "all but a byte", "other bytes"])
def test_a_damaged_file_is_passed_over_with_a_warning_and_other_rows_stay(store, left):
    for number in range(3):
        store.add("evaluations", [value("a", number), value(f"b{number}", number)])
    damaged = parquet(store)[2]
    whole = damaged.read_bytes()
    size = {"nothing": 0, "3 bytes": 3, "half": len(whole) // 2, "all but a byte": len(whole) - 1}
    spoilt = b"PAR1" + b"\xff" * 40 + b"PAR1" if left == "other bytes" else whole[: size[left]]
    damaged.write_bytes(spoilt)
    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged"):
        assert losses(store) == {"a": 1, "b0": 0, "b1": 1}
    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged"):
        store.compact("evaluations")
    assert damaged.read_bytes() == spoilt
    store.add("evaluations", [value("b2", 2)])
    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged"):
        assert losses(store) == {"a": 1, "b0": 0, "b1": 1, "b2": 2}


def test_a_damaged_file_set_aside_is_kept_and_seen_no_more(store):
    for number in range(2):
        store.add("evaluations", [value(str(number), number)])
    damaged = parquet(store)[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged"):
        (aside,) = store.set_aside("evaluations")
    assert aside.exists() and not damaged.exists()
    assert losses(store) == {"1": 1}
    assert store.set_aside("evaluations") == []


def disk_full(source, target):
    raise OSError(errno.ENOSPC, "No space left on device", str(target))


@pytest.mark.parametrize("act", ["add", "compact"])
def test_a_full_disk_leaves_the_table_as_it_was_and_no_rubbish(store, monkeypatch, act):
    for number in range(3):
        store.add("evaluations", [value("a", number), value(f"b{number}", number)])
    before = contents(store.folder)
    with monkeypatch.context() as patch:
        patch.setattr(files_module.os, "replace", disk_full)
        with pytest.raises(OSError, match="No space left") as caught:
            if act == "add":
                store.add("evaluations", [value("a", 9), value("c", 9)])
            else:
                store.compact("evaluations")
    assert caught.value.errno == errno.ENOSPC
    assert contents(store.folder) == before
    assert losses(store) == {"a": 2, "b0": 0, "b1": 1, "b2": 2}


# --- older files


def old_runs(store: Store, *runs: tuple[str, float], number: int = 0) -> Path:
    """A file of runs as the first version wrote them: no version in its name, fewer columns, one that is gone."""
    folder = store.folder / "tables" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:06d}-abcdef{number:02d}.parquet"
    pl.DataFrame(
        [
            {
                "run": run,
                "status": "done",
                "model": {"layers": 3, "kind": "diag", "gone": True},
                "task": {"kind": "linear_regression", "dim": 2},
                "adjusted_loss": loss,
                "wall_clock": 1.5,
            }
            for run, loss in runs
        ]
    ).write_parquet(path)
    return path


def test_a_file_of_the_first_schema_is_read_with_nulls_in_what_it_lacks(store):
    old_runs(store, ("a", 0.25), ("b", 0.5))
    frame = store.read("runs").sort("run")
    assert frame.schema == pl.Schema(SCHEMAS["runs"])
    first = frame.row(0, named=True)
    assert (first["run"], first["status"], first["adjusted_loss"]) == ("a", "done", 0.25)
    assert first["model"] == {"kind": "diag", "layers": 3, "heads": None, "init_scale": None}
    assert (first["task"]["dim"], first["task"]["noise"]) == (2, None)
    assert first["floor"] is first["study"] is first["seconds"] is first["train"] is None
    assert (
        store.query("runs", "model.kind = 'diag' and model.init_scale is null and floor is null").height == 2
    )


def test_a_migrated_file_is_rewritten_once_under_its_number(store):
    path = old_runs(store, ("a", 0.25), number=7)
    store.read("runs")
    assert [file.name for file in parquet(store, "runs")] == [f"000007-v{VERSION}-abcdef07.parquet"]
    assert not path.exists()
    before = contents(store.folder)
    store.read("runs")
    assert contents(store.folder) == before


def test_a_migrated_row_stays_older_than_the_one_that_replaced_it(store):
    store.add("runs", [row("first", 0.1)])
    store.add("runs", [row("a", 0.9)])  # number 1, newer than the old file's 0
    old_runs(store, ("a", 0.25), ("b", 0.5))
    found = {each["run"]: each["adjusted_loss"] for each in store.read("runs").to_dicts()}
    assert found == {"first": 0.1, "a": 0.9, "b": 0.5}


def test_old_and_new_files_are_compacted_together(store):
    old_runs(store, ("a", 0.25), ("b", 0.5))
    store.add("runs", [row("a", 0.75), row("c", 1.0)])
    store.compact("runs")
    assert len(parquet(store, "runs")) == 1
    found = {each["run"]: each["adjusted_loss"] for each in store.read("runs").to_dicts()}
    assert found == {"a": 0.75, "b": 0.5, "c": 1.0}


def test_a_crash_while_a_file_is_migrated_doubles_nothing(store, monkeypatch):
    old_runs(store, ("a", 0.25), ("b", 0.5))

    def crashing(path, missing_ok=False):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crashing)
        with pytest.raises(RuntimeError, match="power cut"):
            store.read("runs")
    assert len(parquet(store, "runs")) == 2
    assert sorted(store.read("runs")["run"]) == ["a", "b"]
    assert len(parquet(store, "runs")) == 1


def test_a_file_of_a_newer_schema_is_left_alone_and_named(tmp_path):
    store = Store(tmp_path)
    store.add("evaluations", [{"run": "a", "name": "regret", "value": 1.0}])
    [file] = (tmp_path / "tables" / "evaluations").iterdir()
    newer = file.rename(file.with_name(f"000000-v{VERSION + 1}-abcdef01.parquet"))
    with pytest.raises(ValueError, match=f"newer innerloop .schema {VERSION + 1}, here {VERSION}."):
        store.read("evaluations")
    assert newer.exists()


def test_of_two_rows_of_one_key_in_one_addition_the_last_stays(tmp_path):
    store = Store(tmp_path)
    store.add("evaluations", [{"run": "a", "name": "regret", "value": value} for value in (1.0, 2.0)])
    assert store.read("evaluations")["value"].to_list() == [2.0]
