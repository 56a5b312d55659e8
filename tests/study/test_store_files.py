"""A store's files: compaction, damage, a full disk, and files of other schemas."""

import errno
from pathlib import Path

import polars as pl
import pytest
from store_rows import contents, losses, parquet, row, value

from innerloop import files as files_module
from innerloop.study import store as store_module
from innerloop.study.sql import VERSION
from innerloop.study.store import SCHEMAS, Store


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
