"""A store that several processes use at once: nothing is lost, doubled or half read."""

import multiprocessing
from pathlib import Path

import pytest
from store_rows import losses, parquet, value

from innerloop.study import store as store_module
from innerloop.study.store import Store, select


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
